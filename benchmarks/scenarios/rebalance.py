"""How many streams move until a fleet is even again, and how soon, in simulated time.

The fleet is that of `tests/proof/rebalancing.py`: the package's own rule and schedule decide, clock, messages and
handlers are simulated. So a run is deterministic, and says nothing of Redis.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.scenario import Scenario
from benchmarks.scenarios.takeover import quantile
from tests.proof.rebalancing import OLD, SLOW, Kind, Outcome, random_ends, rolling, scale

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.scenario import Case, Contender, Sample

PLAIN = Kind()

SCENES: Mapping[str, Callable[..., Outcome]] = {
    "4 → 5": partial(scale, [PLAIN] * 4, [PLAIN]),
    "4 → 8": partial(scale, [PLAIN] * 4, [PLAIN] * 4),
    "50 → 60": partial(scale, [PLAIN] * 50, [PLAIN] * 10),
    "4 → 5, one slow": partial(scale, [SLOW, *[PLAIN] * 3], [PLAIN]),
    "4 → 5, two older": partial(scale, [OLD, OLD, PLAIN, PLAIN], [PLAIN]),
    "4 → 6, room for 5": partial(scale, [PLAIN] * 4, [PLAIN, Kind(limit=5)]),
    "weights 1, 1, 2, 4 → 2": partial(scale, [Kind(1), Kind(1), Kind(2), Kind(4)], [Kind(2)]),
    "weights 10 × 0.1, 3 → 10": partial(scale, [*[Kind(0.1)] * 10, Kind(3)], [Kind(10)]),
    "4 → 6, a third of the hints lost": partial(scale, [PLAIN] * 4, [PLAIN] * 2, lost=1 / 3),
} | {
    f"{members} restarted, {'new' if new_first else 'old'} first, {gap} s apart": partial(
        rolling, members, gap=gap, new_first=new_first
    )
    for members in (4, 50)
    for new_first in (False, True)
    for gap in (4, 30)
}

CASES: tuple[Case, ...] = (
    *[{"scene": "4 → 5", "streams": streams} for streams in (24, 100, 10_000)],
    *[{"scene": "4 → 8", "streams": streams} for streams in (24, 10_000)],
    {"scene": "50 → 60", "streams": 10_000},
    *[{"scene": "4 → 5, one slow", "streams": streams} for streams in (100, 10_000)],
    {"scene": "4 → 5, two older", "streams": 100},
    {"scene": "4 → 6, room for 5", "streams": 100},
    {"scene": "weights 1, 1, 2, 4 → 2", "streams": 1_000},
    {"scene": "weights 10 × 0.1, 3 → 10", "streams": 1_000},
    {"scene": "4 → 6, a third of the hints lost", "streams": 1_000},
    *[{"scene": scene, "streams": 24} for scene in SCENES if scene.startswith("4 restarted")],
    *[{"scene": scene, "streams": 300} for scene in SCENES if scene.startswith("50 restarted")],
    *[{"scene": scene, "streams": 10_000} for scene in SCENES if scene.startswith("50 restarted")],
    *[
        {"scene": f"{members} members, streams of {life} s", "streams": members * average}
        for members, average, life in ((4, 25, 600), (10, 5, 60), (50, 25, 600), (100, 10, 60))
    ],
)

HOURS = 0.5


def contender(settle: float | None) -> Contender:
    """A fleet whose members have this `Rebalance.settle`."""

    async def measured(scene: str, streams: int) -> Sample:
        return await asyncio.to_thread(play, scene, streams, settle)

    return measured


def play(scene: str, streams: int, settle: float | None) -> Sample:
    """Play one scene."""
    if scene not in SCENES:
        members, _, life = scene.partition(" members, streams of ")
        ends = random_ends(int(members), streams // int(members), float(life.rstrip(" s")), HOURS, settle=settle)
        return {
            "moved": ends.moves,
            "moved / ended %": 100 * ends.moves / ends.ended,
            "least owned": min(ends.heights),
            "most owned": max(ends.heights),
            "asks": ends.asks,
            "looks": ends.looks,
        }
    outcome = SCENES[scene](streams=streams, settle=settle)
    fleet = outcome.fleet
    return {
        "moved": fleet.moves,
        "at least": outcome.least,
        "moved / least": fleet.moves / outcome.least,
        "least owned": min(fleet.heights),
        "most owned": max(fleet.heights),
        "even after s": outcome.even_after,
        "asks": fleet.asks,
        "looks": fleet.looks,
        "pause p99 ms": 1000 * quantile(sorted(fleet.gaps), 0.99) if fleet.gaps else 0,
    }


SCENARIO = Scenario(
    name="rebalance",
    title="streams that move until a fleet is even, in simulated time",
    contenders={"run()": contender(10.0), "rebalance=None": contender(None)},
    cases=CASES,
    timeout=300,
)
