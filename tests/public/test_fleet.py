"""The fleet as it is seen from outside: members alive, killed and frozen; streams waiting, owned and orphaned."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis, RedisCluster, Sentinel

from redis_stream_client import (
    Fleet,
    FleetMember,
    FleetStatus,
    LoadBalancerStream,
    RedisRejected,
    RedisUnavailable,
    __version__,
)
from redis_stream_client._model.keys import Keys
from tests.harness.connection import lent_by
from tests.harness.fleet import Member
from tests.harness.ports import HOST, free_port
from tests.harness.scenes import bury_one
from tests.harness.sentinel import NAME, deploy
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server
    from tests.harness.workers import Worker


@pytest.fixture
def fleet(redis: Connection, service: str) -> Fleet:
    return Fleet(redis, service)


async def seen(fleet: Fleet, what: Callable[[FleetStatus], object], description: str) -> FleetStatus:
    """Wait until a status is so, and return it."""

    async def found() -> FleetStatus | None:
        status = await fleet.status()
        assert_adds_up(status)
        return status if what(status) else None

    found_status = await wait_until(found, description, timeout=10)
    assert found_status is not None
    return found_status


def assert_adds_up(status: FleetStatus) -> None:
    dead = sum(member.leases for member in status.members if not member.alive)
    assert status.owned == sum(member.leases for member in status.members if member.alive)
    assert status.orphaned == dead + status.released
    assert (status.orphaned_for is None) == (status.orphaned == 0)
    assert (status.oldest_waiting is None) == (status.waiting == 0)


def member_of(status: FleetStatus, id: str) -> FleetMember:
    return next(member for member in status.members if member.id == id)


async def test_a_service_that_nobody_has_used(fleet: Fleet, redis: Connection, service: str) -> None:
    status = await fleet.status()
    assert abs(status.time - time.time()) < 10
    assert status == FleetStatus(service, status.time, (), 0, None, 0, 0, None, 0, 0)
    assert await redis.keys() == []
    assert repr(fleet) == f"<Fleet of '{service}'>"


async def test_announced_before_the_first_member_came(fleet: Fleet, redis: Connection, service: str) -> None:
    await LoadBalancerStream(redis, service).add_many(["a", "b"])
    status = await fleet.status()
    assert (status.members, status.waiting, status.owned, status.orphaned) == ((), 2, 0, 0)
    assert status.oldest_waiting is not None


async def test_members_say_who_they_are(fleet: Fleet, redis: Connection, service: str) -> None:
    async with Member(redis, service, lock_ttl=4.0, weight=2.0, max_streams=2) as member:
        await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(5)])
        status = await seen(fleet, lambda status: status.owned == 2 and status.members[0].presence, "it is seen")
        [one] = status.members
        assert one.id == member.client.id
        assert (one.host, one.pid, one.version) == (socket.gethostname(), os.getpid(), __version__)
        assert (one.weight, one.max_streams, one.leases) == (2.0, 2, 2)
        assert one.started is not None
        assert abs(one.started - time.time()) < 10
        assert one.lock_left is not None
        assert 0 < one.lock_left <= 4.0
        assert one.last_seen == pytest.approx(4.0 - one.lock_left, abs=0.1) or one.last_seen < 4.0 - one.lock_left
        assert status.waiting == 3
        assert not status.unread
    status = await fleet.status()
    assert (member_of(status, member.client.id).alive, status.orphaned) == (False, 2)


async def test_killed_and_frozen(
    fleet: Fleet, redis: Connection, service: str, server: Server, start_worker: Callable[..., Awaitable[Worker]]
) -> None:
    worker = await start_worker(claim=False, lock_ttl=1.5)
    await LoadBalancerStream(redis, service).add("call-1")
    await worker.wait_for_event(lambda event: event.event == "added")
    assert (await fleet.status()).owned == 1
    worker.freeze()
    first = await seen(fleet, lambda status: not status.members[0].alive, "its lock has expired")
    assert (first.orphaned, first.released, first.members[0].host) == (1, 0, None)
    assert first.orphaned_for is not None
    later = await seen(fleet, lambda status: (status.orphaned_for or 0) > (first.orphaned_for or 0), "time passes")
    assert later.members[0].last_seen > first.members[0].last_seen
    worker.thaw()
    await seen(fleet, lambda status: status.owned == 1, "it keeps what nobody took")
    worker.kill()
    await seen(fleet, lambda status: status.orphaned == 1, "it is noticed")


async def test_given_back_and_buried(fleet: Fleet, redis: Connection, service: str) -> None:
    async with Member(redis, service, claim=False, lock_ttl=30.0) as member:
        await LoadBalancerStream(redis, service).add("call-1")
        await wait_until(lambda: member.leases, "it has the stream")
        await member.leases[0].release()
        status = await fleet.status()
        assert (status.released, status.orphaned, status.owned) == (1, 1, 0)
        assert_adds_up(status)
        assert [one.id for one in status.members] == [member.client.id]
        await bury_one(member.client, redis, service)
        assert (await fleet.status()).dead_letters == 1


async def test_what_cannot_be_read_is_said(fleet: Fleet, redis: Connection, service: str) -> None:
    async with Member(redis, service, presence=False):
        keys = Keys(service)
        await redis.set(keys.dead, "text")
        await redis.set(keys.present, "text")
        status = await fleet.status()
        assert [unread.what for unread in status.unread] == ["dead letters", "presence"]
        assert all("another type" in unread.why for unread in status.unread)
        assert (status.dead_letters, status.members[0].presence) == (None, None)
        assert status.members[0].alive


async def test_what_is_no_load_balancer_stream(fleet: Fleet, redis: Connection, service: str) -> None:
    await redis.set(Keys(service).lbs, "text")
    with pytest.raises(RedisRejected, match="another type"):
        await fleet.status()


async def test_nobody_answers(service: str, proxy: TcpProxy) -> None:
    async with Redis(host=HOST, port=free_port()) as nowhere:
        with pytest.raises(RedisUnavailable, match="could not look at the fleet"):
            await Fleet(nowhere, service).status()
    async with Redis.from_url(f"{proxy.url}?socket_timeout=0.3") as silent:
        await Fleet(silent, service).status()
        proxy.freeze()
        with pytest.raises(RedisUnavailable, match="could not look at the fleet"):
            await Fleet(silent, service).status()
        proxy.thaw()
        await Fleet(silent, service).status()


@pytest.mark.parametrize(
    "settings",
    [{}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}, {"max_connections": 1}, {"db": 3}],
    ids=repr,
)
async def test_any_client_will_do_and_gets_its_connection_back(
    server: Server, service: str, settings: dict[str, Any]
) -> None:
    async with Redis(host=HOST, port=server.port, **settings) as redis:
        lent, fleet = lent_by(redis), Fleet(redis, service)
        async with Member(redis, service, lock_ttl=5.0):
            statuses = await asyncio.gather(*(fleet.status() for _ in range(3)))
            assert all(len(status.members) == 1 and not status.unread for status in statuses)
        assert not lent


async def test_on_a_cluster(cluster: Cluster, service: str) -> None:
    async with RedisCluster.from_url(cluster.url) as redis, Member(redis, service) as member:
        await LoadBalancerStream(redis, service).add("call-1")
        await wait_until(lambda: member.leases, "it has the stream")
        status = await Fleet(redis, service).status()
        assert (status.owned, [one.id for one in status.members]) == (1, [member.client.id])
        assert not status.unread
        cluster.move(Keys(service).lbs)
        assert (await Fleet(redis, service).status()).members[0].id == member.client.id


async def test_behind_a_sentinel(service: str) -> None:
    with deploy() as deployment:
        sentinel: Connection = Sentinel([(HOST, deployment.sentinel.port)])  # type: ignore[no-untyped-call]
        async with sentinel.master_for(NAME) as redis, Member(redis, service) as member:
            await LoadBalancerStream(redis, service).add("call-1")
            await wait_until(lambda: member.leases, "it has the stream")
            assert (await Fleet(redis, service).status()).owned == 1
        for known in sentinel.sentinels:
            await known.aclose()


@pytest.mark.parametrize("name", ["", "{a", "a{}"])
async def test_names_of_services(redis: Connection, name: str) -> None:
    with pytest.raises(ValueError, match="service"):
        Fleet(redis, name)
