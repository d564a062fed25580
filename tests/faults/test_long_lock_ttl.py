"""A long life of the lock costs nothing but the time until a dead consumer is replaced: all else is as quick."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import LoadBalancerStream
from redis_stream_client._model.keys import Keys
from tests.harness.fleet import Member
from tests.harness.runs import Running, RunWorker, add, dead_letters, record
from tests.harness.waiting import wait_until
from tests.ownership.test_takeover import bodies, ghost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

    StartWorker = Callable[..., Awaitable[RunWorker]]

LONG = 10.0
SLACK = 0.5
"""Seconds that a busy machine adds."""


async def test_an_idle_stream_is_acquitted_however_often_its_owners_are_killed(
    redis: Connection, service: str, start_worker: StartWorker
) -> None:
    keys = Keys(service)
    options = {"lock_ttl": LONG, "max_attempts": 2}  # the second death in a row would bury it
    await LoadBalancerStream(redis, service).add("idle-1")
    for kill in range(3):
        worker = await (await start_worker(RunWorker, **options)).joined()
        await wait_until(lambda: any(e.event == "handling" for e in worker.events), "it is handled", 10)
        began = time.monotonic()
        if kill:  # the first owner leaves no record until it has something to say

            async def acquitted() -> bool:
                return (await record(redis, service, "idle-1"))["attempts"] == "0"

            await wait_until(acquitted, "it does not count any more", 10)
            assert time.monotonic() - began < 4 + SLACK
        worker.kill()
        await redis.delete(keys.lock(worker.client))
    assert await dead_letters(redis, service) == []


async def test_what_a_dead_consumer_leaves_and_a_live_one_does_not_take_rests_for_half_a_second(
    server: Server, redis: Connection, service: str
) -> None:
    keys = Keys(service)
    async with Running(server.url, service, lock_ttl=LONG) as member:
        idler = "redis-consumer-idler-00c0ffee"  # a member that is alive, and takes nothing
        await redis.xgroup_createconsumer(keys.lbs, keys.group, idler)
        await redis.set(keys.lock(idler), "{}")
        await redis.publish(keys.control, f"joined {idler}")
        await wait_until(lambda: member.client.statistics().live_members == 2, "it is known", 10)
        dead = await ghost(redis, service, bodies([f"call-{n}" for n in range(40)]), lives=60)
        began = time.monotonic()
        await redis.delete(keys.lock(dead))
        await wait_until(lambda: len(member.working) == 40, "one member has all", 10)
        assert time.monotonic() - began < 0.5 + 0.5 + SLACK  # its share at once, the rest by halves


async def test_an_offer_that_nobody_claims_comes_again_after_two_seconds(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, claim=False, lock_ttl=LONG) as member:
        await ghost(redis, service, bodies(["call-1"]))
        await wait_until(lambda: len(member.events) == 1, "it is offered", 10)
        began = time.monotonic()
        member.claims_now()
        await wait_until(lambda: member.owned == ["call-1"], "it is offered again, and claimed", 10)
        assert time.monotonic() - began < 2 + 0.5 + SLACK


async def test_a_stream_whose_delivery_was_lost_is_handled_after_two_seconds(
    proxy: TcpProxy, redis: Connection, service: str
) -> None:
    async with Running(proxy.url, service, lock_ttl=LONG) as member:
        fault = proxy.drop_replies_after(b"XREADGROUP", connections=1)
        await add(redis, service, ["call-1"])
        began = time.monotonic()
        await member.handles("call-1")
        assert fault.matched
        assert time.monotonic() - began < 1 + 1 + SLACK  # a blocking read, and the time for its answer


async def test_a_handler_that_ignores_its_cancellation_loses_its_stream_after_two_seconds(
    server: Server, redis: Connection, service: str
) -> None:
    ignoring = True

    async def handle(lease: Lease) -> None:
        while ignoring:
            try:
                await lease.lost()
                return
            except BaseException:  # noqa: BLE001 - which is what is tested
                continue

    async with Running(server.url, service, handle, lock_ttl=LONG, progress_timeout=0.5) as member:
        await add(redis, service, ["call-1"])
        began = time.monotonic()
        await member.handles("call-1")
        try:
            await wait_until(lambda: len(member.leases) == 2, "it is released, and handled again", 15)
            took = time.monotonic() - began
        finally:
            ignoring = False
    assert took < 0.5 + 2 + 2 + 2 * SLACK


@pytest.mark.parametrize("delay", [0.7])
async def test_a_line_with_long_round_trips_is_served_as_before(
    proxy: TcpProxy, redis: Connection, service: str, delay: float
) -> None:
    """The shorter patience leaves them less time, and no connection is given up again and again for that."""
    async with Running(proxy.url, service, lock_ttl=LONG) as member:
        await add(redis, service, ["call-1"])
        await member.handles("call-1")
        proxy.request_delay = delay
        names = [f"call-{n}" for n in range(2, 20)]
        await add(redis, service, names)
        await member.handles("call-1", *names, timeout=20)
        reconnects = member.client.statistics().reconnects
        for name in ("later-1", "later-2"):
            await add(redis, service, [name])
            names.append(name)
            await member.handles("call-1", *names, timeout=10)
        statistics = member.client.statistics()
        assert (statistics.lapses, statistics.streams_disowned) == (0, 0)
        assert statistics.reconnects - reconnects <= 1
        proxy.request_delay = 0.0
