"""The scenarios, in the order in which they are run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.scenarios import (
    burst,
    cache,
    crash,
    entries,
    follow,
    hold,
    join,
    latency,
    members,
    observe,
    rebalance,
    rolling,
    sessions,
    takeover,
    throughput,
    write,
)

if TYPE_CHECKING:
    from benchmarks.scenario import Scenario

ALL: tuple[Scenario, ...] = (
    hold.SCENARIO,
    takeover.SCENARIO,
    crash.SCENARIO,
    cache.SCENARIO,
    rolling.SCENARIO,
    rebalance.SCENARIO,
    join.SCENARIO,
    members.SCENARIO,
    throughput.SCENARIO,
    latency.SCENARIO,
    burst.SCENARIO,
    entries.SCENARIO,
    observe.SCENARIO,
    follow.SCENARIO,
    write.SCENARIO,
    sessions.SCENARIO,
)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in ALL}
