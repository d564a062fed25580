"""Ring 2: announcements are spread evenly, one by one and in a burst."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import LoadBalancerStream
from redis_stream_client._concurrency import clock
from redis_stream_client.client import RedisStreamClient
from tests.harness.fleet import Member, announce
from tests.harness.parts import in_doubt, joined
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server


def shares(members: list[Member]) -> list[int]:
    return [len(member.leases) for member in members]


async def fleet(stack: contextlib.AsyncExitStack, server: Server, service: str, **options: Any) -> list[Member]:
    """Four idle members, all of which know that they are four."""
    members = [await stack.enter_async_context(Member(server.url, service, **options)) for _ in range(4)]
    await wait_until(
        lambda: all(member.client.statistics().live_members == 4 for member in members), "they know each other"
    )
    return members


async def test_announcements_one_by_one_go_to_each_in_turn(
    server: Server, redis: Connection, service: str
) -> None:
    lbs = LoadBalancerStream(redis, service)
    async with contextlib.AsyncExitStack() as stack:
        members = await fleet(stack, server, service, lock_ttl=20.0)
        await _no_read_ends_soon(redis, period=10.0, margin=3.0)
        for n in range(1, 41):
            await wait_until(lambda: blocked(redis, 4), "all wait in the queue")
            await lbs.add(f"call-{n}")
            await wait_until(lambda: sum(shares(members)) == n, "it arrived")
            if n % 4 == 0:
                assert shares(members) == [n // 4] * 4


async def blocked(redis: Connection, number: int) -> bool:
    return bool((await redis.info("clients"))["blocked_clients"] == number)


async def _no_read_ends_soon(redis: Connection, period: float, margin: float) -> None:
    """Wait until no blocking read of a fleet with this period times out within `margin` seconds."""

    async def far() -> bool:
        seconds, microseconds = await redis.time()
        return bool(0.5 < (seconds + microseconds / 1e6) % period < period - margin)

    await wait_until(far, "the members have queued up anew", margin + 2.0)


@pytest.mark.long
async def test_slow_announcements_stay_even(server: Server, redis: Connection, service: str) -> None:
    """Slower than a blocking read: each time-out would cost a consumer its turn."""
    lbs = LoadBalancerStream(redis, service)
    async with contextlib.AsyncExitStack() as stack:
        members = await fleet(stack, server, service)
        for n in range(24):
            await lbs.add(f"call-{n}")
            await asyncio.sleep(0.3)  # the pace is what is tested
        assert sum(shares(members)) == 24
        assert max(shares(members)) <= 1.5 * min(shares(members)), shares(members)


@pytest.mark.parametrize("burst", [40, 400])
async def test_a_burst_is_shared(server: Server, redis: Connection, service: str, burst: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        members = await fleet(stack, server, service)
        await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(burst)])
        await wait_until(lambda: sum(shares(members)) == burst, "all arrived")
        assert max(shares(members)) <= 1.5 * min(shares(members)), Counter(shares(members))


WEIGHTS = (2.0, 1.0, 1.0)


async def weighted(
    stack: contextlib.AsyncExitStack, server: Server, service: str, *weights: float
) -> list[Member]:
    members = [await stack.enter_async_context(Member(server.url, service, weight=weight)) for weight in weights]
    await wait_until(
        lambda: all(member.client.statistics().live_members == len(weights) for member in members),
        "they know each other",
    )
    return members


@pytest.mark.parametrize("burst", [40, 400])
async def test_a_burst_is_shared_by_weight(server: Server, redis: Connection, service: str, burst: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        members = await weighted(stack, server, service, *WEIGHTS)
        await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(burst)])
        await wait_until(lambda: sum(shares(members)) == burst, "all arrived")
        assert all(
            abs(has - burst * part) <= 2 for has, part in zip(shares(members), (0.5, 0.25, 0.25), strict=True)
        )


@pytest.mark.parametrize("pause", [0.02, pytest.param(0.3, marks=pytest.mark.long)])
async def test_announcements_one_by_one_are_shared_by_weight(
    server: Server, redis: Connection, service: str, pause: float
) -> None:
    lbs = LoadBalancerStream(redis, service)
    async with contextlib.AsyncExitStack() as stack:
        members = await weighted(stack, server, service, *WEIGHTS)
        for n in range(40):
            await lbs.add(f"call-{n}")
            await asyncio.sleep(pause)  # the pace is what is tested
        await wait_until(lambda: sum(shares(members)) == 40, "all arrived")
        heavy, *light = shares(members)
        assert 18 <= heavy <= 22, shares(members)
        assert max(light) <= 12, shares(members)


async def test_what_a_heavy_member_does_not_take_comes_to_the_others_soon(
    server: Server, redis: Connection, service: str
) -> None:
    """It reads no events, so it takes no more than one. The others learn that."""
    lbs = LoadBalancerStream(redis, service)
    lazy = RedisStreamClient.from_url(server.url, service, prefetch=1, weight=50.0)
    async with lazy, Member(server.url, service) as busy:
        await lbs.add_many(["call-0", "call-1"])
        await wait_until(lambda: len(lazy.leases) == len(busy.leases) == 1, "each has one", timeout=5)
        await lbs.add("call-2")
        await wait_until(lambda: len(busy.leases) == 2, "it was left to the heavy one for a while", timeout=2)
        for n in range(3, 8):
            await wait_until(lambda: blocked(redis, 1), "the busy one does not yield, but blocks")
            await lbs.add(f"call-{n}")
            await wait_until(lambda: len(busy.leases) == n, "it is there at once", timeout=0.4)


async def test_what_full_members_cannot_take_goes_to_the_others(
    server: Server, redis: Connection, service: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        full = [await stack.enter_async_context(Member(server.url, service, max_streams=1)) for _ in range(2)]
        roomy = await stack.enter_async_context(Member(server.url, service))
        await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(30)])
        await wait_until(lambda: sum(shares([*full, roomy])) == 30, "all arrived")
        assert shares(full) == [1, 1]


async def test_a_member_that_reads_no_events_does_not_hoard(
    server: Server, redis: Connection, service: str
) -> None:
    lazy = RedisStreamClient.from_url(server.url, service, prefetch=5)
    async with lazy, Member(server.url, service) as busy:
        await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(50)])
        await wait_until(lambda: len(busy.leases) == 45, "the busy one has the rest")
        assert len(lazy.leases) == 5


async def test_a_lone_consumer_is_not_slowed_down(server: Server, redis: Connection, service: str) -> None:
    """A burst takes it as many requests as it must, and no waiting between them. One reads several pieces."""
    async with Member(server.url, service, prefetch=100) as lone:
        await redis.config_resetstat()
        await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(1000)])
        await wait_until(lambda: len(lone.leases) == 1000, "all arrived")
        stats = await redis.info("commandstats")
        assert stats["cmdstat_evalsha"]["calls"] < 20


async def test_in_doubt_nothing_new_is_read_and_at_its_end_everything_at_once(
    server: Server, redis: Connection, service: str
) -> None:
    async with joined(server.url, service, lock_ttl=4.0, presence=False) as parts:
        await wait_until(lambda: blocked(redis, 1), "it reads")
        with in_doubt(parts):
            await announce(server.url, service, "call-1")  # for the read that had begun
            await wait_until(lambda: len(parts.table) == 1, "the answer counts")
            await announce(server.url, service, "call-2")
            began = clock.now()
            await wait_until(lambda: clock.now() > began + 0.5, "it would have been read")
            assert len(parts.table) == 1
        await wait_until(lambda: len(parts.table) == 2, "it is read", 0.5)
