"""What an operator orders: a member evicted, a stream released."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from redis_stream_client import (
    Fleet,
    Lease,
    LoadBalancerStream,
    NotInTime,
    Release,
    StreamDisowned,
    StreamGone,
    StreamWanted,
    UnknownConsumer,
)
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol.hints import Give, encode
from tests.harness.fleet import Member
from tests.harness.runs import Ledger, Running, add, at_the_end, owners
from tests.harness.scenes import die_with
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.workers import Worker


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
    async with Member(redis, service) as member:
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
    async with Running(redis, service, handle) as one, Running(redis, service, handle) as other:
        for evictions in range(8):
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
    async with Running(redis, service, lock_ttl=0.6) as run:
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
    async with Running(redis, service, handle) as one, at_the_end(done.set):
        await one.lease("call-1")
        async with Running(redis, service, handle) as other:
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
    async with Running(redis, service) as run, Running(redis, service, rebalance=None):
        await add(redis, service, ["call-1", "call-2"])
        await wait_until(lambda: run.working, "it has one")
        lease = await run.lease(run.working[0])
        lease.pin()
        with pytest.raises(NotInTime):
            await fleet.release(lease.stream, timeout=0.2)
        lease.pin(pinned=False)
        assert (await fleet.release(lease.stream)).outcome == "given"


async def test_a_reader_of_events_is_asked_if_it_takes_part(fleet: Fleet, redis: Connection, service: str) -> None:
    async with Member(redis, service) as member:
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
    async with Member(redis, service) as member:
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
    async with Running(redis, service, lock_ttl=0.6) as run:
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
