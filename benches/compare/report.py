"""Medians as tables, beside the aims."""

import dataclasses
import math
import statistics

from . import cells

NAMES = {"relay": "relay", "nginx": "nginx", "haproxy": "HAProxy", "nchan": "nchan", "bare_proxy": "bare loop",
         "bare_hyper": "bare hyper", "bare_events": "bare loop"}
KIB, MIB = 1 << 10, 1 << 20


class Medians:
    """What was measured, by cell, subject and round."""

    def __init__(self):
        self.runs = {}

    def add(self, cell, subject, turn, figures):
        for name, value in figures.items():
            # What could not be told is null in the tool's words.
            if value is not None and not math.isnan(value):
                self.runs.setdefault((cell.part, cell.sets, subject, name), {})[turn] = value

    def rows(self, part):
        """A part's cells in the order in which they ran."""
        sets = dict.fromkeys(key[1] for key in self.runs if key[0] == part)
        return [Row(self, part, values) for values in sets]

    def curve(self, part, subject, figure, at, which=lambda sets: True, unit=1):
        """A figure over what cells differ in at a place."""
        points = [(row.sets[at], row.get(subject, figure) / unit) for row in self.rows(part) if which(row.sets)]
        return sorted(point for point in points if not math.isnan(point[1]))


@dataclasses.dataclass
class Row:
    """The figures of one cell."""

    medians: Medians
    part: str
    sets: tuple

    def of(self, subject, figure):
        """By round."""
        return self.medians.runs.get((self.part, self.sets, subject, figure), {})

    def get(self, subject, figure):
        """The median; not a number if there is none."""
        return statistics.median(self.of(subject, figure).values() or [math.nan])

    def show(self, subject, figure, unit=1):
        return number(self.get(subject, figure) / unit)

    def each(self, subjects, figure, unit=1):
        return [self.show(subject, figure, unit) for subject in subjects]

    def times(self, subjects, name):
        """p50 and p99 of each in milliseconds."""
        return [f"{self.show(subject, f'{name}_p50_us', 1e3)} / {self.show(subject, f'{name}_p99_us', 1e3)}"
                for subject in subjects]

    def ratio(self, one, other, figure, aim=math.inf):
        """The median of the rounds' ratios: what disturbs a round disturbs both. Bold where the aim is not reached."""
        one, other = self.of(one, figure), self.of(other, figure)
        ratios = [one[turn] / other[turn] for turn in one if other.get(turn)]
        return judge(statistics.median(ratios), most=aim) if ratios else "–"


def number(value):
    """A figure as people read it."""
    if math.isnan(value):
        return "–"
    return f"{value:,.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def judge(value, most=math.inf, least=-math.inf):
    """Bold where an aim is not reached."""
    return number(value) if math.isnan(value) or least <= value <= most else f"**{number(value)}**"


def size(count):
    return f"{count // MIB} MiB" if count >= MIB else f"{count // KIB} KiB"


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def tables(medians, scale):
    """All that was measured, as Markdown."""
    parts = {
        "rest": lambda rows: rest(rows) + "\n" + paced(rows), "latency": latency, "notices": notices,
        "fan-out": lambda rows: fan_out(rows, scale), "memory": memory, "sessions": sessions, "catch-up": catch_up,
        "sustained": sustained, "idle": idle, "decode": decode}
    return "\n".join(tell(medians.rows(part)) for part, tell in parts.items() if medians.rows(part))


def rest(rows):
    names, cpu = [NAMES[subject] for subject in cells.PROXIES], "cpu_us_per_request"
    heads = ["body", "connections", *(f"{name}, µs CPU a request" for name in names), "relay / nginx", "relay / HAProxy",
             "bare loop / nginx", "bare hyper / nginx", "relay / bare hyper",
             *(f"{name}, requests/s" for name in names)]
    lines = [[size(row.sets[0]), row.sets[1], *row.each(cells.PROXIES, cpu), row.ratio("relay", "nginx", cpu, 1.0),
              row.ratio("relay", "haproxy", cpu), row.ratio("bare_proxy", "nginx", cpu, 1.0),
              row.ratio("bare_hyper", "nginx", cpu, 1.0), row.ratio("relay", "bare_hyper", cpu),
              *row.each(cells.PROXIES, "requests_per_s")] for row in rows]
    return ("## REST, passed through\n\nAs fast as answers come. Aim: relay / nginx ≤ 1.0. The bare loop is "
            "`load bare-proxy`: each client's bytes are copied to a connection of its own and back, with epoll, read and write, "
            "by as many threads as nginx has workers. It knows no HTTP. What it costs is the least that is left to a proxy in "
            "user space. Bare hyper is `load bare-hyper`: hyper's server and client in one task for each client, with nothing "
            "between them.\n\n" + table(heads, lines))


