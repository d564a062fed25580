"""How long the tests take, and that it stays so: hooks of pytest, which `conftest.py` imports.

A test marked `long` takes more than `USUAL` seconds by its nature, such as a demo that is played to its end. Any
other that takes more than `LIMIT` seconds fails: shorten it, or mark it. The long ones begin first, so that a run
does not wait at its end for a single test. The summary of a run says what all tests took.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

T = TypeVar("T")

USUAL = 5.0
"""Seconds that a test may take on an idle machine without being called long."""

LIMIT = 4 * USUAL
"""Seconds that it may take on a machine that is busy, and in proportion more on one that is overloaded."""


def limit() -> float:
    """The seconds that a test may take now. Two busy test processes for each core are the usual load."""
    return LIMIT * max(1.0, os.getloadavg()[0] / (2 * (os.cpu_count() or 1)))


_begun = 0.0
"""The CPU taken when the current phase of a test began."""


def deal(long: Sequence[T], others: Sequence[T], shares: int) -> list[T]:
    """Order tests for so many processes, each of which begins with an equal share of them: its long ones first."""
    rest = iter(others)
    dealt: list[T] = []
    for share in range(shares):
        size = (len(long) + len(others) - len(dealt)) // (shares - share)
        mine = long[share::shares]
        dealt += mine
        dealt += itertools.islice(rest, max(0, size - len(mine)))
    return [*dealt, *rest]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """After all others have ordered the tests, bring the long ones forward, for each test process some of them."""
    yield
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    items[:] = deal(long, others, getattr(config, "workerinput", {}).get("workercount", 1))


def cpu() -> float:
    """Seconds of CPU of this process and of those children that have ended."""
    return sum(os.times()[:4])


def pytest_runtest_logstart() -> None:
    """A test begins."""
    global _begun
    _begun = cpu()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that takes longer than its kind may, and write down the CPU that its phase took."""
    global _begun
    report = yield
    now = cpu()
    report.user_properties.append(("cpu", now - _begun))
    _begun = now
    if report.when == "call" and report.passed and call.duration > limit() and not item.get_closest_marker("long"):
        report.outcome = "failed"
        report.longrepr = (
            f"It took {call.duration:.1f} s: shorten it, or mark it `long` ({USUAL:g} s on an idle machine)"
        )
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the tests took."""
    reports = [
        report
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport)
    ]
    tests = len({report.nodeid for report in reports})
    if tests:
        seconds = sum(report.duration for report in reports)
        busy = sum(
            value
            for report in reports
            for name, value in report.user_properties
            if name == "cpu" and isinstance(value, float)
        )
        terminalreporter.write_line(
            f"One after the other, {tests} tests take {seconds:.0f} s ({seconds / tests:.2f} s each) "
            f"and {busy:.0f} s of CPU."
        )
