"""How evenly announcements are spread over four idle members, in a burst and one by one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from redis_stream_client import LoadBalancerStream
from tests.fleet import Member
from tests.servers import Server
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.measure import Row

MEMBERS = 4


async def spread() -> AsyncIterator[Row]:
    """Bursts, and announcements with pauses of less and more than a blocking read takes."""
    for pace, streams in (("one pipeline", 400), ("each 0.02 s", 80), ("each 0.3 s", 24), ("each 1.3 s", 8)):
        with Server() as server:
            yield await _spread(server, pace, streams)


async def _spread(server: Server, pace: str, streams: int) -> Row:
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis.from_url(server.url))
        members = [await stack.enter_async_context(Member(server.url, "bench")) for _ in range(MEMBERS)]
        await wait_until(
            lambda: all(m.client.statistics().live_members == MEMBERS for m in members), "they know each other"
        )
        lbs = LoadBalancerStream(redis, "bench")
        names = [f"call-{i}" for i in range(streams)]
        if pace == "one pipeline":
            await lbs.add_many(names)
        else:
            for name in names:
                await lbs.add(name)
                await asyncio.sleep(float(pace.split()[1]))
        await wait_until(lambda: sum(len(m.leases) for m in members) == streams, "all arrived")
        shares = sorted(len(member.leases) for member in members)
        return {
            "pace": pace,
            "streams": streams,
            "shares": " ".join(map(str, shares)),
            "most / least": round(shares[-1] / max(1, shares[0]), 2),
        }
