"""How long it takes until the streams of a killed process have new owners, and whether all get one.

The clock starts at the kill, for all alike. The peers of `run()` and `events()` see that the holder's connections
have ended. With the others its last sign of life was renewed for 2 s at some moment before that (the locks per
stream, the idle timeout of streaq), for 1 s with `XAUTOCLAIM`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from benchmarks.contenders import MODULES
from benchmarks.fleet import Process, announce, owned, owned_twice, unevenness
from benchmarks.scenario import Case, Chart, Sample, Scenario
from tests.harness.servers import Server
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.harness.connection import Connection

SETTLING = 1.0
"""Seconds between the last peer's start and the kill."""

PATIENCE = 8.0
"""Seconds without any progress after which what is missing counts as lost: four lifetimes of a lock."""

LONGEST = 20.0
TAKEN_PER_SECOND = 500
"""How long after the kill what is missing counts as lost, in seconds, whether there is progress or not."""

LAST_CLAIMS = 0.5
"""Seconds in which those who came too late still ask."""

MOST_LOCKS = 1_000
MOST_TASKS = 1_000
MOST_WORKERS = 4

FILL = "for i = ARGV[1], ARGV[2] do redis.call('SET', 'cache:' .. i, 'x', 'PX', 3600000 + i) end"
FILLED_AT_ONCE = 20_000


async def take_over(contender: str, streams: int, peers: int, cache: int = 0) -> Sample:
    """Kill the holder of N streams beside M peers, with K unrelated keys in the database that have a TTL."""
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(Server())
        redis: Connection = await stack.enter_async_context(Redis.from_url(server.url))
        for start in range(0, cache, FILLED_AT_ONCE):
            await redis.eval(FILL, 0, start, min(cache, start + FILLED_AT_ONCE) - 1)

        async def start_process() -> Process:
            return await stack.enter_async_context(Process(contender, server.url, "bench", "hold"))

        holder = await start_process()
        await announce(contender, server.url, "bench", [f"call-{i}" for i in range(streams)])
        await wait_until(lambda: len(holder.owned) == streams, "all are held", 60)
        heirs = [await start_process() for _ in range(peers)]
        await asyncio.sleep(SETTLING)
        assert len(holder.owned) == streams, f"the holder lost {streams - len(holder.owned)} before it was killed"
        claimed = await _claims(redis, contender)
        killed = await holder.kill()
        ended = await recovered(heirs, streams)
        await asyncio.sleep(LAST_CLAIMS)
        claimed = await _claims(redis, contender) - claimed
        delays = sorted(delays_of(heirs, killed))
        return {
            "recovered": len(delays),
            "lost": streams - len(owned(heirs)),
            "twice": owned_twice([span for process in (holder, *heirs) for span in process.spans]),
            **({"first s": delays[0], "p50 s": quantile(delays, 0.5)} if delays else {}),
            **({"p99 s": quantile(delays, 0.99), "last s": delays[-1]} if delays else {}),
            "claims/stream": claimed / streams,
            **({"most/least": unevenness(heirs)} if ended else {}),
        }


async def recovered(heirs: Sequence[Process], streams: int, patience: float = PATIENCE) -> bool:
    """Wait until all have an owner; false when there was no progress any more."""
    best = 0
    started = at = time.monotonic()
    while (number := len(owned(heirs))) < streams:
        now = time.monotonic()
        if number > best:
            best, at = number, now
        if now - at > patience or now - started > LONGEST + streams / TAKEN_PER_SECOND:
            return False
        await asyncio.sleep(0.02)
    return True


def delays_of(heirs: Sequence[Process], killed: float) -> list[float]:
    """For each stream, the seconds until it was first owned again."""
    first: dict[str, float] = {}
    for span in (span for process in heirs for span in process.spans):
        first[span.stream] = min(span.start - killed, first.get(span.stream, float("inf")))
    return list(first.values())


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value below which this part of them lies."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


async def _claims(redis: Connection, contender: str) -> int:
    """The commands so far by which a stream, or a lock per stream, is claimed."""
    commands = ("xclaim", "xautoclaim", *(("set",) if contender == "lock_per_stream" else ()))
    stats = await redis.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in commands)


def _left_out(contender: str, case: Case) -> str | None:
    if contender == "lock per stream" and case["streams"] > MOST_LOCKS:
        return "one process cannot extend so many locks in time: see hold"
    if contender == "streaq" and (case["streams"] > MOST_TASKS or case["peers"] > MOST_WORKERS):
        return "a task queue is not meant for so many tasks that never end"
    return None


SCENARIO = Scenario(
    name="takeover",
    title="the holder of N streams is killed beside M peers; seconds since the kill",
    contenders={name: partial(take_over, module) for name, module in MODULES.items()},
    cases=(
        {"streams": 100, "peers": 4},
        {"streams": 1_000, "peers": 4},
        {"streams": 10_000, "peers": 4},
        {"streams": 1_000, "peers": 16},
    ),
    deep=({"streams": 50_000, "peers": 4}, {"streams": 50_000, "peers": 16}),
    ratio="last s",
    charts=(Chart("last s", "streams", where={"peers": 4}), Chart("lost", "streams", where={"peers": 4})),
    left_out=_left_out,
)
