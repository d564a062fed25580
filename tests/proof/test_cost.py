"""Ring 2: what holding streams costs, in commands and bytes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc
from typing import TYPE_CHECKING

from redis_stream_client import LoadBalancerStream, RedisStreamClient, StreamAdded
from redis_stream_client._model.keys import NOBODY, Keys
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import PAGE, SEEN_BYTES
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

WINDOW = 4.0
"""Seconds in which commands are counted: two lock lifetimes."""


async def hold(
    client: RedisStreamClient, redis: Connection, service: str, streams: int, kind: str = "call"
) -> Sequence[Lease]:
    """Announce streams and take them all."""
    await LoadBalancerStream(redis, service).add_many([f"{kind}-{i}" for i in range(streams)])
    leases: list[Lease] = []
    async for event in client.events():
        assert isinstance(event, StreamAdded)
        leases.append(event.payload)
        if len(leases) == streams:
            break
    return leases


async def commands(redis: Connection) -> int:
    """Commands that the server has processed, those inside scripts included, the counting left out."""
    stats = await redis.info("commandstats")
    return sum(s["calls"] for name, s in stats.items() if name not in ("cmdstat_info", "cmdstat_command"))


async def rate(redis: Connection) -> float:
    """Commands per second in the window."""
    before = await commands(redis)
    await asyncio.sleep(WINDOW)  # time itself is measured
    return (await commands(redis) - before) / WINDOW


async def bytes_per_stream(server: Server, redis: Connection, service: str, streams: int = 5_000) -> float:
    """What Python and Redis allocate for a held stream."""
    async with RedisStreamClient.from_url(server.url, service, lock_ttl=30.0) as client:
        await hold(client, redis, service, 50, "first")
        gc.collect()
        used = (await redis.info("memory"))["used_memory"]
        tracemalloc.start()
        leases = await hold(client, redis, service, streams)
        gc.collect()
        here, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        in_redis = (await redis.info("memory"))["used_memory"] - used
        assert len(leases) == streams
        return float(here + in_redis) / streams


async def sent_per_stream(server: Server, redis: Connection, service: str, streams: int = 5_000) -> float:
    """Commands of ours per assigned and finished stream, while there is a backlog."""
    async with RedisStreamClient.from_url(server.url, service, prefetch=256, lock_ttl=30.0) as client:
        await LoadBalancerStream(redis, service).add_many([f"call-{i}" for i in range(streams)])
        await redis.config_resetstat()
        finishing: list[asyncio.Task[None]] = []
        async for event in client.events():
            assert isinstance(event, StreamAdded)
            finishing.append(asyncio.create_task(event.payload.done()))
            if len(finishing) == streams:
                break
        await asyncio.gather(*finishing)
        stats = await redis.info("commandstats")
        assert await redis.xlen(f"{service}-input") == 0
        sent = sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))
        return float(sent / streams)


async def test_holding_many_streams_costs_no_more_than_holding_few(
    server: Server, redis: Connection, service: str
) -> None:
    few, many = f"{service}-few", f"{service}-many"
    async with RedisStreamClient.from_url(server.url, few) as client:
        await hold(client, redis, few, 10)
        for_few = await rate(redis)
    async with RedisStreamClient.from_url(server.url, many) as client:
        await hold(client, redis, many, 10_000)
        for_many = await rate(redis)
    assert for_few <= 20
    assert for_many <= 20
    assert for_many <= for_few * 1.15 + 1  # an audit more or less in the window


async def test_a_held_stream_needs_little_memory(server: Server, redis: Connection, service: str) -> None:
    assert await bytes_per_stream(server, redis, service) <= 1500


async def test_finishing_under_load_shares_commands(server: Server, redis: Connection, service: str) -> None:
    assert await sent_per_stream(server, redis, service) <= 0.2


async def test_a_fleet_looks_through_the_load_balancer_stream_once_for_all(
    server: Server, redis: Connection, service: str
) -> None:
    members, held, lock_ttl = 5, 4_000, 0.15
    period = 8 * 2 * lock_ttl  # of the look at everything, which is shared
    keys = Keys(service)
    await redis.xgroup_create(keys.lbs, keys.group, "0", mkstream=True)
    await redis.set(keys.lock("holder"), '{"ttl": 600000}', px=600_000)
    await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(held)])
    await redis.xreadgroup(keys.group, "holder", {keys.lbs: ">"}, count=held)

    async def pages() -> int:
        return int((await redis.info("commandstats")).get("cmdstat_xrange", {"calls": 0})["calls"])

    before, last = await pages(), "-"
    while last:
        arguments = [keys.group, NOBODY, last, PAGE, SEEN_BYTES, keys.control]
        _, looked_at = await redis.eval(scripts.load("rescue").text, 1, keys.lbs, *arguments)
        last = f"({looked_at.decode()}" if looked_at else ""
    one_look = await pages() - before
    async with contextlib.AsyncExitStack() as fleet:
        for _ in range(members):
            client = RedisStreamClient.from_url(server.url, service, lock_ttl=lock_ttl)
            await fleet.enter_async_context(client)

        await wait_until(lambda: redis.exists(keys.rescue), "one has looked at everything", timeout=4 * period)
        before, started = await pages(), asyncio.get_running_loop().time()
        await asyncio.sleep(1.6 * period)  # time itself is measured
        looks = (await pages() - before) / one_look
        elapsed = asyncio.get_running_loop().time() - started
        assert 1 <= looks <= elapsed / period + 1.5  # each for itself would make it five times as many
