"""What becomes of the results: tables for the eye and for the README, a JSON file, and charts."""

from __future__ import annotations

import json
import os
import platform
import textwrap
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks.scenario import FAILED, Result, Scenario, number, ratios
from tests.harness.binaries import chosen, locate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.scenario import Chart

Results = list[Result]

TITLE_WIDTH = 80
"""Characters in a line above a chart."""


def machine() -> dict[str, Any]:
    """What the figures are of."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "redis-py": version("redis"),
        "server": f"{chosen()} {'.'.join(map(str, locate(chosen()).version))}",
    }


def rows(scenario: Scenario, results: Results) -> tuple[list[str], list[list[str]]]:
    """The head and the lines of a scenario's table: median, with the spread from least to most behind it."""
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics()))
    head = [*results[0].case, "contender", *metrics, *([f"× {scenario.ratio}"] if scenario.ratio else [])]
    lines: list[list[str]] = []
    cases = list({id(result.case): result.case for result in results}.values())
    for case in cases:
        of_case = [result for result in results if result.case is case]
        relative = ratios(of_case, scenario.ratio) if scenario.ratio else {}
        for result in of_case:
            line = [*(str(value) for value in case.values()), result.contender]
            if result.left_out is not None:
                lines.append([*line, f"not measured: {result.left_out}", *[""] * (len(head) - len(line) - 1)])
                continue
            line += [spread(result.values(metric)) for metric in metrics]
            if scenario.ratio:
                line.append("1" if result is of_case[0] else number(relative.get(result.contender)))
            lines.append(line)
    return head, lines


def spread(values: Sequence[float]) -> str:
    """The median, and from where to where the runs went if they differ."""
    if not values:
        return ""
    ordered = sorted(values)
    middle = number(
        ordered[len(ordered) // 2]
        if len(ordered) % 2
        else (ordered[len(ordered) // 2 - 1] + ordered[len(ordered) // 2]) / 2
    )
    low, high = number(ordered[0]), number(ordered[-1])
    return middle if low == high else f"{middle} ({low}–{high})"


def table(scenario: Scenario, results: Results) -> Table:
    """For the terminal."""
    head, lines = rows(scenario, results)
    made = Table(title=f"{scenario.name}: {scenario.title}")
    for column in head:
        made.add_column(column, justify="left" if column == "contender" else "right")
    for line in lines:
        made.add_row(*line)
    return made


def markdown(scenario: Scenario, results: Results) -> str:
    """For the README."""
    head, lines = rows(scenario, results)
    rule = [":--" if column == "contender" else "--:" for column in head]
    text = [f"| {' | '.join(line)} |" for line in (head, rule, *lines)]
    return "\n".join([f"### {scenario.name}: {scenario.title}", "", *text, ""])


def failures(results: Results) -> list[str]:
    """What went wrong, a line each."""
    return [
        f"{result.contender} {dict(result.case)}: {error}"
        for result in results
        for error in result.errors
        if FAILED in result.metrics()
    ]


def as_json(results: Mapping[str, Results]) -> str:
    """Every sample of every run."""
    return json.dumps(
        {
            "machine": machine(),
            "scenarios": {
                name: [
                    {
                        "case": dict(result.case),
                        "contender": result.contender,
                        "samples": [dict(sample) for sample in result.samples],
                        **({"left out": result.left_out} if result.left_out else {}),
                        **({"errors": result.errors} if result.errors else {}),
                    }
                    for result in of_scenario
                ]
                for name, of_scenario in results.items()
            },
        },
        indent=1,
    )


def draw(scenario: Scenario, results: Results, folder: Path) -> list[Path]:
    """The scenario's charts, as PNG files: lines over the cases, or bars, with marks at the least and the most."""
    import matplotlib.pyplot as plt  # it takes a second to import, and only charts need it

    paths: list[Path] = []
    for chart in scenario.charts:
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        points = {
            name: [
                (result.case[chart.over], sorted(values))
                for result in results
                if result.contender == name
                and chart.over in result.case
                and chart.where.items() <= result.case.items()
                and (values := result.values(chart.metric))
            ]
            for name in scenario.contenders
        }
        if len({x for of_one in points.values() for x, _ in of_one}) > 1:
            _draw_lines(axes, chart, points)
        else:
            _draw_bars(axes, chart, points)
        axes.set_title(textwrap.fill(scenario.title, TITLE_WIDTH), fontsize=10)
        axes.grid(visible=True, alpha=0.3)
        metric = "-".join(chart.metric.replace("/", " per ").replace("%", "percent").split())
        paths.append(folder / f"{scenario.name}-{metric}.png")
        figure.savefig(paths[-1], dpi=110)
        plt.close(figure)
    return paths


Points = dict[str, list[tuple[float, list[float]]]]
"""Of each contender: where on the axis, and the values of all runs in order."""


def _draw_lines(axes: Axes, chart: Chart, points: Points) -> None:
    for name, of_one in points.items():
        if of_one:
            errors = list(zip(*(_error(values) for _, values in of_one), strict=True))
            ys = [_middle(values) for _, values in of_one]
            axes.errorbar([x for x, _ in of_one], ys, yerr=errors, marker="o", capsize=3, label=name)
    if chart.log:
        axes.set_xscale("symlog")
        if all(value > 0 for of_one in points.values() for _, values in of_one for value in values):
            axes.set_yscale("log")
    axes.set_xlabel(chart.over)
    axes.set_ylabel(chart.metric)
    axes.legend(fontsize=8)


def _draw_bars(axes: Axes, chart: Chart, points: Points) -> None:
    for name, of_one in reversed(points.items()):  # the first one on top
        for _, values in of_one:
            axes.barh(name, _middle(values), xerr=[[error] for error in _error(values)], capsize=3)
    if chart.log:
        axes.set_xscale("log")
    axes.set_xlabel(chart.metric)


def _middle(values: Sequence[float]) -> float:
    return values[len(values) // 2]


def _error(values: Sequence[float]) -> tuple[float, float]:
    return _middle(values) - values[0], values[-1] - _middle(values)
