"""What members have, as gauges: each in a scenario that moves it."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from redis_stream_client import Fleet, Membership, Rebalance, RedisStreamClient, RetryPolicy
from redis_stream_client._model.statistics import NOTHING
from redis_stream_client._protocol import scripts
from redis_stream_client.telemetry import metrics
from tests.harness.fleet import announce
from tests.harness.runs import Ledger, Running
from tests.harness.waiting import wait_until
from tests.run.test_run_deaths import has_killed

if TYPE_CHECKING:
    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server
    from tests.harness.telemetry import Collector

SOON = 0.5
"""The lock's lifetime in seconds where something is looked at in its pace."""


async def test_a_member_that_works(server: Server, service: str, collector: Collector) -> None:
    value = collector.value
    assert value(metrics.LEASES) is None
    async with Running(server.url, service, observer=collector.telemetry) as running:
        await wait_until(lambda: value(metrics.MEMBERS) == 1, "it is there")
        assert (value(metrics.LEASES), value(metrics.HANDLERS)) == (0, 0)
        await announce(server.url, service, "call-1", "call-2")
        await wait_until(lambda: value(metrics.HANDLERS, service=service) == 2, "both have handlers")
        assert value(metrics.LEASES) == 2
        await wait_until(lambda: value(metrics.PRESENT) == 1, "it has declared its presence")
        assert 0 <= (value(metrics.SINCE_BEAT) or -1) < 2
        assert value(metrics.OUTAGE) == value(metrics.OLDEST_ANNOUNCEMENT) == 0
        await wait_until(lambda: value(metrics.OLDEST_WAKEUP) == 0, "no entry waits")
        async with Running(server.url, service, observer=collector.telemetry, rebalance=None):
            await wait_until(lambda: value(metrics.MEMBERS) == 2, "each counts both, and they are not added up")
            await wait_until(lambda: value(metrics.PRESENT) == 2, "and these are")
        await wait_until(lambda: value(metrics.PRESENT) == 1, "who has left counts no more")
        assert len(running.client.leases) == 2
    assert value(metrics.LEASES) is None


async def test_events_that_nobody_reads(server: Server, service: str, collector: Collector) -> None:
    value = collector.value
    async with RedisStreamClient.from_url(server.url, service, observer=collector.telemetry) as client:
        await announce(server.url, service, "call-1", "call-2")
        await wait_until(lambda: value(metrics.UNREAD_EVENTS) == 2, "both are unread")
        await wait_until(lambda: (value(metrics.OLDEST_UNHANDLED) or 0) > 0.1, "and nobody handles them")
        await anext(client.events())
        await wait_until(lambda: value(metrics.UNREAD_EVENTS) == 1, "one was read")


async def test_announcements_that_nobody_reads(server: Server, service: str, collector: Collector) -> None:
    options: dict[str, Any] = {"lock_ttl": 0.2, "max_streams": 1, "observer": collector.telemetry}
    async with Running(server.url, service, **options):
        await announce(server.url, service, "call-1", "call-2")
        await wait_until(lambda: (collector.value(metrics.OLDEST_ANNOUNCEMENT) or 0) > 0, "one waits for room")


async def test_handlers_that_fail_and_an_outage(server: Server, service: str, collector: Collector) -> None:
    async def fail(lease: Lease) -> None:
        raise LookupError("the database is away")

    value, policy = collector.value, RetryPolicy(max_attempts=9, patience=0, first_pause=0.3, longest_pause=0.3)
    async with Running(server.url, service, fail, lock_ttl=SOON, retry=policy, observer=collector.telemetry):
        await announce(server.url, service, "call-1")
        await wait_until(lambda: value(metrics.FAILING) == 1, "it has failed, and rests")
        assert value(metrics.OUTAGE) == 0
        await announce(server.url, service, "call-2", "call-3", "call-4")
        await wait_until(lambda: value(metrics.OUTAGE) == 1, "all fail")


