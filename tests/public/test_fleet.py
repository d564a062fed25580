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
    Lag,
    Lease,
    LoadBalancerStream,
    RedisRejected,
    RedisStreamClient,
    RedisUnavailable,
    RetryPolicy,
    StreamStatus,
    __version__,
)
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import positions, scripts
from tests.harness.cluster import start_cluster
from tests.harness.connection import EVERY_SETTING, lent_by
from tests.harness.fleet import Member
from tests.harness.masses import make_members, make_streams
from tests.harness.permissions import FLEET_RULE
from tests.harness.ports import HOST, free_port
from tests.harness.scenes import bury_one, die_with
from tests.harness.sentinel import NAME, deploy
from tests.harness.slowlog import slowest_ms
from tests.harness.suspensions import EVERY_HOW, EVERY_WHEN, How, Strikes, When
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


@EVERY_SETTING
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
            fleet = Fleet(redis, service)
            assert (await fleet.status()).owned == 1
            assert await fleet.pause("a migration") == ()
            assert (await fleet.status()).paused == member.client.statistics().paused
            assert await fleet.resume() is not None
        for known in sentinel.sentinels:
            await known.aclose()


@pytest.mark.parametrize("name", ["", "{a", "a{}"])
async def test_names_of_services(redis: Connection, name: str) -> None:
    with pytest.raises(ValueError, match="service"):
        Fleet(redis, name)


# Streams.


async def listed(fleet: Fleet, **only: Any) -> dict[str | None, StreamStatus]:
    return {status.stream: status async for status in fleet.streams(**only)}


async def test_no_streams(fleet: Fleet, redis: Connection) -> None:
    assert await listed(fleet) == {}
    assert await fleet.owner("call-1") is None
    assert await fleet.lag() == Lag(0, more=False, behind=0.0, stream=None, waiting=0, streams=0, unread=0)
    assert await redis.keys() == []


async def test_waiting_owned_given_back_and_orphaned(fleet: Fleet, redis: Connection, service: str) -> None:
    producer = LoadBalancerStream(redis, service)
    async with Member(redis, service, claim=False, lock_ttl=30.0, max_streams=1) as member:
        await producer.add("given back")
        await wait_until(lambda: member.leases, "it has the stream")
        await member.leases[0].release()
        await producer.add("owned")
        await wait_until(lambda: len(member.leases) == 2, "it has the next one")
        ghost = await die_with(redis, service, "orphaned", lock_ttl=0.01)
        lbs_id = await producer.add("waiting")
        await wait_until(lambda: gone(redis, Keys(service).lock(ghost)), "it is dead")
        found = await listed(fleet)
        assert {name: (one.owner, one.owner_alive, one.deliveries) for name, one in found.items()} == {
            "given back": (None, False, 1),
            "owned": (member.client.id, True, 1),
            "orphaned": (ghost, False, 1),
            "waiting": (None, False, 0),
        }
        assert found["waiting"].lbs_id == lbs_id
        assert list(await listed(fleet, owner=member.client.id)) == ["owned"]
        assert list(await listed(fleet, owner=ghost)) == ["orphaned"]
        assert await listed(fleet, owner="stranger") == {}
        for name, status in found.items():
            assert await fleet.owner(str(name)) == status
        lag = await fleet.lag()
        assert (lag.streams, lag.waiting, lag.entries) == (4, 1, 0)


async def gone(redis: Connection, key: str) -> bool:
    return not await redis.exists(key)


async def test_how_far_behind(fleet: Fleet, redis: Connection, service: str) -> None:
    async with Member(redis, service, lock_ttl=30.0) as member:
        producer, now = LoadBalancerStream(redis, service), round(time.time())
        await producer.add_many(["slow", "quick", "new"])
        await wait_until(lambda: len(member.leases) == 3, "it has the streams")
        for stream in ("slow", "quick"):
            for age in (600, 300, 200):
                await redis.xadd(stream, {"n": 1}, id=f"{now - age}000-0")
        for lease in [lease for lease in member.leases if lease.stream != "new"]:
            async for entry in lease.entries():
                await lease.checkpoint(entry.id)
                if lease.stream == "slow" or entry.id == f"{now - 200}000-0":
                    break
        await redis.xadd("new", {"n": 1})
        slow, quick, new = (await listed(fleet)).values()
        assert (slow.checkpoint, slow.entries, slow.more) == (f"{now - 600}000-0", 2, False)
        assert slow.behind == pytest.approx(300, abs=10)
        assert (quick.checkpoint, quick.entries, quick.behind) == (f"{now - 200}000-0", 0, 0.0)
        assert (new.checkpoint, new.entries, new.attempts) == (None, 1, 0)
        assert slow.attempts == 0, "it has got on"
        assert list(await listed(fleet, behind=60)) == ["slow"]
        assert await listed(fleet, behind=400.0) == {}
        assert len(await listed(fleet, behind=0)) == 3
        lag = await fleet.lag()
        assert (lag.entries, lag.more, lag.stream, lag.streams, lag.waiting) == (3, False, "slow", 3, 0)
        assert lag.behind == pytest.approx(300, abs=10)


