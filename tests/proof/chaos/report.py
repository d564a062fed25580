"""What a run comes to, as tables that can be copied into a document."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from tests.proof.chaos.trouble import ASIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.proof.chaos.checker import Recovery, Verdict
    from tests.proof.chaos.trouble import Violation

WIDTH = 110
PERCENTILES = (50, 90, 99)


def report(verdict: Verdict, seconds: float) -> None:
    """Print everything: faults, recoveries, totals, the verdict."""
    # Of a width of its own, so that a table is the same in a terminal and in a file.
    console = Console(width=WIDTH, highlight=False, emoji=False, markup=False)
    for table in (_faults(verdict), _recoveries(verdict), _totals(verdict, seconds)):
        console.print(table)
        console.print()
    if verdict.violations:
        for line in slice_of(verdict.violations[0]):
            console.print(line, soft_wrap=True)
        promises = Counter(violation.promise for violation in verdict.violations)
        console.print(f"\nall violations: {', '.join(f'{count} {name}' for name, count in promises.items())}")
    console.print(f"{'FAIL' if verdict.violations else 'PASS'}: seed {verdict.story.seed}, {verdict.story.server}")


def slice_of(violation: Violation) -> list[str]:
    """A violation, and the events that show it."""
    return [f"broken promise: {violation.promise}: {violation.what}", *map(str, violation.evidence)]


def _table(*columns: str) -> Table:
    table = Table(*columns, box=box.MARKDOWN)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _faults(verdict: Verdict) -> Table:
    table = _table("fault", "times")
    counts = Counter(fault.kind for fault in verdict.story.faults.values())
    for kind, count in sorted(counts.items()):
        table.add_row(kind, str(count))
    table.add_row("all", str(counts.total()))
    return table


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many of the sorted values do not exceed."""
    return values[max(0, -(-len(values) * percent // 100) - 1)]


def _recoveries(verdict: Verdict) -> Table:
    table = _table(
        "recovery, s after the loss", "count", *(f"p{percent}" for percent in PERCENTILES), "max", "due"
    )
    every = verdict.recoveries
    clean = [recovery for recovery in every if recovery.clean]
    rows = [
        (f"{cause}, clean", [r for r in clean if r.cause == cause]) for cause in sorted({r.cause for r in clean})
    ]
    for name, recoveries in (*rows, ("all clean", clean), ("all", every)):
        table.add_row(name, *_row(recoveries))
    return table


def _row(recoveries: Sequence[Recovery]) -> list[str]:
    values = sorted(recovery.seconds for recovery in recoveries)
    figures = [*(percentile(values, percent) for percent in PERCENTILES), values[-1]] if values else []
    due = sum(recovery.due is not None for recovery in recoveries)
    return [str(len(values)), *(f"{figure:.2f}" for figure in figures or ()), *[""] * (4 - len(figures)), str(due)]


def _totals(verdict: Verdict, seconds: float) -> Table:
    story = verdict.story
    streams = {name: stream for name, stream in story.streams.items() if not name.startswith(ASIDE)}
    outcomes = Counter(written.args[5] for stream in streams.values() for written in stream.written)
    finished = sum(
        bool(stream.entries) and any(written.args[4] == stream.entries[-1] for written in stream.written)
        for stream in streams.values()
        if stream.entries
    )
    sessions = [stream for stream in streams.values() if stream.attempts]
    written = sum(len(stream.entries or ()) for stream in sessions)
    slept = sum(le.lost is not None and le.lost.args[1] == "done" for s in sessions for le in s.leases)
    table = _table("total", "")
    for name, value in (
        ("seconds", f"{seconds:.0f}"),
        ("processes", f"{len(story.members):,}"),
        ("streams announced, finished", f"{len(streams):,}, {finished:,}"),
        ("entries", f"{sum(len(stream.entries or ()) for stream in streams.values()):,}"),
        ("entries of writers, and how often sessions slept", f"{written:,}, {slept:,}"),
        ("effects accepted", f"{outcomes['accepted']:,}"),
        ("… repeated by the next owner, refused", f"{outcomes['repeated']:,}, {outcomes['refused']:,}"),
        ("leases", f"{sum(len(stream.leases) for stream in streams.values()):,}"),
        ("checkpoints accepted", f"{sum(len(le.checkpoints) for s in streams.values() for le in s.leases):,}"),
        ("faults done, not possible at their time", f"{len(story.faults):,}, {story.skipped:,}"),
        ("streams that lost their owner, of these due", f"{len(verdict.recoveries):,}, {_due(verdict):,}"),
    ):
        table.add_row(name, value)
    return table


def _due(verdict: Verdict) -> int:
    return sum(recovery.due is not None for recovery in verdict.recoveries)
