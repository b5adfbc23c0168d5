"""What is measured: one cell is one figure's set-up, run for each of its subjects."""

import dataclasses
import os
import pathlib
import re
import statistics
import subprocess
import time
import typing

from . import buslog, servers

PROXIES = ("relay", "nginx", "haproxy", "bare_proxy", "bare_hyper")
STREAMS = ("relay", "nchan", "bare_events")
RELAY = ("relay",)
LATENCY = ("relay", "direct", "bare_events")

# Not the rivals.
OURS = ("relay", "direct", "bare_proxy", "bare_hyper", "bare_events")

KIB, MIB = 1 << 10, 1 << 20

# Requests a second at which nobody is near to saturation here, by the size of the body.
PACE = {KIB: 2000, MIB: 50}

# More deliveries a second than two cores can make and take: such cells are left out.
MOST_DELIVERIES = 250_000


@dataclasses.dataclass(frozen=True)
class Cell:
    # What --only names.
    part: str
    # What makes it differ from the other cells of its part.
    sets: tuple
    subjects: tuple
    measure: typing.Callable


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured."""

    seconds: float
    idle_seconds: float
    starts: int
    # Connections of REST for every size, and further sizes at `CONNECTIONS` of them.
    connections: tuple
    sizes: tuple
    # Events a second to one client.
    rates: tuple
    # Lines of the bus log, one by one.
    notices: int
    # Clients by events a second.
    crowds: dict
    idle_crowds: tuple
    sessions: tuple
    journals: tuple
    # As long as events come in as fast as they are taken.
    sustained_seconds: float
    # Of the bus log, for `decode`.
    log_bytes: int


# The number of connections and clients that curves over other things are taken at.
CONNECTIONS = 16
CLIENTS = 100
RATE = 50

WHOLE = Scale(
    seconds=4, idle_seconds=30, starts=10, connections=(1, 16, 64, 256), sizes=(16 * KIB, 256 * KIB),
    rates=(10, 50, 200), notices=10, crowds={100: (10, 50, 200, 1000), 1000: (10, 50, 200, 1000), 5000: (10, 50, 200, 1000)},
    idle_crowds=(100, 1000, 5000), sessions=(1, 10, 100, 1000), journals=(10_000, 30_000, 100_000, 300_000),
    sustained_seconds=20, log_bytes=512 * MIB)

SMOKE = Scale(
    seconds=0.5, idle_seconds=0.5, starts=1, connections=(1, 16), sizes=(),
    rates=(100,), notices=1, crowds={10: (10, 100)}, idle_crowds=(50,), sessions=(10,), journals=(1_000,),
    sustained_seconds=0.5, log_bytes=MIB)


def cells(scale):
    """All of them, in the order in which they run."""
    parts = (rest, latency, notices, fan_out, memory, sessions, catch_up, sustained, idle, decode)
    return [cell for part in parts for cell in part(scale)]


def left_out(scale):
    """The crowds that no machine of this size can serve."""
    crowds = ((clients, rate) for clients, rates in scale.crowds.items() for rate in rates)
    return [(clients, rate) for clients, rate in crowds if clients * rate > MOST_DELIVERIES]


def rest(scale):
    sets = [(size, count) for size in PACE for count in scale.connections]
    sets += [(size, CONNECTIONS) for size in scale.sizes]

    def measure(bench, subject, size, count):
        with bench.subject(subject) as (server, _):
            load = ("rest", f"{server.url}/bytes/{size}", "--connections", count, "--seconds", scale.seconds,
                    "--cost", server.pid)
            figures = bench.load(*load)
            if size in PACE:
                paced = bench.load(*load, "--rate", PACE[size])
                figures |= {f"paced_{name}": value for name, value in paced.items()}
        return figures

    return [Cell("rest", values, PROXIES, measure) for values in sets]


def stream_url(subject, server):
    return server.url + {"relay": "/event", "nchan": "/sub", "direct": "/global/event", "bare_events": "/"}[subject]


def follow(bench, subject, scale, clients, rate, sessions=1):
    with bench.subject(subject) as (server, origin):
        return bench.load(
            "streams", stream_url(subject, server), "--clients", clients, "--seconds", scale.seconds * 2,
            "--origin", origin.url, "--rate", rate, "--sessions", sessions, "--cost", server.pid)


def latency(scale):
    measure = lambda bench, subject, rate: follow(bench, subject, scale, 1, rate)
    return [Cell("latency", (rate,), LATENCY, measure) for rate in scale.rates]


def notices(scale):
    def measure(bench, _):
        with bench.by_log() as (_, origin):
            return bench.load("notices", origin.url, "--lines", scale.notices)

    return [Cell("notices", (), RELAY, measure)]


def fan_out(scale):
    out = left_out(scale)
    sets = [(clients, rate) for clients, rates in scale.crowds.items() for rate in rates if (clients, rate) not in out]
    measure = lambda bench, subject, clients, rate: follow(bench, subject, scale, clients, rate)
    return [Cell("fan-out", values, STREAMS, measure) for values in sets]


def sessions(scale):
    measure = lambda bench, subject, count: follow(bench, subject, scale, CLIENTS, RATE, count)
    return [Cell("sessions", (count,), RELAY, measure) for count in scale.sessions]


def memory(scale):
    def measure(bench, subject, clients):
        with bench.subject(subject) as (server, _):
            return bench.load("streams", stream_url(subject, server), "--clients", clients,
                              "--seconds", scale.seconds / 2, "--cost", server.pid)

    return [Cell("memory", (clients,), STREAMS, measure) for clients in scale.idle_crowds]


def catch_up(scale):
    def measure(bench, subject, events):
        with bench.subject(subject) as (server, origin):
            return bench.load("catch-up", f"{server.url}/event", "--origin", origin.url, "--events", events,
                              "--cost", server.pid)

    return [Cell("catch-up", (events,), RELAY, measure) for events in scale.journals]


def sustained(scale):
    def measure(bench, subject):
        with bench.subject(subject) as (server, origin):
            return bench.load("sustained", f"{server.url}/event", "--origin", origin.url, "--seconds",
                              scale.sustained_seconds, "--cost", server.pid, limit=servers.LIMIT + scale.sustained_seconds)

    return [Cell("sustained", (), RELAY, measure)]


def idle(scale):
    def measure(bench, subject):
        with bench.subject(subject) as (server, origin):
            # What a start leaves behind is done by then.
            time.sleep(scale.idle_seconds / 2)
            figures = bench.load("idle", server.pid, "--seconds", scale.idle_seconds)
            times = []
            for _ in range(scale.starts):
                address = servers.free_address()
                times.append(bench.load("start", address, "--", *bench.relay_command(address, origin))["start_ms"])
        figures["start_ms"] = sorted(times)[len(times) // 2]
        figures["binary_bytes"] = pathlib.Path(bench.relay_program).stat().st_size
        return figures

    return [Cell("idle", (), RELAY, measure)]


def decode(scale):
    def spent(command, stdout):
        """User and system seconds of a command: the median of a few runs, all from the page cache."""
        return statistics.median(once(command, stdout) for _ in range(3))

    def once(command, stdout):
        with subprocess.Popen(command, stdout=stdout) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{command} ended with {process.returncode}")
        return usage.ru_utime + usage.ru_stime

    def measure(bench, subject, lines):
        log = bench.folder / f"{lines}.log"
        if not log.exists():
            buslog.write(log, buslog.LINES[lines](), scale.log_bytes)
        if subject == "relay":
            seconds = spent([bench.relay_program, "decode", log], subprocess.DEVNULL)
        else:
            # grep stops at the first line where it sees that nobody reads.
            seconds = spent(["grep", "-c", "publishing", log], subprocess.PIPE)
        return {"bytes_per_s": log.stat().st_size / seconds if seconds else float("nan")}

    return [Cell("decode", (lines,), ("relay", "grep"), measure) for lines in buslog.LINES]


def name(cell):
    return " ".join([cell.part, *(re.sub(r"(?<=\d)(?=(\d{3})+$)", ",", str(value)) for value in cell.sets)])
