"""Where the time goes on the three hottest paths: `python -m benchmarks.profile`.

Each runs in processes of its own: undisturbed, for the CPU of client and server and for what Redis executed; then
under py-spy, for the shares. A sample counts for the innermost Python function: what a function of C takes, and so
hiredis's parser and the garbage collector, counts for the line that called it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.apart import apart
from benchmarks.scenario import number
from benchmarks.scenarios import entries, throughput
from tests.harness.workers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from benchmarks.scenario import Sample

RATE = 500
"""Samples that py-spy takes in a second."""

PLACES = {
    "this library": ("(redis_stream_client/",),
    "sockets and epoll": ("(selectors.py", "(asyncio/selector_events.py"),
    "asyncio": ("(asyncio/", "(contextlib.py"),
    "redis-py": ("(redis/",),
    "json": ("(json/",),
}
"""Where a function's file is."""

OTHERS = "the handler, the rest"

NOT_PROFILED = ("add_many (", "write (benchmarks/scenarios/entries.py", "prepare (")
"""What a scenario does before it is measured."""


PATHS: Mapping[str, tuple[Callable[..., Coroutine[Any, Any, Sample]], dict[str, Any]]] = {
    "assign + done": (throughput.drain, {"way": "run", "streams": 60_000}),
    "entry + checkpoint": (entries.process, {"way": "checkpoint each", "streams": 1_000, "each": 60}),
    "take-over": (throughput.drain, {"way": "take over", "streams": 40_000}),
}


async def shares(work: Callable[..., Coroutine[Any, Any, Sample]], case: dict[str, Any]) -> dict[str, float]:
    """The part of the process's CPU samples in each of the `PLACES`."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "stacks"
        spy = await asyncio.create_subprocess_exec(
            *("py-spy", "record", "--rate", str(RATE), "--format", "raw", "--output", str(raw), "--"),
            *(sys.executable, "-m", "benchmarks.apart", work.__module__, work.__qualname__, "asyncio"),
            json.dumps(case),
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, complaints = await spy.communicate()
        if not raw.exists():
            raise RuntimeError(f"py-spy failed: {complaints.decode(errors='replace')[-500:]}")
        stacks = [line.rpartition(" ") for line in raw.read_text().splitlines()]
    counts: Counter[str] = Counter()
    for stack, _, count in stacks:
        if "_run_once (" in stack and not any(name in stack for name in NOT_PROFILED):
            counts[_place(stack.rpartition(";")[2])] += int(count)
    return {place: counts[place] / counts.total() for place in (*PLACES, OTHERS)}


def _place(function: str) -> str:
    return next((place for place, files in PLACES.items() if any(file in function for file in files)), OTHERS)


async def profile(console: Console, runs: int) -> None:
    """Print the table."""
    columns: dict[str, dict[str, str]] = {}
    for name, (work, case) in PATHS.items():
        samples = [await apart(work, **case) for _ in range(runs)]
        middle = sorted(samples, key=lambda sample: next(iter(sample.values())))[len(samples) // 2]
        column = columns[name] = {}
        for metric, value in middle.items():
            what, _, each = metric.partition("/")
            if each:
                column["a second" if each == "s" else f"{what} each"] = number(value)
        column.update(
            {f"client CPU in {place}": f"{part:.0%}" for place, part in (await shares(work, case)).items()}
        )
    table = Table(title="the hottest paths")
    for heading in ("", *columns):
        table.add_column(heading, justify="right" if heading else "left")
    for row in dict.fromkeys(row for column in columns.values() for row in column):
        table.add_row(row, *(column.get(row, "") for column in columns.values()))
    console.print(table)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="undisturbed runs; the median is shown (default 3)")
    arguments = parser.parse_args()
    asyncio.run(profile(Console(), arguments.runs))


if __name__ == "__main__":
    main()
