"""Run the scenarios and print their tables: `python -m benchmarks [NAME …] [--runs N] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.follow import follow
from benchmarks.handover import handover
from benchmarks.hold import hold
from benchmarks.spread import spread
from benchmarks.takeover import takeover
from benchmarks.throughput import throughput
from tests.binaries import chosen, locate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from benchmarks.measure import Row

SCENARIOS: dict[str, Callable[[], AsyncIterator[Row]]] = {
    "hold": hold,
    "follow": follow,
    "takeover": takeover,
    "handover": handover,
    "spread": spread,
    "throughput": throughput,
}


async def run(names: list[str], runs: int, console: Console) -> dict[str, list[Row]]:
    """Run each scenario `runs` times; every row is printed as it was measured, nothing is averaged away."""
    results: dict[str, list[Row]] = {name: [] for name in names}
    for number in range(1, runs + 1):
        for name in names:
            console.print(f"[dim]{name}, run {number} of {runs} …[/dim]")
            results[name] += [{"run": number, **row} async for row in SCENARIOS[name]()]
    for name, rows in results.items():
        table = Table(title=name)
        for column in rows[0]:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
        console.print(table)
    return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(SCENARIOS)}; default: all"
    )
    parser.add_argument("--runs", type=int, default=1, help="how often each is run (default 1)")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(SCENARIOS)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    console = Console()
    server = f"{chosen()} {locate(chosen()).version}"
    console.print(f"Python {platform.python_version()}, redis-py {version('redis')}, server {server}")
    results = asyncio.run(run(arguments.names or list(SCENARIOS), arguments.runs, console))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