async def test_a_member_of_a_paused_fleet(
    server: Server, redis: Connection, service: str, collector: Collector
) -> None:
    async with Running(server.url, service, lock_ttl=SOON, observer=collector.telemetry):
        await wait_until(lambda: collector.value(metrics.PAUSED) == 0, "it is not paused")
        await Fleet(redis, service).pause("a migration")
        await wait_until(lambda: collector.value(metrics.PAUSED) == 1, "it takes nothing new")
        await Fleet(redis, service).resume()
        await wait_until(lambda: collector.value(metrics.PAUSED) == 0, "it goes on")


async def test_a_suspect(server: Server, redis: Connection, service: str, collector: Collector) -> None:
    async with Running(server.url, service, lock_ttl=SOON, observer=collector.telemetry):
        await has_killed(redis, service, "resting", 9, lived=20_000)
        await wait_until(lambda: collector.value(metrics.SUSPECTS) == 1, "it waits for its turn")


async def test_streams_that_are_about_to_move(server: Server, service: str, collector: Collector) -> None:
    async def work(lease: Lease) -> None:
        await asyncio.sleep(60)

    options: dict[str, Any] = {"lock_ttl": SOON, "rebalance": Rebalance(settle=0.1), "drain_timeout": 0.1}
    async with Running(server.url, service, work, observer=collector.telemetry, **options) as old:
        await announce(server.url, service, *(f"call-{n}" for n in range(10)))
        await wait_until(lambda: len(old.working) == 10, "it has all")
        async with Running(server.url, service, work, **options):
            await wait_until(lambda: collector.value(metrics.GOING), "some are to go", timeout=20)


async def test_entries_that_are_not_read(
    proxy: TcpProxy, redis: Connection, service: str, collector: Collector
) -> None:
    ledger = Ledger()
    async with Running(proxy.url, service, ledger.follow, lock_ttl=SOON, observer=collector.telemetry):
        await announce(proxy.url, service, "call-1")
        await redis.xadd("call-1", {"text": "hello"})
        await ledger.reached({"call-1": 1})
        proxy.drop_requests_matching(b"XREAD\r\n")
        await redis.xadd("call-1", {"text": "hello?"})
        await wait_until(lambda: (collector.value(metrics.OLDEST_WAKEUP) or 0) > 0, "an entry is not read")
        proxy.heal()


async def test_records_that_cannot_be_settled(
    proxy: TcpProxy, redis: Connection, service: str, collector: Collector
) -> None:
    ledger = Ledger()
    async with Running(proxy.url, service, ledger.follow, lock_ttl=SOON, observer=collector.telemetry) as running:
        await announce(proxy.url, service, "call-1")
        await redis.xadd("call-1", {"text": "hello"})
        await ledger.reached({"call-1": 1})
        proxy.drop_requests_matching(scripts.load("settle").sha.encode())
        await running.leases[0].release()
        await wait_until(lambda: collector.value(metrics.UNSETTLED) == 1, "its record is not settled")
        proxy.heal()
        await wait_until(lambda: collector.value(metrics.UNSETTLED) == 0, "it is settled")


async def test_of_several_clients_of_a_service_the_worst_counts_or_all(collector: Collector) -> None:
    """Of ages the oldest, of counts the sum."""
    for consumer, leases, age in (("a", 2, 1.0), ("b", 3, 7.0), ("c", 4, None)):
        said = dataclasses.replace(NOTHING, leases=leases, oldest_wakeup=age, last_beat_age=age)
        collector.telemetry.joined(Membership(consumer, "orders", lambda said=said: said))  # type: ignore[misc]
    assert collector.value(metrics.LEASES) == 9
    assert collector.value(metrics.OLDEST_WAKEUP) == 7.0
    assert collector.value(metrics.SINCE_BEAT) == 7.0


def test_no_span_is_left_current() -> None:
    assert trace.get_current_span() is trace.INVALID_SPAN
