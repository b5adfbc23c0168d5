"""Runs what `benches/side-by-side` measures, and tells it."""

import argparse
import contextlib
import dataclasses
import datetime
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

from . import cells, report, servers
from .plot import plot

HERE = pathlib.Path(__file__).parent.parent


def main():
    options = read_options()
    if options.step == "check":
        return
    # An end that is asked for ends what was started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    scale = cells.SMOKE if options.smoke else dataclasses.replace(cells.WHOLE, sustained_seconds=options.sustained)
    chosen = [cell for cell in cells.cells(scale) if not options.only or cell.part in options.only]
    began, load = time.monotonic(), os.getloadavg()[0]
    medians, failures = measure(chosen, options)
    text, drawn = report.tables(medians, scale), pictures(medians)
    if options.smoke:
        print(f"{len(chosen)} cells ran; they would make {len(text.splitlines())} lines and {len(drawn)} plots")
    else:
        print(text)
    if failures:
        sys.exit("side-by-side: failed to measure\n" + "\n".join(failures))
    if not options.smoke and not options.only:
        write(text, drawn, options, load, time.monotonic() - began)


def read_options():
    parts = sorted({cell.part for cell in cells.cells(cells.WHOLE)})
    parser = argparse.ArgumentParser(
        prog="benches/side-by-side", description="Measures the relay and its rivals side by side.")
    parser.add_argument("step", choices=("check", "run"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run (default 3)")
    parser.add_argument("--only", action="append", choices=parts, help="one part; can be given several times")
    parser.add_argument("--sustained", type=float, default=cells.WHOLE.sustained_seconds, metavar="SECONDS",
                        help=f"how long events come in without a pause (default {cells.WHOLE.sustained_seconds})")
    parser.add_argument("--smoke", action="store_true", help="everything, as short as can be; nothing is written")
    parser.add_argument("--relay", help=argparse.SUPPRESS)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(chosen, options):
    """Every cell for each of its subjects, round after round; also what went wrong."""
    medians, failures = report.Medians(), []
    with contextlib.ExitStack() as stack:
        bench = servers.Bench(options.relay, options.load, stack)
        for turn in range(1 if options.smoke else options.rounds):
            for cell in chosen:
                # Whoever is first meets another machine than whoever is last.
                first = turn % len(cell.subjects)
                for subject in cell.subjects[first:] + cell.subjects[:first]:
                    show(f"round {turn + 1}: {cells.name(cell)}, {subject}")
                    try:
                        figures = cell.measure(bench, subject, *cell.sets)
                        if options.smoke and subject in cells.OURS:
                            complete(figures)
                    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                        # The others are worth their time all the same.
                        failures.append(f"{cells.name(cell)}, {subject}: {error}")
                        continue
                    medians.add(cell, subject, turn, figures)
    show("")
    return medians, failures


def show(text):
    """What runs, where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def complete(figures):
    """Not how fast, but that: everybody had everything, and nobody was cut off."""
    for name, wanted in (("arrived_share", 1), ("cut_off", 0)):
        if figures.get(name, wanted) != wanted:
            raise RuntimeError(f"{name} is {figures[name]}, not {wanted}")


def write(text, drawn, options, load, took):
    models = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = models[0].split(":", 1)[1].strip() if models else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    machine = report.table(["", ""], [
        ["date", datetime.date.today().isoformat()],
        ["processor", f"{processor}, {os.cpu_count()} cores, shared by servers, origin and clients"],
        ["memory", f"{memory} GiB"],
        ["kernel", f"{platform.system()} {platform.release()}"],
        ["versions", ", ".join(f"{name} {version}" for name, version in servers.versions(options.relay).items())],
        ["command", f"`benches/side-by-side --rounds {options.rounds}`, {took / 60:.0f} minutes"],
        ["load of the machine before", f"{load:.2f}"]])
    folder = HERE / "plots"
    folder.mkdir(exist_ok=True)
    for name, picture in drawn.items():
        (folder / f"{name}.svg").write_text(picture)
    images = "\n".join(f"![{name}](plots/{name}.svg)" for name in drawn)
    (HERE / "RESULTS.md").write_text(
        f"# Measured side by side\n\nWritten by `benches/side-by-side`: medians of {options.rounds} rounds, everything interleaved. "
        "Bold: an aim that was not reached. Times are this machine's; the ratios are what counts.\n\n"
        f"{machine}\n{text}\n## Growth\n\n{images}\n")


def pictures(medians):
    """Cost against clients, rate, size, sessions and the journal."""
    def lines(subjects, part, figure, at, which=lambda sets: True, unit=1):
        return [(report.NAMES[subject], medians.curve(part, subject, figure, at, which, unit)) for subject in subjects]

    request, delivery = "cpu_us_per_request", "cpu_us_per_delivery"
    small, usual = lambda sets: sets[0] == cells.KIB, lambda sets: sets[1] == cells.CONNECTIONS
    at_rate, few = lambda sets: sets[1] == cells.RATE, lambda sets: sets[0] == cells.CLIENTS
    drawn = {
        "rest-connections": plot(
            "REST, 1 KiB", "connections", "µs CPU a request", lines(cells.PROXIES, "rest", request, 1, small)),
        "rest-size": plot(
            f"REST, {cells.CONNECTIONS} connections", "KiB", "µs CPU a request",
            [(name, [(x / report.KIB, y) for x, y in points])
             for name, points in lines(cells.PROXIES, "rest", request, 0, usual)]),
        "fan-out-clients": plot(
            f"Fan-out, {cells.RATE} events/s", "clients", "µs CPU a delivery",
            lines(cells.STREAMS, "fan-out", delivery, 0, at_rate)),
        "fan-out-rate": plot(
            f"Fan-out, {cells.CLIENTS} clients", "events/s", "µs CPU a delivery",
            lines(cells.STREAMS, "fan-out", delivery, 1, few)),
        "fan-out-last": plot(
            f"To the last client, {cells.RATE} events/s", "clients", "p99, ms",
            lines(cells.STREAMS, "fan-out", "last_client_p99_us", 0, at_rate, 1e3)),
        "memory": plot(
            "Idle clients", "clients", "MiB in all",
            lines(cells.RELAY, "memory", "full_rss_bytes", 0, unit=report.MIB)
            + lines(("nchan",), "memory", "full_pss_bytes", 0, unit=report.MIB)),
        "sessions": plot(
            f"Sessions, {cells.CLIENTS} clients", "sessions", "µs CPU a delivery", lines(cells.RELAY, "sessions", delivery, 0)),
        "journal": plot("The journal", "events in it", "µs CPU an event", [
            ("catching up", medians.curve("catch-up", "relay", "cpu_us_per_event", 0)),
            ("coming in", medians.curve("catch-up", "relay", "live_cpu_us_per_event", 0))]),
    }
    return {name: picture for name, picture in drawn.items() if picture}


main()
