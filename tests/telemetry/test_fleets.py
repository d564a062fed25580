"""The fleet from outside, as gauges: each in a scenario that moves it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from redis_stream_client import Fleet, LoadBalancerStream, PoisonError
from redis_stream_client._model.keys import Keys
from redis_stream_client.telemetry import metrics
from tests.harness.fleet import announce
from tests.harness.runs import Running
from tests.harness.waiting import meanwhile, wait_until

if TYPE_CHECKING:
    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server
    from tests.harness.telemetry import Collector

OFTEN = 0.05
"""Seconds between two looks."""

GHOST = "redis-consumer-ghost-00c0ffee"


async def test_a_fleet_that_nobody_is_in(redis: Connection, service: str, collector: Collector) -> None:
    value, telemetry = collector.value, collector.telemetry
    async with meanwhile(telemetry.watch(Fleet(redis, service), every=OFTEN)):
        await wait_until(lambda: value(metrics.FLEET_UP) == 1, "it was looked at")
        assert value(metrics.FLEET_MEMBERS, state="alive") == value(metrics.FLEET_MEMBERS, state="dead") == 0
        await LoadBalancerStream(redis, service).add("call-17")
        await wait_until(lambda: value(metrics.FLEET_ANNOUNCEMENTS, state="waiting") == 1, "a stream waits")
        await wait_until(lambda: (value(metrics.FLEET_WAITING) or 0) > 0.1, "for a while")
        assert value(metrics.FLEET_ORPHANED) == 0
        assert value(metrics.FLEET_LAG) is None
    assert value(metrics.FLEET_UP) is None
    assert value(metrics.FLEET_MEMBERS) is None


async def test_members_their_streams_and_the_dead_letters(
    server: Server, redis: Connection, service: str, collector: Collector
) -> None:
    async def handle(lease: Lease) -> None:
        if lease.stream == "poison":
            raise PoisonError("never")
        await asyncio.sleep(60)

    value, keys = collector.value, Keys(service)
    async with (
        meanwhile(collector.telemetry.watch(Fleet(redis, service), every=OFTEN)),
        Running(server.url, service, handle, max_streams=1) as running,
    ):
        await announce(server.url, service, "poison", "call-17")
        await wait_until(lambda: value(metrics.FLEET_LETTERS) == 1, "one is in the dead letters")
        await wait_until(lambda: value(metrics.FLEET_ANNOUNCEMENTS, state="owned") == 1, "one is owned")
        assert value(metrics.FLEET_MEMBERS, state="alive") == 1
        await running.lease("call-17")  # and has no room for more
        await announce(server.url, service, "call-18")
        await redis.xreadgroup(keys.group, GHOST, {keys.lbs: ">"})
        await wait_until(lambda: value(metrics.FLEET_ANNOUNCEMENTS, state="orphaned") == 1, "one is orphaned")
        await wait_until(lambda: (value(metrics.FLEET_ORPHANED) or 0) > 0, "for a while")
        assert value(metrics.FLEET_MEMBERS, state="dead") == 1


async def test_a_fleet_that_is_paused(redis: Connection, service: str, collector: Collector) -> None:
    fleet = Fleet(redis, service)
    async with meanwhile(collector.telemetry.watch(fleet, every=OFTEN)):
        await wait_until(lambda: collector.value(metrics.FLEET_PAUSED) == 0, "it is not paused")
        await fleet.pause("a migration")
        await wait_until(lambda: (collector.value(metrics.FLEET_PAUSED) or 0) > 0, "it is paused")
        await fleet.resume()
        await wait_until(lambda: collector.value(metrics.FLEET_PAUSED) == 0, "it is not paused any more")


async def test_how_far_a_fleet_is_behind(redis: Connection, service: str, collector: Collector) -> None:
    producer = LoadBalancerStream(redis, service)
    await producer.write_many([("call-17", {"n": str(n)}) for n in range(3)])
    async with meanwhile(collector.telemetry.watch(Fleet(redis, service), every=OFTEN, lag=True)):
        await wait_until(lambda: collector.value(metrics.FLEET_BEHIND) == 3, "three entries are not processed")
        assert (collector.value(metrics.FLEET_LAG) or 0) > 0


async def test_while_redis_does_not_answer_only_that_is_known(
    proxy: TcpProxy, service: str, collector: Collector
) -> None:
    value = collector.value
    async with (
        Redis.from_url(proxy.url) as redis,
        meanwhile(collector.telemetry.watch(Fleet(redis, service), every=OFTEN)),
    ):
        await wait_until(lambda: value(metrics.FLEET_UP) == 1, "it answers")
        await proxy.refuse()
        proxy.cut()
        await wait_until(lambda: value(metrics.FLEET_UP) == 0, "it does not")
        assert value(metrics.FLEET_MEMBERS) is None
        await proxy.accept()
        await wait_until(lambda: value(metrics.FLEET_UP) == 1, "it does again")


async def test_two_services_are_told_apart(redis: Connection, service: str, collector: Collector) -> None:
    other = f"{service}-other"
    await LoadBalancerStream(redis, other).add("call-17")
    watch = collector.telemetry.watch
    async with (
        meanwhile(watch(Fleet(redis, service), every=OFTEN)),
        meanwhile(watch(Fleet(redis, other), every=OFTEN)),
    ):
        await wait_until(lambda: collector.value(metrics.FLEET_UP) == 2, "both are seen")
        waiting = [
            collector.value(metrics.FLEET_ANNOUNCEMENTS, state="waiting", service=name)
            for name in (service, other)
        ]
        assert waiting == [0, 1]


async def test_looking_without_a_pause_is_refused(redis: Connection, service: str, collector: Collector) -> None:
    with pytest.raises(ValueError, match="every must be greater than 0"):
        await collector.telemetry.watch(Fleet(redis, service), every=0)
