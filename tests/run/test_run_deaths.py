"""Ring 2: streams in `run()` whose earlier owners have died, as their records say."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import DeadLetters, Fence, Lease, RetryPolicy
from redis_stream_client._model.announcement import FIELD, encode
from redis_stream_client._model.keys import Keys
from tests.harness.fleet import announce
from tests.harness.runs import Running, idle
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

THIEF = "redis-consumer-thief-00c0ffee"
LONG_AGO = 1_000_000
"""In ms: when the streams' troubles began."""


async def has_killed(
    redis: Connection, service: str, stream: str, deaths: int, *, trials: int = 0, lived: int = 10
) -> None:
    """Announce a stream whose record says that so many owners have died."""
    keys, ms = Keys(service), (await redis.time())[0] * 1000
    last = await redis.xrevrange(keys.lbs, count=1)
    ms = max(ms, int(last[0][0].split(b"-")[0]) + 1 if last else 0)
    fence = str(Fence(ms, 0, 0))
    fields = {"fence": fence, "consumer": "redis-consumer-dead-00c0ffee", "attempts": deaths}
    fields |= {"failures": 0, "failing": LONG_AGO, "failed": f"{fence} ", "error": ""}
    fields |= {"lived": lived, "trials": trials}
    await redis.hset(keys.progress(stream), mapping=fields)
    await redis.xadd(keys.lbs, {FIELD: encode(stream, None)}, id=f"{ms}-0")


async def attempts(redis: Connection, service: str, stream: str) -> int:
    return int(await redis.hget(Keys(service).progress(stream), "attempts") or 0)


async def test_one_that_rests_is_owned_and_not_unhandled_and_a_drain_releases_it_uncharged(
    server: Server, redis: Connection, service: str
) -> None:
    async with Running(server.url, service, lock_ttl=0.5) as running:
        await has_killed(redis, service, "resting", 9, lived=20_000)
        await wait_until(lambda: running.client.statistics().suspects == 1, "it rests")
        await announce(server.url, service, "healthy")
        await wait_until(lambda: running.working == ["healthy"], "the other one is handled")
        assert running.owned == ["healthy", "resting"]
        await wait_until(lambda: (running.client.health().oldest_unhandled or 0) == 0, "nothing is unhandled")
        running.client.drain()
        await running.task
    assert await attempts(redis, service, "resting") == 9
    assert running.client.statistics().suspects == 0
    async with Running(server.url, service) as peer:
        await wait_until(lambda: peer.client.statistics().suspects == 1, "a peer has it, and lets it rest")


async def test_one_that_is_lost_while_it_rests_waits_no_more(
    server: Server, redis: Connection, service: str
) -> None:
    keys = Keys(service)
    async with Running(server.url, service, lock_ttl=0.5) as running:
        await has_killed(redis, service, "resting", 9)
        await wait_until(lambda: running.client.statistics().suspects == 1, "it rests")
        (lbs_id,) = running.client.leases
        await redis.set(keys.lock(THIEF), "{}")
        await redis.xclaim(keys.lbs, keys.group, THIEF, 0, [lbs_id])
        await wait_until(lambda: running.client.statistics().suspects == 0, "it is lost")
        await wait_until(lambda: running.client.statistics().handlers == 0, "nobody waits for it")
    assert await attempts(redis, service, "resting") == 9


@pytest.mark.parametrize("deaths", [2, 3])
async def test_they_begin_one_after_the_other_and_idle_ones_are_acquitted(
    server: Server, redis: Connection, service: str, deaths: int
) -> None:
    streams = [f"stream-{i}" for i in range(5)]
    for stream in streams:
        await has_killed(redis, service, stream, deaths)
    async with Running(server.url, service, idle, lock_ttl=60.0) as running:
        await running.handles(*streams)
        for stream in running.working[:-1]:
            assert await attempts(redis, service, stream) == 0, "before the next one started"
        assert await attempts(redis, service, running.working[-1]) == deaths + 1