async def test_a_stream_whose_handlers_fail(fleet: Fleet, redis: Connection, service: str) -> None:
    async def handle(lease: Lease) -> None:
        async for _ in lease.entries():
            raise KeyError("no such customer")

    began = time.time()
    await LoadBalancerStream(redis, service).write("call-1", {"n": 1})
    client = RedisStreamClient(redis, service)
    async with client.running(handle, retry=RetryPolicy(max_attempts=None, first_pause=0.05)):

        async def failing() -> StreamStatus | None:
            status = await fleet.owner("call-1")
            return status if status is not None and status.failures > 1 else None

        status = await wait_until(failing, "it has failed twice")
        assert status is not None
        assert status.failing_since is not None
        assert status.failing_since == pytest.approx(began, abs=10)
        assert "no such customer" in (status.error or "")
        assert (status.entries, status.checkpoint) == (1, None)


async def test_a_session_that_sleeps_is_not_there(fleet: Fleet, redis: Connection, service: str) -> None:
    async with Member(redis, service) as member:
        await LoadBalancerStream(redis, service).write("call-1", {"n": 1})
        await wait_until(lambda: member.leases, "it has the stream")
        [lease] = member.leases
        entry = await anext(lease.entries())
        await lease.checkpoint(entry.id)
        assert await lease.done_if_idle()
        assert await listed(fleet) == {}
        assert await fleet.owner("call-1") is None


async def test_a_malformed_announcement(fleet: Fleet, redis: Connection, service: str) -> None:
    await redis.xadd(Keys(service).lbs, {"n": 1})
    found = await listed(fleet, behind=10.0)
    assert found[None].unread == "its announcement is malformed"
    lag = await fleet.lag()
    assert (lag.streams, lag.unread, lag.more) == (1, 1, True)


async def test_streams_that_cannot_be_read(fleet: Fleet, redis: Connection, service: str) -> None:
    await LoadBalancerStream(redis, service).add_many(["a", "b", "c"])
    await redis.set("a", "text")
    await redis.set(Keys(service).progress("b"), "text")
    found = await listed(fleet)
    assert "its data stream cannot be read" in (found["a"].unread or "")
    assert "its progress record cannot be read" in (found["b"].unread or "")
    assert found["c"].unread is None
    assert list(await listed(fleet, behind=10.0)) == ["a", "b"]


async def test_what_is_announced_meanwhile_is_left_to_the_next_time(
    fleet: Fleet, redis: Connection, service: str
) -> None:
    producer = LoadBalancerStream(redis, service)
    await producer.add_many([f"call-{n}" for n in range(600)])
    seen_names = []
    async for status in fleet.streams():
        seen_names.append(status.stream)
        if len(seen_names) % 100 == 0:
            await producer.add(f"later-{len(seen_names)}")
    assert seen_names == [f"call-{n}" for n in range(600)]


async def test_the_same_iterator_goes_on_after_an_error(redis: Connection, service: str, proxy: TcpProxy) -> None:
    await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(600)])
    async with Redis.from_url(f"{proxy.url}?socket_timeout=0.3") as through:
        lent = lent_by(through)
        streams = Fleet(through, service).streams()
        names = [(await anext(streams)).stream for _ in range(250)]
        assert not lent, "no connection is held"
        proxy.freeze()
        with pytest.raises(RedisUnavailable, match="could not list the streams"):
            await anext(streams)
        proxy.thaw()
        names += [status.stream async for status in streams]
        assert names == [f"call-{n}" for n in range(600)]
        assert not lent


async def test_one_server_answers_for_all_streams_or_for_none(
    redis: Connection, service: str, proxy: TcpProxy
) -> None:
    await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(300)])
    async with Redis.from_url(f"{proxy.url}?socket_timeout=0.3") as through:
        fleet = Fleet(through, service)
        await fleet.lag()
        streams = fleet.streams()
        proxy.drop_replies_after(scripts.load("positions").sha.encode(), connections=1)
        with pytest.raises(RedisUnavailable, match="could not list the streams"):
            await anext(streams)
        found = [status async for status in streams]
        assert len(found) == 300
        assert not [status for status in found if status.unread]


async def test_many_that_wait_and_many_that_were_trimmed(fleet: Fleet, redis: Connection, service: str) -> None:
    keys, producer = Keys(service), LoadBalancerStream(redis, service)
    await producer.add_many([f"call-{n}" for n in range(2_000)])
    assert (await fleet.status()).waiting == 2_000
    await redis.xgroup_create(keys.lbs, keys.group, "0")
    await redis.xreadgroup(keys.group, "ghost", {keys.lbs: ">"}, count=2_000)
    await redis.xtrim(keys.lbs, maxlen=0, approximate=False)
    await producer.add_many([f"later-{n}" for n in range(600)])
    status = await fleet.status()
    assert 500 <= status.waiting <= 600
    assert status.orphaned == 2_000


