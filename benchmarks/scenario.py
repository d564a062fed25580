"""What a scenario is, and how it is run: every contender in turn, in the same run, several times."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Case = Mapping[str, Any]
"""What a contender is called with: the size of the thing."""

Sample = Mapping[str, float]
"""What was measured once: metric to number."""

Contender = Callable[..., Awaitable[Sample]]

FAILED = "failed"
"""The metric of a contender that did not end in time, or raised: 1."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture of one metric: a line for each contender over the cases, or bars where there is one case."""

    metric: str
    over: str
    """The key of the cases that is the horizontal axis."""
    log: bool = True
    where: Case = field(default_factory=dict)
    """Of these cases alone: the rest of what they say."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that is measured of several contenders.

    The first contender is this library, as it is meant to be used; the others are what it is held against.
    """

    name: str
    title: str
    contenders: Mapping[str, Contender]
    cases: Sequence[Case]
    ratio: str | None = None
    """The metric by which the others are divided by the first, run by run."""
    charts: Sequence[Chart] = ()
    timeout: float = 300.0
    """Seconds that one contender has for one case."""
    deep: Sequence[Case] = ()
    """Cases that take minutes: `--deep` adds them, once each."""
    left_out: Callable[[str, Case], str | None] = lambda _contender, _case: None
    """Why this contender is not measured at this size, if it is not."""


@dataclass(slots=True)
class Result:
    """All samples of one contender at one case, in the order of the runs."""

    case: Case
    contender: str
    samples: list[Sample] = field(default_factory=list)
    left_out: str | None = None
    errors: list[str] = field(default_factory=list)

    def metrics(self) -> list[str]:
        """What was measured, in the order in which it was first named."""
        return list(dict.fromkeys(name for sample in self.samples for name in sample))

    def values(self, metric: str) -> list[float]:
        """The samples of one metric."""
        return [sample[metric] for sample in self.samples if metric in sample]

    def median(self, metric: str) -> float | None:
        """Of all runs; None if it was never measured."""
        values = self.values(metric)
        return statistics.median(values) if values else None


def ratios(results: Sequence[Result], metric: str) -> dict[str, float]:
    """For each contender of one case, the median over the runs of its value divided by the first contender's."""
    first = results[0].values(metric)
    return {
        result.contender: statistics.median(
            [b / a for a, b in zip(first, result.values(metric), strict=False) if a]
        )
        for result in results[1:]
        if any(first) and result.values(metric)
    }


async def run(
    scenario: Scenario, runs: int, *, deep: bool, tell: Callable[[str], object], only: str | None = None
) -> list[Result]:
    """Run every case `runs` times, a deep one once; in each run the contenders take turns in an order of its own.

    What one of them fails at is a result, too, and stops no other.
    """
    cases = [*scenario.cases, *(scenario.deep if deep else ())]
    results = [Result(case, name) for case in cases for name in scenario.contenders]
    for number in range(1, runs + 1):
        for case in cases if number == 1 else scenario.cases:
            turn = [result for result in results if result.case is case and only in (None, result.contender)]
            random.shuffle(turn)
            for result in turn:
                result.left_out = scenario.left_out(result.contender, case)
                if result.left_out is not None:
                    continue
                sample = await _once(scenario, result)
                result.samples.append(sample)
                what = " ".join(f"{key}={value}" for key, value in case.items())
                tell(f"{scenario.name} {what} {result.contender}, run {number} of {runs}: {describe(sample)}")
    return [result for result in results if only in (None, result.contender)]


async def _once(scenario: Scenario, result: Result) -> Sample:
    try:
        async with asyncio.timeout(scenario.timeout):
            return await scenario.contenders[result.contender](**result.case)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a result
        result.errors.append(f"{type(error).__name__}: {error}")
        return {FAILED: 1}


def describe(sample: Sample) -> str:
    """One line of it."""
    return ", ".join(f"{name} {number(value)}" for name, value in sample.items())


def number(value: float | None) -> str:
    """Three digits that count, and no more."""
    if value is None:
        return ""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
