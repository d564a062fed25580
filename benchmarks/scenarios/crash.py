"""How soon a crash is noticed: the holder of N streams is killed beside four peers, again and again.

The clock starts at the kill, and stops when a peer's handler begins. Each kill has a service and processes of its
own, so that nothing is known of the streams. Each peer has a stream or two of its own, as in a fleet at work.
Besides the contenders that `takeover` has, this library runs without presence: then its peers wait for the lock,
as they do for a process that is frozen.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.contenders import MODULES
from benchmarks.fleet import Process, announce, owned
from benchmarks.scenario import Case, Chart, Sample, Scenario
from benchmarks.scenarios.takeover import MOST_LOCKS, MOST_TASKS, PATIENCE, delays_of, quantile, recovered
from tests.harness.servers import Server
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

PEERS = 4

SETTLING = (1.2, 1.7)
"""Seconds between the last peer's start and the kill: who has just subscribed accuses nobody for a second."""

MOST_OTHERS = 40
BETWEEN = 0.05
"""Streams of the peers: at most so many are announced, so many seconds apart, until each has one."""

WAITS = "run(), presence=False"
"""The contender whose peers wait for the lock."""

SLOW_KILLS = 4
"""Of those who wait for a lifetime: what varies is the moment of the last beat, and it is known how."""


async def crashes(contender: str, lock_ttl: float, streams: int, kills: int, *, presence: bool = True) -> Sample:
    """Kill the holder of N streams so often."""
    options = {"lock_ttl": lock_ttl, "presence": presence} if contender == "ours" else {}
    if contender != "ours" or not presence:
        kills = min(kills, SLOW_KILLS)
    with Server() as server:
        found = [await crash(contender, server.url, f"bench{i}", streams, options) for i in range(kills)]
    firsts, lasts = (sorted(delays[which] for delays in found) for which in (0, -1))
    return {
        "killed": kills,
        "lost": sum(max(0, streams - len(delays)) for delays in found),
        "first p50 s": statistics.median(firsts),
        "first p99 s": quantile(firsts, 0.99),
        "last p50 s": statistics.median(lasts),
        "last p99 s": quantile(lasts, 0.99),
    }


async def crash(
    contender: str, url: str, service: str, streams: int, options: Mapping[str, object]
) -> list[float]:
    """Kill one holder. Returns for each stream the seconds until a peer's handler began, in order."""
    async with contextlib.AsyncExitStack() as stack:

        async def start_process() -> Process:
            return await stack.enter_async_context(Process(contender, url, service, "hold", options=options))

        holder = await start_process()
        await announce(contender, url, service, [f"call-{i}" for i in range(streams)])
        await wait_until(lambda: len(holder.owned) == streams, "all are held", 60)
        heirs = await asyncio.gather(*(start_process() for _ in range(PEERS)))
        for number in range(MOST_OTHERS):
            if all(heir.owned for heir in heirs):
                break
            await announce(contender, url, service, [f"other-{number}"])
            await asyncio.sleep(BETWEEN)
        await asyncio.sleep(random.uniform(*SETTLING))
        lost = streams - sum(stream.startswith("call-") for stream in holder.owned)
        assert not lost, f"the holder lost {lost} before it was killed"
        all_of_them = len({*holder.owned, *owned(heirs)})
        killed = await holder.kill()
        lock_ttl = options.get("lock_ttl", 0.0)
        assert isinstance(lock_ttl, float)
        await recovered(heirs, all_of_them, PATIENCE + lock_ttl)
        return sorted(delay for delay in delays_of(heirs, killed) if delay > 0)


def _left_out(contender: str, case: Case) -> str | None:
    if contender not in ("run()", WAITS):
        if case["lock_ttl"] != 2.0:
            return "it has times of its own: see above"
        if contender != "XAUTOCLAIM" and case["streams"] > min(MOST_LOCKS, MOST_TASKS):
            return "see takeover"
    return None


SCENARIO = Scenario(
    name="crash",
    title="the holder of N streams is killed beside 4 peers, several times; seconds until a peer works on them",
    contenders={
        "run()": partial(crashes, "ours"),
        WAITS: partial(crashes, "ours", presence=False),
        **{name: partial(crashes, module) for name, module in MODULES.items() if module not in ("ours", "events")},
    },
    cases=(
        *({"lock_ttl": ttl, "streams": streams, "kills": 50} for ttl in (2.0, 10.0) for streams in (1, 1_000)),
        *({"lock_ttl": ttl, "streams": streams, "kills": 8} for ttl in (2.0, 10.0) for streams in (5_000, 10_000)),
    ),
    ratio="last p50 s",
    charts=(Chart("last p50 s", "streams", where={"lock_ttl": 10.0}),),
    timeout=1200.0,
    left_out=_left_out,
)