async def test_a_cancelled_step_can_be_repeated(redis: Connection, service: str, proxy: TcpProxy) -> None:
    await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(300)])
    async with Redis.from_url(proxy.url) as through:
        streams = Fleet(through, service).streams()
        names = [(await anext(streams)).stream for _ in range(250)]
        proxy.freeze()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(streams)
        proxy.thaw()
        names += [status.stream async for status in streams]
        assert names == [f"call-{n}" for n in range(300)]


@EVERY_HOW
@EVERY_WHEN
async def test_cancelled_anywhere_nothing_is_left_and_no_stream_skipped(
    server: Server, redis: Connection, service: str, how: How, when: When
) -> None:
    names = [f"call-{n}" for n in range(3)]
    await LoadBalancerStream(redis, service).add_many(names)
    async with Redis.from_url(server.url) as asked:
        lent, fleet = lent_by(asked), Fleet(asked, service)

        async def everything() -> None:
            await fleet.status()
            await fleet.owner("call-1")
            found.extend([status.stream async for status in streams])

        struck = Strikes(server, how, when)
        for strike in struck:
            found: list[str | None] = []
            streams = fleet.streams()
            await strike.on(everything())
            await strike.settled()
            assert not lent
            if strike.cancelled:
                rest = [status.stream async for status in streams]
                assert rest in (names, names[1:], names[2:], []), "what was handed over comes no second time"
            else:
                assert found == names
        assert struck.points >= 8
        assert (await fleet.status()).waiting == 3


async def test_the_readme_s_rule_and_one_command_are_enough_on_a_cluster(cluster: Cluster) -> None:
    user, password, service = FLEET_RULE[2], FLEET_RULE[4].removeprefix(">"), "orders"
    for node in cluster.nodes:
        node.command("FLUSHALL")
        node.command(*FLEET_RULE, "+cluster|slots")
    try:
        async with RedisCluster.from_url(cluster.url) as redis:
            await LoadBalancerStream(redis, service).write_many([(f"call-{n}", {"n": n}) for n in range(9)])
        settings = RedisCluster(host=HOST, port=cluster.nodes[0].port, username=user, password=password)
        fleet = Fleet(settings, service)
        assert not (await fleet.status()).unread
        lag = await fleet.lag()
        assert (lag.entries, lag.streams, lag.unread) == (9, 9, 0)
        found = await fleet.owner("call-3")
        assert found is not None
        assert (found.owner, found.entries) == (None, 1)
    finally:
        for node in cluster.nodes:
            node.command("ACL", "DELUSER", user)
            node.command("FLUSHALL")


async def test_streams_on_a_cluster_whose_node_is_away(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "PATIENCE", 1.0)
    with start_cluster() as cluster:
        async with RedisCluster.from_url(cluster.url) as redis:
            lbs = cluster.owner_of(Keys(service).lbs)
            dead = next(node for node in cluster.masters if node is not lbs)
            there, lost = cluster.key_apart_from(cluster.key_on(dead)), cluster.key_on(dead)
            producer, fleet = LoadBalancerStream(redis, service), Fleet(redis, service)
            for stream in (there, lost):
                await producer.write(stream, {"n": 1})
            assert [status.entries for status in (await listed(fleet)).values()] == [1, 1]
            dead.kill()
            found = await listed(fleet)
            assert (found[there].entries, found[there].unread) == (1, None)
            assert (found[lost].entries, found[lost].behind) == (None, None)
            assert found[lost].unread
            lag = await fleet.lag()
            assert (lag.entries, lag.more, lag.unread) == (1, True, 1)
            assert (await fleet.status()).waiting == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"owner": b"a"}, TypeError),
        ({"owner": ""}, ValueError),
        ({"behind": "10"}, TypeError),
        ({"behind": True}, TypeError),
        ({"behind": -1}, ValueError),
        ({"behind": float("nan")}, ValueError),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], service: str) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        Fleet(Redis(), service).streams(**arguments)


async def test_names_of_streams(fleet: Fleet) -> None:
    with pytest.raises(ValueError, match="stream"):
        await fleet.owner("")
    with pytest.raises(TypeError, match="stream"):
        await fleet.owner(b"call-1")  # type: ignore[arg-type]


@pytest.mark.long
async def test_a_hundred_thousand_streams_hold_redis_up_for_some_milliseconds(
    fleet: Fleet, redis: Connection, service: str, server: Server
) -> None:
    make_members(server, service, 1_000)
    make_streams(server, service, 100_000, members=1_000)
    for n in range(0, 100_000, 1_000):  # some have much to do
        pipeline = redis.pipeline(transaction=False)
        pipeline.hset(Keys(service).progress(f"call-{n}"), "checkpoint", "1-1")
        for _ in range(150):
            pipeline.xadd(f"call-{n}", {"n": 1})
        await pipeline.execute()
    lag = await fleet.lag()
    assert (lag.streams, lag.entries, lag.more) == (100_000, 10_000, True)

    async def use() -> None:
        await fleet.status()
        await fleet.owner("call-77777")
        async for _ in fleet.streams(owner="member-7"):
            pass
        walk = fleet.streams()
        for _ in range(5_000):
            await anext(walk)

    assert await slowest_ms(server, use, limit=10) < 10
