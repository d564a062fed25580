"""`client.health()` and `client.statistics()`: what a live lock does not say."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import RedisStreamClient, RetryPolicy
from redis_stream_client._consumer import report
from redis_stream_client._model import health
from tests.harness.fleet import Member, announce
from tests.harness.runs import Running, idle
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for two lifetimes and a half is stuck."""
    monkeypatch.setattr(health, "SLACK", 0.0)


def test_a_client_that_has_not_joined_is_not_well() -> None:
    client = RedisStreamClient.from_url("redis://localhost", "orders")
    assert not client.health().ok
    assert client.statistics().oldest_unhandled is None


async def test_handlers_that_wait_for_entries_are_not_stuck(server: Server, service: str, quick: None) -> None:
    async with Running(server.url, service, idle, lock_ttl=0.2) as member:
        await announce(server.url, service, *(f"call-{n}" for n in range(20)))
        await wait_until(lambda: len(member.working) == 20, "all are handled")
        await asyncio.sleep(3 * member.client.health().limit)  # time itself is what is tested
        found = member.client.health()
        assert found.ok, found
        assert found.oldest_unhandled is None


async def test_an_event_that_nobody_reads_is_named(server: Server, service: str, quick: None) -> None:
    async with RedisStreamClient.from_url(server.url, service, lock_ttl=0.2) as client:
        await announce(server.url, service, "call-1")
        await wait_until(lambda: client.health().stuck, "it is stuck")
        [stuck] = client.health().stuck
        assert (stuck.what, stuck.stream) == ("lease", "call-1")
        assert stuck.age > client.health().limit
        statistics = client.statistics()
        assert statistics.oldest_unhandled is not None
        assert statistics.oldest_unhandled > client.health().limit
        await anext(client.events())
        assert client.health().ok


async def test_announcements_that_a_full_fleet_leaves_unread_are_named(
    server: Server, redis: Connection, service: str, quick: None
) -> None:
    async with Running(server.url, service, idle, lock_ttl=0.2, max_streams=1) as member:
        await announce(server.url, service, "call-1", "call-2")
        await wait_until(lambda: member.client.health().stuck, "the second one is stuck")
        [stuck] = member.client.health().stuck
        assert stuck.what == "announcement"
        assert "max_streams" in stuck.why
        [lease] = member.client.leases.values()
        await lease.done()
        await wait_until(lambda: member.client.health().ok, "it was read")


async def test_a_handler_that_cannot_be_called_is_named(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, quick: None
) -> None:
    async def never(lease: Lease) -> None:
        raise AssertionError("its record could not be looked at")

    await redis.hset(f"{{call-1}}:{service}:progress", mapping={"fence": "0" * 62, "consumer": "x"})
    async with Running(proxy.url, service, never, lock_ttl=0.2) as member:
        proxy.drop_replies_after(b"call-1")  # what asks for the record is never answered; beats are
        await announce(server.url, service, "call-1")
        await wait_until(lambda: member.client.health().stuck, "it is stuck")
        [stuck] = member.client.health().stuck
        assert (stuck.what, stuck.stream) == ("lease", "call-1")
        assert member.client.alive
        proxy.faults.clear()


async def test_peers_that_read_events_are_well(server: Server, service: str) -> None:
    async with Member(server.url, service) as member:
        await announce(server.url, service, "call-1")
        await member.owns("call-1")
        assert member.client.health().ok


async def test_streams_that_fail_are_named_and_those_that_fail_for_longest_first(
    server: Server, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []

    async def fails(lease: Lease) -> None:
        failed.append(lease.stream)
        raise LookupError(f"no {lease.stream}")

    monkeypatch.setattr(report, "MOST_FAILING", 2)
    policy = RetryPolicy(first_pause=30.0)
    async with Running(server.url, service, fails, retry=policy, lock_ttl=2.0) as member:
        assert member.client.statistics().failing == ()
        for stream in ("call-3", "call-2", "call-1"):
            await announce(server.url, service, stream)
            await wait_until(lambda: stream in failed, "it has failed")
        await wait_until(lambda: not member.working, "all rest")
        await wait_until(lambda: len(member.client.statistics().failing) == 2, "it is known")
        found = member.client.statistics().failing
        assert [(each.stream, each.failures, each.error) for each in found] == [
            ("call-3", 1, "LookupError: no call-3"),
            ("call-2", 1, "LookupError: no call-2"),
        ]
        assert time.time() - 10 < found[0].since <= found[1].since <= time.time()