async def test_what_one_dead_owner_left_begins_together(server: Server, redis: Connection, service: str) -> None:
    """Else the streams of each process that dies would wait for one another."""
    streams = [f"stream-{i}" for i in range(50)]
    for stream in streams:
        await has_killed(redis, service, stream, 1)

    async def stay(lease: Lease) -> None:
        await asyncio.Event().wait()

    async with Running(server.url, service, stay, lock_ttl=60.0) as running:
        await wait_until(lambda: running.working, "the first begins")
        await wait_until(lambda: {*running.working} == {*streams}, "all begin, though none gets on", 1.0)


async def test_one_that_has_killed_enough_is_buried_untried(
    server: Server, redis: Connection, service: str
) -> None:
    policy = RetryPolicy(max_attempts=3, patience=0)
    async with Running(server.url, service, idle, retry=policy) as running:
        await announce(server.url, service, "healthy")
        await running.handles("healthy")
        await has_killed(redis, service, "poison", 3, trials=1)
        await wait_until(lambda: DeadLetters(redis, service).count(), "it is buried")
        assert running.working == ["healthy"]
    (letter,) = [letter async for letter in DeadLetters(redis, service)]
    assert (letter.stream, letter.reason, letter.deaths) == ("poison", "its owners died 3 times", 3)


async def test_one_whose_owner_has_no_other_stream_goes_to_a_peer_uncharged(
    server: Server, redis: Connection, service: str
) -> None:
    async with Running(server.url, service, idle, lock_ttl=1.0) as peer:
        await announce(server.url, service, "healthy")
        await peer.handles("healthy")
        async with Running(server.url, service, idle, lock_ttl=1.0) as alone:
            await wait_until(lambda: alone.client.statistics().live_members == 2, "it knows of the peer")
            handled = ["healthy"]
            for i in range(4):  # whoever reads the announcement
                await has_killed(redis, service, f"suspect-{i}", 2)
                handled.append(f"suspect-{i}")
                await peer.handles(*handled)
                assert await attempts(redis, service, f"suspect-{i}") in (0, 3)
            assert not alone.leases


async def test_one_that_fails_in_an_outage_keeps_its_deaths(
    server: Server, redis: Connection, service: str
) -> None:
    async def fail(lease: Lease) -> None:
        if lease.stream == "suspect":
            tried.set()
        raise LookupError("the database is away")

    tried = asyncio.Event()
    policy = RetryPolicy(max_attempts=9, patience=0, first_pause=0.05, longest_pause=0.1)
    async with Running(server.url, service, fail, lock_ttl=0.5, retry=policy) as running:
        for i in range(4):
            await announce(server.url, service, f"stream-{i}")
        await wait_until(lambda: running.client.statistics().outage, "there is an outage")
        await has_killed(redis, service, "suspect", 2)
        await asyncio.wait_for(tried.wait(), 10)
        await wait_until(lambda: "suspect" not in running.owned, "it is released")
        await wait_until(lambda: redis_says(redis, service, "suspect", 2), "its own attempt alone does not count")


async def redis_says(redis: Connection, service: str, stream: str, deaths: int) -> bool:
    record = Keys(service).progress(stream)
    failures = int(await redis.hget(record, "failures") or 0)
    return (await attempts(redis, service, stream), failures) == (deaths, 0)


async def test_one_that_gets_on_after_all_starts_anew(server: Server, redis: Connection, service: str) -> None:
    async def follow(lease: Lease) -> None:
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)

    async with Running(server.url, service, follow) as running:
        await has_killed(redis, service, "stream", 3, trials=2)
        await redis.xadd("stream", {"k": "v"})
        await wait_until(lambda: running.working, "it starts")

        async def forgotten() -> bool:
            stored = await redis.hmget(Keys(service).progress("stream"), "attempts", "failed")
            return bool(stored == [b"0", b""])

        await wait_until(forgotten, "its deaths are forgotten")
