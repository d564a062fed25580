"""How long it takes until the streams of a killed process have new owners."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from redis_stream_client import LoadBalancerStream
from tests.servers import Server
from tests.waiting import wait_until
from tests.workers import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.measure import Row

PEERS = 4
FILL = "for i = ARGV[1], ARGV[2] do redis.call('SET', 'cache:' .. i, 'x', 'PX', 60000 + i % 100000) end"


async def takeover() -> AsyncIterator[Row]:
    """Kill the holder of N streams while K unrelated keys with a TTL lie in the database.

    The peers are processes that claim one stream after the other, as the events interface invites to.
    """
    for streams, cache in ((100, 0), (1_000, 0), (1_000, 200_000), (5_000, 0)):
        with Server() as server:
            yield await _takeover(server, streams, cache)


async def _takeover(server: Server, streams: int, cache: int) -> Row:
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis.from_url(server.url))
        for start in range(0, cache, 20_000):
            await redis.eval(FILL, 0, start, start + 19_999)

        async def start_worker() -> Worker:
            worker = Worker(url=server.url, service="bench")
            return await (await stack.enter_async_context(worker)).joined()

        holder = await start_worker()
        await LoadBalancerStream(redis, "bench").add_many([f"call-{i}" for i in range(streams)])
        await wait_until(lambda: sum(e.event == "added" for e in holder.events) == streams, "held", 60)
        peers = [await start_worker() for _ in range(PEERS)]
        holder.kill()
        expiry = time.time() + await redis.pttl(f"{{bench-input}}:lock:{holder.client}") / 1000

        def claimed() -> list[tuple[str, float]]:
            return [(e.stream, e.time) for peer in peers for e in peer.events if e.event == "claimed"]

        await wait_until(lambda: len(claimed()) >= streams, "recovered", 60)
        late = sorted(at - expiry for _, at in claimed())
        tries = sum(e.event in ("claimed", "already_claimed", "gone") for p in peers for e in p.events)
        shares = [sum(e.event == "claimed" for e in peer.events) for peer in peers]
        return {
            "streams": streams,
            "TTL keys": cache,
            "recovered": len({stream for stream, _ in claimed()}),
            "twice": len(late) - streams,
            "first s": round(late[0], 3),
            "p50 s": round(statistics.median(late), 3),
            "last s": round(late[-1], 3),
            "claims/stream": round(tries / streams, 3),
            "most / least": round(max(shares) / max(1, min(shares)), 2),
        }
