"""The cost of holding N streams: commands, CPU and memory, while nothing happens."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from benchmarks.measure import Row, Work
from redis_stream_client import Lease, LoadBalancerStream, RedisStreamClient, StreamAdded
from tests.servers import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECONDS = 10.0
"""How long each is watched: one period of the audit, at the default lock_ttl."""


async def hold(sizes: tuple[int, ...] = (10, 1_000, 10_000)) -> AsyncIterator[Row]:
    """Hold N streams with one client at the default settings."""
    for streams in sizes:
        with Server() as server:
            async with Redis.from_url(server.url) as redis:
                yield await _hold(redis, server.url, streams)


async def _hold(redis: Redis, url: str, streams: int) -> Row:
    async with RedisStreamClient.from_url(url, "bench") as client:
        empty = await Work.of(redis)
        tracemalloc.start()
        await LoadBalancerStream(redis, "bench").add_many([f"call-{i}" for i in range(streams)])
        leases: list[Lease] = []
        async for event in client.events():
            assert isinstance(event, StreamAdded)
            leases.append(event.payload)
            if len(leases) == streams:
                break
        gc.collect()
        here, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        before, cpu = await Work.of(redis), time.process_time()
        await asyncio.sleep(SECONDS)
        after, cpu = await Work.of(redis), time.process_time() - cpu
        seconds = after.at - before.at
        return {
            "streams": streams,
            "commands/s": round((after.commands - before.commands) / seconds, 1),
            "redis CPU %": round(100 * (after.cpu - before.cpu) / seconds, 2),
            "client CPU %": round(100 * cpu / seconds, 2),
            "client B/stream": round(here / streams),
            "redis B/stream": round((before.memory - empty.memory) / streams),
        }
