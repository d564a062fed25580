"""What an operator orders: the fleet paused, a member drained or evicted, a stream released."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis, RedisCluster

from redis_stream_client import (
    Fleet,
    Lease,
    LoadBalancerStream,
    NotInTime,
    Pause,
    Rebalance,
    RedisRejected,
    RedisUnavailable,
    Release,
    StreamDisowned,
    StreamGone,
    StreamWanted,
    UnknownConsumer,
)
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.hints import Give, Ordered, encode
from tests.harness.connection import lent_by
from tests.harness.fleet import Member
from tests.harness.ports import HOST, free_port
from tests.harness.runs import Ledger, Running, RunningFleet, RunWorker, add, at_the_end, owners, shared_out
from tests.harness.scenes import die_with, time_passes
from tests.harness.servers import Server
from tests.harness.suspensions import EVERY_WHEN, Strikes, When
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.workers import Worker


FAST: dict[str, Any] = {"lock_ttl": 0.6}


@pytest.fixture
def fleet(redis: Connection, service: str) -> Fleet:
    return Fleet(redis, service)


# Evicting.


async def test_a_frozen_member_is_evicted_while_its_lock_lives_and_its_peer_has_all_at_once(
    fleet: Fleet, redis: Connection, service: str, start_worker: Callable[..., Awaitable[Worker]]
) -> None:
    worker = await start_worker(claim=False, lock_ttl=60.0, presence=False, prefetch=300)
    await worker.wait_for_event(lambda event: event.event == "joined")
    await add(redis, service, [f"call-{n}" for n in range(300)])
    await wait_until(lambda: owns(redis, service, 300), "it has them")
    worker.freeze()
    async with Running(redis, service, lock_ttl=60.0, rebalance=None) as peer:
        assert await fleet.evict(worker.client) == 300
        assert not await redis.exists(Keys(service).lock(worker.client))
        await wait_until(lambda: len(peer.working) == 300, "the peer has all")
        assert await fleet.evict(worker.client) == 0, "again, because the reply was lost"
        worker.thaw()
        for _ in range(300):
            await worker.wait_for_event(lambda event: event.event == "disowned")
        await wait_until(lambda: lives(fleet, worker.client), "it has joined again")
        assert len(peer.working) == 300


async def owns(redis: Connection, service: str, streams: int) -> bool:
    return len(await owners(redis, service)) == streams


async def lives(fleet: Fleet, consumer: str) -> bool:
    return any(member.id == consumer and member.alive for member in (await fleet.status()).members)


async def test_a_live_member_learns_it_as_a_lapse_and_joins_again(
    fleet: Fleet, redis: Connection, service: str
) -> None:
    async with Member(redis, service, **FAST) as member:
        await add(redis, service, ["call-1"])
        await wait_until(lambda: member.leases, "it has the stream")
        assert await fleet.evict(member.client.id) == 1
        await wait_until(lambda: member.client.statistics().lapses == 1, "it knows")
        await wait_until(
            lambda: any(isinstance(event, StreamDisowned) for event in member.events), "it has lost the stream"
        )
        await wait_until(lambda: len(member.leases) == 2, "it takes it back, since there is nobody else")
        assert member.client.alive
        assert await lives(fleet, member.client.id)


async def test_many_evictions_in_a_row_are_no_deaths(fleet: Fleet, redis: Connection, service: str) -> None:
    async def handle(lease: Lease) -> None:
        async for _ in lease.entries():
            await asyncio.Event().wait()  # it gets nowhere

    await LoadBalancerStream(redis, service).write("call-1", {"n": 1})
    async with Running(redis, service, handle, **FAST) as one, Running(redis, service, handle, **FAST) as other:
        for evictions in range(4):
            await wait_until(
                lambda: len(one.leases) + len(other.leases) == evictions + 1,
                "somebody has it",
            )
            [owner] = [run for run in (one, other) if run.owned]
            status = await fleet.owner("call-1")
            assert status is not None
            assert status.attempts == 1
            lapses = owner.client.statistics().lapses
            await fleet.evict(owner.client.id)
            await wait_until(lambda: owner.client.statistics().lapses > lapses, "it knows")
            await wait_until(lambda: owner.client.alive, "it is back")


async def test_the_dead_and_the_unknown_are_evicted_or_not(fleet: Fleet, redis: Connection, service: str) -> None:
    with pytest.raises(UnknownConsumer, match="there is no consumer 'stranger'") as told:
        await fleet.evict("stranger")
    assert told.value.owner == "stranger"
    async with Member(redis, service, claim=False):
        ghost = await die_with(redis, service, "call-1", lock_ttl=0.01)
        await wait_until(lambda: gone(redis, Keys(service).lock(ghost)), "it is dead")
        assert await fleet.evict(ghost) == 0
        assert set((await owners(redis, service)).values()) == {ghost}, "that it has died counts"
        with pytest.raises(UnknownConsumer):
            await fleet.evict("stranger")


async def gone(redis: Connection, key: str) -> bool:
    return not await redis.exists(key)


# Releasing.


async def test_a_stream_is_given_at_a_checkpoint_and_a_peer_has_it(
    fleet: Fleet, redis: Connection, service: str
) -> None:
    ledger = Ledger()
    async with Running(redis, service, ledger.follow, rebalance=None) as one:
        lbs_id = await LoadBalancerStream(redis, service).add("call-1")
        entry = (await redis.xadd("call-1", {"n": 1})).decode()
        await ledger.reached({"call-1": 1})
        async with Running(redis, service, ledger.follow, rebalance=None) as other:
            given = await fleet.release("call-1")
            assert given == Release("call-1", lbs_id, "given", one.client.id, given.owner)
            assert given.owner in (None, other.client.id)
            await other.handles("call-1")
            await redis.xadd("call-1", {"n": 2})
            await ledger.reached({"call-1": 2})
            assert ledger.handed["call-1"][0] == entry
            assert len(ledger.handed["call-1"]) == 2, "none comes twice"
            assert (await other.lease("call-1")).attempts <= 1
            assert one.client.alive


async def test_a_lone_member_takes_it_back(fleet: Fleet, redis: Connection, service: str) -> None:
    async with Running(redis, service, **FAST) as run:
        await add(redis, service, ["call-1"])
        await run.handles("call-1")
        assert (await fleet.release("call-1")).outcome == "given"
        await run.lease("call-1", nth=2)


async def test_one_that_comes_to_no_checkpoint_keeps_it_unless_forced(
    fleet: Fleet, redis: Connection, service: str
) -> None:
    done = asyncio.Event()

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            await done.wait()
            await lease.checkpoint(entry.id)

    await LoadBalancerStream(redis, service).write("call-1", {"n": 1})
    async with Running(redis, service, handle, **FAST) as one, at_the_end(done.set):
        await one.lease("call-1")
        async with Running(redis, service, handle, **FAST) as other:
            with pytest.raises(NotInTime, match="has not given 'call-1' back within") as told:
                await fleet.release("call-1", timeout=0.2)
            assert told.value.owner == one.client.id
            assert one.owned == ["call-1"]
            forced = await fleet.release("call-1", timeout=0.0, force=True)
            assert (forced.outcome, forced.previous) == ("forced", one.client.id)
            lease = await other.lease("call-1")
            await wait_until(lambda: not one.working, "the one before has noticed")
            assert (lease.deliveries, lease.attempts) == (2, 1), "nobody has died"


async def test_a_pinned_stream_stays_until_it_is_not(fleet: Fleet, redis: Connection, service: str) -> None:
    async with Running(redis, service, **FAST) as run, Running(redis, service, rebalance=None, **FAST):
        await add(redis, service, ["call-1", "call-2"])
        await wait_until(lambda: run.working, "it has one")
        lease = await run.lease(run.working[0])
        lease.pin()
        with pytest.raises(NotInTime):
            await fleet.release(lease.stream, timeout=0.2)
        lease.pin(pinned=False)
        assert (await fleet.release(lease.stream)).outcome == "given"


async def test_a_reader_of_events_is_asked_if_it_takes_part(fleet: Fleet, redis: Connection, service: str) -> None:
    async with Member(redis, service, **FAST) as member:
        await add(redis, service, ["call-1"])
        await wait_until(lambda: member.leases, "it has the stream")
        with pytest.raises(NotInTime):
            await fleet.release("call-1", timeout=0.2)
        assert not [event for event in member.events if isinstance(event, StreamWanted)]
        member.client.events(rebalance=True)
        await add(redis, service, ["call-2"])  # so that it reads on
        releasing = asyncio.create_task(fleet.release("call-1"))
        wanted = await wait_until(
            lambda: next((event for event in member.events if isinstance(event, StreamWanted)), None),
            "it is asked",
        )
        assert wanted is not None
        await wanted.payload.release()
        assert (await releasing).outcome == "given"


async def test_one_that_fails_again_and_again_is_given_too(fleet: Fleet, redis: Connection, service: str) -> None:
    async def fail(lease: Lease) -> None:
        raise KeyError(lease.stream)

    async with Running(redis, service, fail) as run:
        await add(redis, service, ["call-1"])
        await wait_until(lambda: run.client.statistics().handlers_failed, "it has failed")
        assert (await fleet.release("call-1", timeout=5)).outcome in ("given", "unowned")


async def test_what_nobody_owns_or_nobody_has_announced(fleet: Fleet, redis: Connection, service: str) -> None:
    with pytest.raises(StreamGone, match="'call-1' is not announced"):
        await fleet.release("call-1")
    lbs_id = await LoadBalancerStream(redis, service).add("call-1")
    assert await fleet.release("call-1") == Release("call-1", lbs_id, "unowned", None, None)
    async with Member(redis, service, claim=False, lock_ttl=30.0) as member:
        await wait_until(lambda: member.leases, "it has the stream")
        await member.leases[0].release()
        assert (await fleet.release("call-1", force=True)).outcome == "unowned"


async def test_one_that_is_finished_meanwhile_has_ended(fleet: Fleet, redis: Connection, service: str) -> None:
    async with Member(redis, service, **FAST) as member:
        await add(redis, service, ["call-1"])
        await wait_until(lambda: member.leases, "it has the stream")
        async with redis.pubsub() as channel:
            await channel.subscribe(Keys(service).control)
            releasing = asyncio.create_task(fleet.release("call-1"))
            await wait_until(lambda: said(channel, b"give"), "its owner is asked")
        await member.leases[0].done()
        outcome = await releasing
        assert (outcome.outcome, outcome.previous, outcome.owner) == ("ended", member.client.id, None)


async def said(channel: Any, word: bytes) -> bool:
    message = await channel.get_message(timeout=0.1)
    return message is not None and isinstance(message["data"], bytes) and message["data"].startswith(word)


async def test_forged_and_repeated_questions_move_nothing_but_what_they_name(
    redis: Connection, service: str
) -> None:
    async with Running(redis, service, **FAST) as run:
        [lbs_id] = await add(redis, service, ["call-1"])
        await run.handles("call-1")
        me, control = run.client.id, Keys(service).control
        for forged in (Give(me, lbs_id, 7), Give(me, "1-1", 1), Give("stranger", lbs_id, 1)):
            await redis.publish(control, encode(forged))
        for _ in range(20):
            await redis.publish(control, encode(Give(me, lbs_id, 1)))
        await run.lease("call-1", nth=2)
        for _ in range(20):  # these come late: the stream has had another owner since
            await redis.publish(control, encode(Give(me, lbs_id, 1)))
        await add(redis, service, ["call-2"])
        await run.handles("call-1", "call-2")
        assert len(run.leases) == 3


# Pausing.


async def test_in_a_pause_new_streams_wait_and_what_is_owned_goes_on(
    fleet: Fleet,
    redis: Connection,
    service: str,
    start_worker: Callable[..., Awaitable[RunWorker]],
) -> None:
    """Even if its owner is killed."""
    worker = await start_worker(RunWorker, **FAST)
    await add(redis, service, ["call-1"])
    await worker.wait_for_event(lambda event: event.event == "handling")
    async with Running(redis, service, **FAST) as run:
        assert await fleet.pause("a migration") == ()
        status = await fleet.status()
        assert status.paused is not None
        assert status.paused.reason == "a migration"
        assert [member.paused for member in status.members if member.alive] == [True, True]
        assert run.client.statistics().paused == run.client.health().paused == status.paused
        lbs_ids = await add(redis, service, [f"new-{n}" for n in range(3)])
        worker.kill()
        await run.handles("call-1")
        assert not set(lbs_ids) & (await owners(redis, service)).keys()
        assert (await fleet.status()).waiting == 3
        assert await fleet.resume() == status.paused
        await run.handles("call-1", "new-0", "new-1", "new-2")
        assert (await fleet.status()).paused is None
        assert run.client.statistics().paused is None
        assert await fleet.resume() is None


async def test_who_joins_in_a_pause_takes_nothing_and_the_newest_reason_counts(
    fleet: Fleet, redis: Connection, service: str
) -> None:
    await add(redis, service, ["call-1"])
    assert await fleet.pause("first") == ()
    async with Member(redis, service, **FAST) as member:
        await wait_until(lambda: member.client.statistics().paused, "it knows")
        began = member.client.statistics().paused
        assert await fleet.pause("second") == ()
        await wait_until(lambda: member.client.statistics().paused != began, "it knows the other reason")
        assert member.client.statistics().paused == (await fleet.status()).paused
        assert not member.leases
        assert member.client.health().ok
        await fleet.resume()
        await wait_until(lambda: member.leases, "it has the stream")


async def test_a_pause_is_obeyed_without_any_hint(fleet: Fleet, redis: Connection, service: str) -> None:
    async with Member(redis, service, **FAST) as member:
        await wait_until(lambda: member.client.statistics().beats, "it is there")
        await redis.set(Keys(service).paused, '{"since": 1700000000000, "reason": "by hand"}')
        await wait_until(lambda: member.client.statistics().paused == Pause("by hand", 1.7e9), "it knows")
        await wait_until(lambda: confirmed(fleet), "it has said so")
        await redis.delete(Keys(service).paused)
        await add(redis, service, ["call-1"])
        await wait_until(lambda: member.leases, "it has the stream")


async def confirmed(fleet: Fleet) -> bool:
    return all(member.paused for member in (await fleet.status()).members)


async def test_a_forged_or_repeated_hint_pauses_nobody(redis: Connection, service: str) -> None:
    async with Member(redis, service, **FAST) as member:
        for _ in range(200):
            await redis.publish(Keys(service).control, encode(Ordered()))
        await add(redis, service, ["call-1"])
        await wait_until(lambda: member.leases, "it has the stream")
        assert member.client.statistics().paused is None


async def test_one_that_does_not_answer_is_named(
    fleet: Fleet, redis: Connection, service: str, start_worker: Callable[..., Awaitable[Worker]]
) -> None:
    worker = await start_worker(lock_ttl=60.0, presence=False)
    await worker.wait_for_event(lambda event: event.event == "joined")
    async with Member(redis, service, **FAST) as member:
        worker.freeze()
        assert await fleet.pause("a migration", timeout=0.8) == (worker.client,)
        await wait_until(lambda: member.client.statistics().paused, "the other one knows")
        await fleet.resume()
        assert set(await fleet.pause("again", timeout=0)) == {worker.client, member.client.id}


async def test_one_that_has_lost_its_lock_and_does_not_know_it_is_waited_for(
    fleet: Fleet, redis: Connection, service: str
) -> None:
    async with Member(redis, service, lock_ttl=30.0) as member:
        for _ in range(10):
            await wait_until(lambda: reads(redis), "it waits for announcements")
            await redis.delete(Keys(service).lock(member.client.id))
            assert await fleet.pause("a migration") == ()
            assert member.client.statistics().paused
            await fleet.resume()
            await wait_until(lambda: not member.client.statistics().paused, "it is over")


async def test_one_that_has_its_lock_back_hears_of_a_pause_without_any_hint(
    fleet: Fleet, redis: Connection, service: str
) -> None:
    """It sweeps nothing then, and its heartbeat comes every 20 s."""
    async with Member(redis, service, lock_ttl=60.0) as member:
        await fleet.evict(member.client.id)
        await wait_until(lambda: member.client.statistics().lapses and member.client.alive, "it is back")
        await redis.set(Keys(service).paused, '{"since": 1700000000000, "reason": "by hand"}')
        await wait_until(lambda: member.client.statistics().paused, "it knows", timeout=6.0)
        await wait_until(lambda: confirmed(fleet), "it has said so", timeout=6.0)


async def reads(redis: Connection) -> bool:
    return any(client["cmd"] == "xreadgroup" and "b" in client["flags"] for client in await redis.client_list())


async def test_one_that_is_evicted_while_it_hangs_gets_nothing_new_from_a_read_of_before(
    fleet: Fleet, redis: Connection, service: str, start_worker: Callable[..., Awaitable[Worker]]
) -> None:
    worker = await start_worker(lock_ttl=60.0, presence=False)
    await worker.joined()
    await wait_until(lambda: reads(redis), "it waits for announcements")
    worker.freeze()
    await fleet.evict(worker.client)
    assert await fleet.pause("a migration") == ()
    await add(redis, service, ["call-1"])
    assert not await owners(redis, service)


async def test_a_pause_lives_as_long_as_redis_keeps_its_data(service: str) -> None:
    with Server() as server:
        async with Redis.from_url(server.url) as redis, Member(server.url, service, **FAST) as member:
            fleet = Fleet(redis, service)
            assert await fleet.pause("a migration") == ()
            pause = (await fleet.status()).paused
            await asyncio.to_thread(server.restart, keep_data=True)
            await add(redis, service, ["call-1"])
            await wait_until(lambda: lives(fleet, member.client.id), "it is back")
            await wait_until(lambda: confirmed(fleet), "it says so again")
            assert (await fleet.status()).paused == member.client.statistics().paused == pause
            assert not member.leases
            server.command("FLUSHALL")
            await wait_until(lambda: member.client.statistics().paused is None, "it is over")
            await add(redis, service, ["call-2"])
            await wait_until(lambda: member.leases, "it has the stream")


async def test_two_operators_at_once(redis: Connection, service: str) -> None:
    fleets = [Fleet(redis, service) for _ in range(2)]
    async with Member(redis, service, **FAST) as member:
        assert await asyncio.gather(*(fleet.pause(f"{n}") for n, fleet in enumerate(fleets))) == [(), ()]
        ended = await asyncio.gather(*(fleet.resume() for fleet in fleets))
        assert sum(pause is not None for pause in ended) == 1
        await wait_until(lambda: member.client.statistics().paused is None, "it is over")
        await add(redis, service, ["call-1"])
        await wait_until(lambda: member.leases, "it has the stream")
        answers = await asyncio.gather(
            *(fleet.release("call-1", timeout=0, force=True) for fleet in fleets), return_exceptions=True
        )
        assert {getattr(answer, "outcome", answer) for answer in answers} <= {"forced", "given", "unowned"}
        released = await asyncio.gather(*(fleet.evict(member.client.id) for fleet in fleets))
        assert sum(released) <= 1
        await asyncio.gather(*(fleet.drain(member.client.id, timeout=0) for fleet in fleets))


async def test_rebalancing_rests(redis: Connection, service: str, server: Server) -> None:
    async with RunningFleet(server, service, rebalance=Rebalance(settle=0.1), **FAST) as fleet:
        [one] = await fleet.join()
        await shared_out(redis, service, [one], [f"call-{n}" for n in range(8)])
        operator = Fleet(redis, service)
        assert await operator.pause("a migration") == ()
        [other] = await fleet.join()
        await wait_until(lambda: one.client.statistics().live_members == 2, "they know each other")
        await time_passes(0.4, one.client, other.client)
        assert fleet.total("rebalance_asks") == 0
        await operator.resume()
        await fleet.even(8)


# Draining.


async def test_a_member_drains_and_has_left(fleet: Fleet, redis: Connection, service: str) -> None:
    ledger = Ledger()
    async with Running(redis, service, ledger.follow, **FAST) as one:
        await LoadBalancerStream(redis, service).write("call-1", {"n": 1})
        await ledger.reached({"call-1": 1})
        async with Running(redis, service, ledger.follow, **FAST) as other:
            await fleet.drain(one.client.id)
            await wait_until(one.task.done, "run() has returned")
            await other.handles("call-1")
            assert ledger.handed["call-1"] == ledger.accepted["call-1"]
            assert len(ledger.handed["call-1"]) == 1, "nothing comes twice"
            await fleet.drain(one.client.id)
        assert not await redis.exists(Keys(service).lock(one.client.id))


async def test_the_order_alone_is_enough_and_who_drains_is_seen(
    fleet: Fleet, redis: Connection, service: str
) -> None:
    done = asyncio.Event()

    async def handle(lease: Lease) -> None:
        await done.wait()

    async with Running(redis, service, handle, drain_timeout=60.0) as run, at_the_end(done.set):
        await add(redis, service, ["call-1"])
        await run.lease("call-1")
        order = b', "drain": 1}'
        lock = Keys(service).lock(run.client.id)
        value = await redis.get(lock)
        assert value is not None
        await redis.set(lock, value[:-1] + order, keepttl=True)
        await wait_until(lambda: drains(fleet, run.client.id), "it is seen")
        with pytest.raises(NotInTime, match="it is still to drain") as told:
            await fleet.drain(run.client.id, timeout=0.1)
        assert told.value.owner == run.client.id
        await wait_until(lambda: says(redis, lock, "draining"), "it says so itself")
        assert (await redis.get(lock)).endswith(order)
        done.set()
        await wait_until(run.task.done, "it has left")


async def drains(fleet: Fleet, consumer: str) -> bool:
    return any(member.id == consumer and member.draining for member in (await fleet.status()).members)


async def says(redis: Connection, lock: str, word: str) -> bool:
    return f'"{word}"'.encode() in (await redis.get(lock) or b"")


async def test_one_that_drains_by_itself_is_seen_too(fleet: Fleet, redis: Connection, service: str) -> None:
    done = asyncio.Event()

    async def handle(lease: Lease) -> None:
        await done.wait()

    async with Running(redis, service, handle, drain_timeout=60.0) as run, at_the_end(done.set):
        await add(redis, service, ["call-1"])
        await run.lease("call-1")
        assert not await drains(fleet, run.client.id)
        run.client.drain()
        await wait_until(lambda: drains(fleet, run.client.id), "it is seen")


async def test_an_order_outlives_a_lapse_and_a_reader_of_events_takes_nothing_new(
    fleet: Fleet, redis: Connection, service: str
) -> None:
    async with Member(redis, service, **FAST) as member:
        await add(redis, service, ["call-1"])
        await wait_until(lambda: member.leases, "it has the stream")
        with pytest.raises(NotInTime):
            await fleet.drain(member.client.id, timeout=0.2)
        await fleet.drain(member.client.id, timeout=0)
        await wait_until(lambda: drains(fleet, member.client.id), "it is seen")
        await fleet.evict(member.client.id)
        await wait_until(lambda: drains(fleet, member.client.id), "it still drains")
        await add(redis, service, ["call-2"])
        async with Member(redis, service, **FAST) as other:
            await wait_until(lambda: {lease.stream for lease in other.leases} == {"call-1", "call-2"}, "all go on")


async def test_one_that_stands_still_until_its_lock_has_expired_drains_when_it_goes_on(
    fleet: Fleet, redis: Connection, service: str, start_worker: Callable[..., Awaitable[RunWorker]]
) -> None:
    worker = await start_worker(RunWorker, **FAST)
    await worker.joined()
    worker.freeze()
    await fleet.drain(worker.client)
    worker.thaw()
    assert await worker.exit_code() == 0
    assert worker.events[-1].event == "left"
    assert not await redis.exists(Keys(service).drain(worker.client))


async def test_who_cannot_be_drained(fleet: Fleet, redis: Connection, service: str) -> None:
    with pytest.raises(UnknownConsumer):
        await fleet.drain("stranger")
    async with Member(redis, service, **FAST) as member:
        await redis.set(Keys(service).lock("stranger"), "mine", px=60_000)
        with pytest.raises(RedisRejected, match="was not written by this library"):
            await fleet.drain("stranger")
        assert member.client.alive
    await fleet.drain(member.client.id)


# Whatever happens on the way.


async def test_who_does_not_know_pauses_is_named(fleet: Fleet, redis: Connection, service: str) -> None:
    """As a member of an older version: it reads on, and gives nothing."""
    async with Member(redis, service, lock_ttl=1.0):
        older = await die_with(redis, service, "call-1", lock_ttl=60.0)
        assert await fleet.pause("a migration", timeout=0.7) == (older,)
        with pytest.raises(NotInTime):
            await fleet.release("call-1", timeout=0.1)
        with pytest.raises(NotInTime):
            await fleet.drain(older, timeout=0.1)
        assert await fleet.evict(older) == 1


async def test_on_a_cluster(cluster: Cluster, service: str) -> None:
    async with RedisCluster.from_url(cluster.url) as redis:
        operator = Fleet(redis, service)
        one_stream, another = f"{service}-1", f"{service}-2"  # other tests write to streams of the shared cluster
        async with Running(redis, service, **FAST) as one, Running(redis, service, **FAST) as other:
            await add(redis, service, [one_stream])
            await wait_until(lambda: one.working or other.working, "somebody has it")
            assert (await operator.release(one_stream)).outcome == "given"
            await wait_until(lambda: len(one.leases) + len(other.leases) == 2, "somebody has it")
            cluster.move(Keys(service).lbs)
            assert await operator.pause("a migration", timeout=10) == ()
            [waiting] = await add(redis, service, [another])
            await wait_until(lambda: one.owned or other.owned, "somebody has it")
            owner = one if one.owned else other
            assert await operator.evict(owner.client.id) in (0, 1)  # the move may have cost it the stream just now
            await wait_until(lambda: sorted(one.working + other.working) == [one_stream], "somebody has it")
            assert (await operator.status()).waiting == 1
            assert await operator.resume() is not None
            await wait_until(lambda: waiting in {**one.client.leases, **other.client.leases}, "it goes on")
            await operator.drain(one.client.id, timeout=0)
            await wait_until(one.task.done, "it has left")
            await other.handles(one_stream, another)


ORDERS: dict[str, Callable[[Fleet, str], Awaitable[object]]] = {
    "pause": lambda fleet, ghost: fleet.pause("a migration", timeout=0),
    "resume": lambda fleet, ghost: fleet.resume(),
    "order_drain": lambda fleet, ghost: fleet.drain(ghost, timeout=0),
    "take_away": lambda fleet, ghost: fleet.release("call-1", timeout=0, force=True),
    "evict": lambda fleet, ghost: fleet.evict(ghost),
}
"""In an order in which each has something to do; and the script that does it."""


@pytest.mark.parametrize("script", ORDERS)
async def test_a_lost_reply_is_said_and_the_order_can_be_repeated(
    redis: Connection, service: str, proxy: TcpProxy, script: str
) -> None:
    await redis.xgroup_create(Keys(service).lbs, Keys(service).group, "0", mkstream=True)
    ghost = await die_with(redis, service, "call-1", lock_ttl=60.0)
    async with Redis.from_url(proxy.url) as through:
        fleet = Fleet(through, service)
        await fleet.pause("a migration", timeout=0)
        await redis.script_load(scripts.load(script).text)
        proxy.drop_replies_after(scripts.load(script).sha.encode(), connections=1, cut=True)
        with pytest.raises(RedisUnavailable) as told:
            await ORDERS[script](fleet, ghost)
        assert " may " in str(told.value.hint)
        await ORDERS[script](fleet, ghost)
    await all_has_happened(redis, service, ghost, [script])


@pytest.mark.parametrize("script", ORDERS)
async def test_what_redis_has_certainly_not_done_is_said(service: str, script: str) -> None:
    async with Redis.from_url(f"redis://{HOST}:{free_port()}") as nowhere:
        with pytest.raises(RedisUnavailable) as told:
            await ORDERS[script](Fleet(nowhere, service), "somebody")
        assert told.value.hint == "nothing was changed"


WAITED_FOR: dict[str, tuple[bytes, Callable[[Fleet, str], Awaitable[object]], str]] = {
    "pause": (b"XLEN", lambda fleet, ghost: fleet.pause("a migration"), "the fleet is paused"),
    "drain": (b"PTTL", lambda fleet, ghost: fleet.drain(ghost), "it is to drain"),
    "release": (b"PUBLISH", lambda fleet, ghost: fleet.release("call-1"), "its owner was asked"),
    "take_away": (
        b"ONE",
        lambda fleet, ghost: fleet.release("call-1", timeout=0, force=True),
        "its owner has lost it",
    ),
}
"""For each order: what looks what comes of it (``ONE``: a listing of this announcement alone), the call, and what
stands."""


@pytest.mark.parametrize("order", WAITED_FOR)
async def test_an_order_whose_outcome_cannot_be_seen_is_said_to_stand(
    redis: Connection, service: str, proxy: TcpProxy, order: str
) -> None:
    look, call, stands = WAITED_FOR[order]
    await redis.xgroup_create(Keys(service).lbs, Keys(service).group, "0", mkstream=True)
    ghost = await die_with(redis, service, "call-1", lock_ttl=60.0)
    for script in ("listing", "order_drain", "pause", "survey", "take_away"):
        await redis.script_load(scripts.load(script).text)
    [lbs_id] = await owners(redis, service)
    one = f"{lbs_id}\r\n${len(lbs_id)}\r\n{lbs_id}".encode()
    async with Redis.from_url(proxy.url) as through:
        proxy.drop_replies_after(one if look == b"ONE" else look, connections=1, cut=True)
        with pytest.raises(RedisUnavailable, match="could not see") as told:
            await call(Fleet(through, service), ghost)
        assert str(told.value.hint).startswith(stands)


async def test_what_stands_is_said_to_who_may_not_see_what_comes_of_it(server: Server, service: str) -> None:
    server.command("ACL", "SETUSER", "blind", "on", ">x", "~*", "&*", "+@all", "-xinfo")
    try:
        async with Redis.from_url(f"redis://blind:x@{HOST}:{server.port}") as blind:
            with pytest.raises(RedisRejected) as told:
                await Fleet(blind, service).pause("a migration")
        assert str(told.value.hint).startswith("the fleet is paused; call again to wait again; see ")
    finally:
        server.command("ACL", "DELUSER", "blind")


async def all_has_happened(redis: Connection, service: str, ghost: str, done: Sequence[str]) -> None:
    keys = Keys(service)
    assert await redis.exists(keys.paused) == ("resume" not in done)
    lock = await redis.get(keys.lock(ghost))
    assert (lock is None) == ("evict" in done)
    assert lock is None or (b'"drain"' in lock) == ("order_drain" in done)
    taken = not {"take_away", "evict"}.isdisjoint(done)
    assert set((await owners(redis, service)).values()) == {"nobody" if taken else ghost}
    [pending] = await redis.xpending_range(keys.lbs, keys.group, "-", "+", 10)
    assert pending["times_delivered"] == 1


@EVERY_WHEN
async def test_orders_that_are_cancelled_anywhere_can_be_repeated(
    server: Server, redis: Connection, service: str, when: When
) -> None:
    keys = Keys(service)
    struck = Strikes(server, "native", when)
    async with Redis.from_url(server.url) as asked:
        lent, fleet = lent_by(asked), Fleet(asked, service)

        async def everything() -> None:
            for order in ORDERS.values():
                await order(fleet, ghost)

        for strike in struck:
            await redis.flushall()
            await redis.xgroup_create(keys.lbs, keys.group, "0", mkstream=True)
            ghost = await die_with(redis, service, "call-1", lock_ttl=60.0)
            await strike.on(everything())
            await strike.settled()
            assert not lent
            await everything()
            await all_has_happened(redis, service, ghost, list(ORDERS))
    assert struck.points >= 10


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"timeout": True}, TypeError),
        ({"timeout": float("nan")}, ValueError),
    ],
)
async def test_wrong_timeouts(arguments: dict[str, Any], error: type[Exception], service: str) -> None:
    fleet = Fleet(Redis(), service)
    for call in (
        fleet.release("call-1", **arguments),
        fleet.drain("a", **arguments),
        fleet.pause("a", **arguments),
    ):
        with pytest.raises(error, match="timeout"):
            await call


async def test_wrong_consumers_streams_and_reasons(service: str) -> None:
    fleet = Fleet(Redis(), service)
    for call in (fleet.evict, fleet.drain):
        with pytest.raises(TypeError, match="consumer"):
            await call(None)  # type: ignore[arg-type]
        for wrong in ("", "nobody"):
            with pytest.raises(ValueError, match="consumer"):
                await call(wrong)
    with pytest.raises(ValueError, match="stream"):
        await fleet.release("")
    with pytest.raises(TypeError, match="reason"):
        await fleet.pause(1)  # type: ignore[arg-type]
    for wrong in ("", " ", "x" * 501):
        with pytest.raises(ValueError, match="reason"):
            await fleet.pause(wrong)