def paced(rows):
    names, cpu, late = [NAMES[subject] for subject in cells.PROXIES], "paced_cpu_us_per_request", "paced_latency"
    heads = ["body", "connections", "requests/s", *(f"{name}, p50 / p99 ms" for name in names), "p99 relay / nginx",
             "p99 bare loop / nginx", "p99 bare hyper / nginx", *(f"{name}, µs CPU a request" for name in names)]
    lines = [[size(row.sets[0]), row.sets[1], f"{cells.PACE[row.sets[0]]:,}", *row.times(cells.PROXIES, late),
              row.ratio("relay", "nginx", f"{late}_p99_us", 1.0), row.ratio("bare_proxy", "nginx", f"{late}_p99_us", 1.0),
              row.ratio("bare_hyper", "nginx", f"{late}_p99_us", 1.0), *row.each(cells.PROXIES, cpu)]
             for row in rows if row.sets[0] in cells.PACE]
    return ("At a rate that all of them can keep, times from when a request was due. Aim for p99: relay / nginx ≤ 1.0.\n\n"
            + table(heads, lines))


def latency(rows):
    def later(row, subject):
        return judge((row.get(subject, "latency_p50_us") - row.get("direct", "latency_p50_us")) / 1e3, most=0.3)

    heads = ["events/s", "`/event` of the relay, p50 / p99 ms", "`/global/event` directly, p50 / p99 ms",
             "through the bare loop, p50 / p99 ms", "p50 later by, ms", "bare loop later by, ms"]
    lines = [[f"{row.sets[0]:,}", *row.times(cells.LATENCY, "latency"), later(row, "relay"), later(row, "bare_events")]
             for row in rows]
    return ("## Added latency\n\nOne client, the journal on disk. Aim: p50 later by ≤ 0.3 ms. The bare loop writes what it "
            "reads. With real releases: `scripts/measure`.\n\n" + table(heads, lines))


def notices(rows):
    get = lambda row, name: row.get("relay", f"read_begun_{name}_us") / 1e3
    lines = [[judge(get(row, "p50"), most=2), number(get(row, "max"))] for row in rows]
    return ("## From the bus log to a question\n\nA line in the file until the state is asked for, with `--witness log`. "
            "Aim: p50 ≤ 2 ms.\n\n" + table(["p50, ms", "longest, ms"], lines))


def fan_out(rows, scale):
    names, cpu, last = [NAMES[subject] for subject in cells.STREAMS], "cpu_us_per_delivery", "last_client_p99_us"
    crowd = lambda row: [f"{value:,}" for value in row.sets]
    costs = [[*crowd(row), *row.each(cells.STREAMS, cpu), row.ratio("relay", "nchan", cpu, 0.6),
              row.ratio("bare_events", "nchan", cpu, 0.6), row.ratio("relay", "bare_events", cpu)] for row in rows]
    aim = lambda row: 0.5 if row.sets[0] == 1000 else math.inf
    times = [[*crowd(row), *row.times(cells.STREAMS, "latency"), *row.each(cells.STREAMS, last, 1e3),
              row.ratio("relay", "nchan", last, aim(row)), row.ratio("bare_events", "nchan", last, aim(row)),
              *row.each(cells.STREAMS, "arrived_share", 0.01)] for row in rows]
    out = ", ".join(f"{clients:,} × {rate:,}" for clients, rate in cells.left_out(scale))
    more = f"\nLeft out, above {cells.MOST_DELIVERIES:,} deliveries a second (clients × events/s): {out}.\n" if out else ""
    return ("## Event streams, fanned out\n\nEvents of 300 bytes. Aim: CPU relay / nchan ≤ 0.6. The bare loop is "
            "`load bare-events`: what one read finds goes to each client with one write, as it is, in as many threads as nchan "
            "has workers. It has no HTTP, no filters and no events of its own. Where its ratio is bold, no server that writes to "
            "every client reaches the aim.\n\n"
            + table(["clients", "events/s", *(f"{name}, µs CPU a delivery" for name in names), "relay / nchan",
                     "bare loop / nchan", "relay / bare loop"], costs)
            + "\nAim: p99 from the upstream's frame to the last client, with 1,000 clients, ≤ 0.5 of nchan's. In time is what "
            "came until 5 s after the last event was sent.\n\n"
            + table(["clients", "events/s", *(f"{name}, p50 / p99 ms" for name in names),
                     *(f"{name}, p99 to the last, ms" for name in names), "relay / nchan", "bare loop / nchan",
                     *(f"{name}, in time, %" for name in names)], times) + more)


