"""Bus logs to decode, made of lines as opencode writes them."""

import datetime
import itertools
import json
import os
import pathlib
import re

CAPTURES = pathlib.Path(__file__).parents[2] / "tests/fixtures/captures/1.14.48"

BEGIN = datetime.datetime(2026, 11, 23)

# Level, second, milliseconds since the line before, and the rest. Not every line has them.
LINE = re.compile(r"(\w+ +)[0-9T:-]{19} \+(\d+)(ms .*)")

# So many bytes have lines of their own; then they come again. The clock is set back only there.
BLOCK = 32 << 20


def captured():
    """A server's log as it was, over and over."""
    files = sorted(CAPTURES.glob("*/stderr.jsonl"))
    return itertools.cycle([json.loads(line)["line"] for file in files for line in file.open()])


def announced():
    """Text that streams, and nothing else: every line announces an event."""
    return (f"INFO  2026-11-23T00:00:00 +{n % 10}ms service=bus type=message.part.delta publishing" for n in itertools.count())


# What `decode` is measured on, by name.
LINES = {"captured": captured, "announced": announced}


def write(path, lines, size):
    """A log of at least so many bytes, on the disk and in the page cache."""
    block, length = [], 0
    for line in timed(lines):
        block.append(line)
        length += len(line)
        if length >= min(size, BLOCK):
            break
    block = "".join(block).encode()
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block)
        file.flush()
        # Or it would be written while something is measured.
        os.fsync(file.fileno())


def timed(lines):
    """The lines with a clock that goes on from one to the next, as a server's does."""
    now = BEGIN
    for line in lines:
        if found := LINE.fullmatch(line):
            level, later, rest = found.groups()
            now += datetime.timedelta(milliseconds=int(later))
            line = f"{level}{now.isoformat(timespec='seconds')} +{later}{rest}"
        yield line + "\n"
