"""How evenly announcements are spread over four idle members, each a process, in a burst and one by one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from benchmarks.fleet import Process, owned
from benchmarks.scenario import Chart, Scenario
from redis_stream_client import LoadBalancerStream
from tests.harness.servers import Server
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from benchmarks.scenario import Contender, Sample

SERVICE = "bench"
MEMBERS = 4
SETTLING = 1.0
"""Seconds that the members have to get to know each other."""


def contender(name: str) -> Contender:
    """Members of one of the `contenders`."""

    async def measured(streams: int, **case: float) -> Sample:
        with Server() as server:
            async with AsyncExitStack() as stack:
                starting = [Process(name, server.url, SERVICE, "hold") for _ in range(MEMBERS)]
                members = await asyncio.gather(*map(stack.enter_async_context, starting))
                await asyncio.sleep(SETTLING)
                await announce(server.url, streams, case["pause s"])
                await wait_until(lambda: len(owned(members)) == streams, "all arrived", 60)
                return shares(members)

    return measured


async def announce(url: str, streams: int, pause: float) -> None:
    """In one pipeline, or with a pause after each."""
    names = [f"call-{i}" for i in range(streams)]
    async with Redis.from_url(url) as redis:
        lbs = LoadBalancerStream(redis, SERVICE)
        if not pause:
            await lbs.add_many(names)
            return
        for name in names:
            await lbs.add(name)
            await asyncio.sleep(pause)


def shares(members: list[Process]) -> Sample:
    """What the most loaded and the least loaded have."""
    loads = [len(member.owned) for member in members]
    return {"most": max(loads), "least": min(loads), "most / least": max(loads) / max(1, min(loads))}


SCENARIO = Scenario(
    name="burst",
    title="announcements for four idle members",
    contenders={
        "run()": contender("ours"),
        "bare XREADGROUP": contender("bare"),
        "XAUTOCLAIM": contender("autoclaim"),
    },
    cases=(
        {"pause s": 0, "streams": 400},
        {"pause s": 0.02, "streams": 80},
        {"pause s": 0.3, "streams": 16},
    ),
    deep=({"pause s": 1.3, "streams": 8},),
    ratio="most / least",
    charts=(Chart("most / least", over="pause s", log=False),),
    timeout=90,
)
