"""Ring 2: what holding streams costs, in commands and bytes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from redis_stream_client import LoadBalancerStream, RedisStreamClient, StreamAdded
from redis_stream_client._model.keys import NOBODY, Keys
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import PAGE, SEEN_BYTES
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

SENT = ("eval", "evalsha", "xread", "xreadgroup")
"""The commands that a client sends for its streams, and that no script executes."""

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


@dataclass(frozen=True, slots=True)
class Sleepers:
    """What sessions hold that sleep: keys and bytes of Redis each, and what else is left; all is told beyond their
    data streams. And what to wake one takes, until it sleeps again."""

    keys: float
    bytes: float
    known: int
    """How many are announced, pending, in the hash of announcements, or held by the member."""
    sent: float
    """Requests for one that is woken beside the others."""


async def sleepers(server: Server, redis: Connection, service: str, streams: int = 1_000) -> Sleepers:
    """Let sessions process an entry and fall asleep; then wake them all, and let them fall asleep once more."""
    client = RedisStreamClient.from_url(server.url, service, lock_ttl=30.0)
    lbs, keys = LoadBalancerStream(redis, service), Keys(service)
    names = [f"{service}-session-{i:04d}" for i in range(streams)]
    processed = 0

    async def session(lease: Lease) -> None:
        nonlocal processed
        async for entry in lease.entries(idle=0.2):
            await lease.checkpoint(entry.id)
            processed += 1

    async def asleep(expected: int) -> None:
        await wait_until(lambda: processed == expected and not client.leases, "all are asleep", timeout=60)

    async def used() -> tuple[int, int]:
        return await redis.dbsize(), (await redis.info("memory"))["used_memory"]

    async with client.running(session):
        await lbs.write("warm-up", {"n": 1})  # connections, scripts, the keys that all share
        await asleep(1)
        for name in names:
            await redis.xadd(name, {"n": 1})
        count, size = await used()
        await lbs.add_many(names)
        await asleep(1 + streams)
        more, larger = await used()
        pending = await redis.xpending(keys.lbs, keys.group)
        left = await redis.xlen(keys.lbs) + pending["pending"] + await redis.hlen(keys.announced)
        await redis.config_resetstat()
        await lbs.write_many([(name, {"n": 2}) for name in names])
        await asleep(1 + 2 * streams)
        stats = await redis.info("commandstats")
    sent = sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in SENT)
    return Sleepers((more - count) / streams, (larger - size) / streams, left + len(client.leases), sent / streams)


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


async def test_a_session_that_sleeps_is_a_record_and_nothing_else(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    async with Redis.from_url(server.url) as redis:
        left = await sleepers(server, redis, service)
    assert (round(left.keys, 2), left.known) == (1, 0)
    assert left.bytes <= 1_000
    assert left.sent <= 0.6


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
