"""Run scenarios and print their tables: `python -m benchmarks [NAME …]`, or `nox -s bench -- [NAME …]`.

Each scenario starts servers and processes of its own. In each run its contenders take turns; a table holds the
median of the runs and, in brackets, the least and the most. Its last column is the ratio to this library, run by
run.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks import report, scenario
from benchmarks.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenario import Result


async def run(names: Sequence[str], arguments: argparse.Namespace, console: Console) -> dict[str, list[Result]]:
    """Run these scenarios, printing a line for every sample and a table for every scenario."""
    results: dict[str, list[Result]] = {}
    for name in names:
        results[name] = await scenario.run(
            SCENARIOS[name],
            arguments.runs,
            deep=arguments.deep,
            only=arguments.only,
            tell=lambda line: console.print(line, style="dim", highlight=False, soft_wrap=True),
        )
        console.print(report.table(SCENARIOS[name], results[name]))
        for line in report.failures(results[name]):
            console.print(line, style="red", highlight=False)
        save(results, arguments)  # after each: a run of all of them takes long
    return results


def save(results: dict[str, list[Result]], arguments: argparse.Namespace) -> None:
    """Write the files that were asked for."""
    if arguments.json:
        arguments.json.write_text(report.as_json(results) + "\n")
    if arguments.markdown:
        tables = [report.markdown(SCENARIOS[name], of_scenario) for name, of_scenario in results.items()]
        arguments.markdown.write_text("\n".join(tables))
    if arguments.charts:
        arguments.charts.mkdir(parents=True, exist_ok=True)
        for name, of_scenario in results.items():
            report.draw(SCENARIOS[name], of_scenario, arguments.charts)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(SCENARIOS)}; default: all"
    )
    parser.add_argument("--runs", type=int, default=3, help="how often each is run (default 3)")
    parser.add_argument("--deep", action="store_true", help="the sizes that take minutes, too, once each")
    parser.add_argument("--only", metavar="CONTENDER", help="this contender alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to this file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to this file")
    parser.add_argument("--charts", type=Path, metavar="FOLDER", help="draw the charts into this folder")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(SCENARIOS)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    logging.getLogger("redis_stream_client").setLevel(logging.CRITICAL)  # the holders that are killed are told of
    console = Console()
    console.print(", ".join(f"{key} {value}" for key, value in report.machine().items()), highlight=False)
    asyncio.run(run(arguments.names or list(SCENARIOS), arguments, console))


if __name__ == "__main__":
    main()