def memory(rows):
    heads = ["clients", "relay, KiB each", "nchan", "bare loop", "relay, MiB in all", "nchan", "bare loop"]
    each = lambda row, subject, kind: row.show(subject, f"{kind}_bytes_per_client", KIB)
    lines = [[f"{row.sets[0]:,}", judge(row.get("relay", "rss_bytes_per_client") / KIB, most=2), each(row, "nchan", "pss"),
              each(row, "bare_events", "rss"), row.show("relay", "full_rss_bytes", MIB),
              row.show("nchan", "full_pss_bytes", MIB), row.show("bare_events", "full_rss_bytes", MIB)] for row in rows]
    return ("## Memory of an idle client\n\nResident. Aim: ≤ 2 KiB with 5,000. nchan's processes share memory: what is shared "
            "is counted once. What the kernel holds for a connection is in none of them.\n\n" + table(heads, lines))


def sessions(rows):
    lines = [[f"{row.sets[0]:,}", row.show("relay", "cpu_us_per_delivery"), row.show("relay", "latency_p99_us", 1e3),
              row.show("relay", "full_rss_bytes", MIB)] for row in rows]
    return (f"## Sessions\n\n{cells.RATE} events a second to {cells.CLIENTS} clients, of ever more sessions.\n\n"
            + table(["sessions", "µs CPU a delivery", "p99, ms", "RSS, MiB"], lines))


def catch_up(rows):
    heads = ["events in the journal", "events/s", "µs CPU an event", "coming in, events/s", "coming in, µs CPU an event",
             "RSS after, MiB"]
    lines = [[f"{row.sets[0]:,}", judge(row.get("relay", "events_per_s"), least=500_000),
              row.show("relay", "cpu_us_per_event"), row.show("relay", "live_events_per_s"),
              row.show("relay", "live_cpu_us_per_event"), row.show("relay", "full_rss_bytes", MIB)] for row in rows]
    return ("## Catching up\n\nOne client comes back for everything, the journal on disk. Aim: ≥ 500,000 events/s over 100,000. "
            "Coming in: the same events before, as fast as they were taken, to one client.\n\n" + table(heads, lines))


def sustained(rows):
    heads = ["seconds", "events/s, median", "in the slowest tenth", "µs CPU an event", "longest silence, ms",
             "RSS at the end, MiB", "most"]
    lines = [[row.show("relay", "seconds"), row.show("relay", "events_per_s"), row.show("relay", "slowest_events_per_s"),
              row.show("relay", "cpu_us_per_event"), row.show("relay", "silence_ms"), row.show("relay", "full_rss_bytes", MIB),
              row.show("relay", "most_rss_bytes", MIB)] for row in rows]
    return ("## Coming in without a pause\n\nAs fast as they are taken, to one client that gets each in its place, the journal "
            "on disk and at its limit after the first seconds. The time is cut into ten windows.\n\n" + table(heads, lines))


def idle(rows):
    get = lambda figure, unit=1: rows[0].get("relay", figure) / unit
    return "## At rest\n\n" + table(["what", "measured", "aim"], [
        ["RSS", f"{judge(get('idle_rss_bytes', MIB), most=12)} MiB", "≤ 12 MiB"],
        ["wake-ups of all threads", f"{number(get('switches_per_s'))} a second", "heartbeats and the watchdog only"],
        ["CPU", f"{number(get('cpu_us_per_s'))} µs a second", ""],
        ["start to listening", f"{judge(get('start_ms'), most=30)} ms", "≤ 30 ms"],
        ["stripped binary", f"{judge(get('binary_bytes', MIB), most=8)} MiB", "≤ 8 MiB"]])


def decode(rows):
    names = {"captured": "as captured, two in five an event", "announced": "nothing but events"}
    lines = [[names[row.sets[0]], judge(row.get("relay", "bytes_per_s") / 1e6, least=1_000),
              row.show("grep", "bytes_per_s", 1e6), row.ratio("grep", "relay", "bytes_per_s", 2.0)] for row in rows]
    return ("## Decoding the bus log\n\nOf CPU time, from the page cache; what `decode` writes goes to `/dev/null`. 512 MiB: "
            "the lines of captured runs over and over, or one line for each piece of a text. Aims: ≥ 1,000 MB/s, and at most "
            "twice the time of `grep -c publishing`.\n\n"
            + table(["lines", "`decode`, MB/s", "`grep -c`, MB/s", "time, decode / grep"], lines))
