"""The cost of holding N streams while nothing happens."""

from __future__ import annotations

import asyncio
from functools import partial

from redis.asyncio import Redis

from benchmarks.contenders import MODULES
from benchmarks.fleet import Process, announce, patiently
from benchmarks.measure import Work
from benchmarks.scenario import Case, Chart, Sample, Scenario
from tests.harness.servers import Server

SECONDS = 4.0
"""How long each is watched."""

SETTLING = 1.0
"""Seconds between the last stream's arrival and the watch."""

TAKING = 5.0
TAKEN_PER_SECOND = 2_000
"""How long a process has to take all streams, in seconds; then it is watched with those that it has."""

FEWEST_FOR_MEMORY = 1_000
"""With fewer streams, memory is mostly fixed costs."""

MOST_LOCKS = 10_000


async def hold(contender: str, streams: int) -> Sample:
    """One process holds N streams, which nobody reads."""
    with Server() as server:
        async with Redis.from_url(server.url) as redis, Process(contender, server.url, "bench", "hold") as process:
            empty, small = await Work.of(redis), process.memory()
            await announce(contender, server.url, "bench", [f"call-{i}" for i in range(streams)])
            await patiently(lambda: len(process.owned) == streams, TAKING + streams / TAKEN_PER_SECOND)
            await asyncio.sleep(SETTLING)
            before, cpu = await Work.of(redis), process.cpu()
            await asyncio.sleep(SECONDS)
            after, cpu, large = await Work.of(redis), process.cpu() - cpu, process.memory()
            seconds = after.at - before.at
            sample = {
                "commands/s": (after.commands - before.commands) / seconds,
                "Redis CPU %": 100 * (after.cpu - before.cpu) / seconds,
                "client CPU %": 100 * cpu / seconds,
                "lost": streams - len(process.owned),
            }
            if streams >= FEWEST_FOR_MEMORY:
                sample["client B/stream"] = (large - small) / streams
                sample["Redis B/stream"] = (after.memory - empty.memory) / streams
            return sample


def _left_out(contender: str, case: Case) -> str | None:
    if contender == "lock per stream" and case["streams"] > MOST_LOCKS:
        return "one process cannot extend so many locks in time"
    return None


SCENARIO = Scenario(
    name="hold",
    title="the cost of holding N idle streams with one process",
    contenders={
        name: partial(hold, MODULES[name]) for name in ("run()", "events()", "lock per stream", "XAUTOCLAIM")
    },
    cases=({"streams": 10}, {"streams": 1_000}, {"streams": 10_000}),
    deep=({"streams": 100_000},),
    ratio="Redis CPU %",
    charts=(
        Chart("commands/s", "streams"),
        Chart("Redis CPU %", "streams"),
        Chart("client CPU %", "streams"),
        Chart("client B/stream", "streams"),
    ),
    left_out=_left_out,
)
