"""The client: joining and leaving, its one iterator, claiming and finishing, and what it says of itself.

What a lease's block does is in `leases/test_lease_block.py`, how joining fails in
`consumer/test_lifecycle_errors.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import (
    AlreadyClaimed,
    ClientClosed,
    ExpiredStream,
    Lease,
    LoadBalancerStream,
    NotJoined,
    NotOwner,
    RedisStreamClient,
    StreamAdded,
    StreamDisowned,
    StreamExpired,
    StreamGone,
)
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.keys import NOBODY, Keys
from tests.harness.scenes import time_passes
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis_stream_client._leases.state import LeaseState
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

GHOST = "redis-consumer-ghost-00c0ffee"

MakeClient = Callable[..., RedisStreamClient]


class Service:
    """What is in Redis, and what others put there."""

    def __init__(self, redis: Connection, name: str) -> None:
        self.redis = redis
        self.keys = Keys(name)
        self._producer = LoadBalancerStream(redis, name)

    async def announce(self, count: int = 1) -> list[str]:
        """Announce `call-0`, `call-1`, …, whatever is outstanding."""
        streams = [(f"call-{number}", {"number": number}) for number in range(count)]
        return await self._producer.add_many(streams, again=True)

    async def orphan(self, count: int = 1, *, alive: bool = False) -> list[str]:
        """Announce, and have all of it delivered to a consumer that is dead, or was alive just now."""
        async with self.redis.pipeline(transaction=True) as at_once:  # no client gets in between
            for number in range(count):
                at_once.xadd(self.keys.lbs, {"lbs-input": f'{{"DataStreamName":"call-{number}"}}'})
            if alive:
                at_once.set(self.keys.lock(GHOST), '{"ttl": 60000}', px=60_000)
            at_once.xreadgroup(self.keys.group, GHOST, {self.keys.lbs: ">"}, count=count)
            replies = await at_once.execute()
        return [reply.decode() for reply in replies[:count]]

    async def pending(self) -> dict[str, str]:
        """The owner of everything that is pending."""
        found = await self.redis.xpending_range(self.keys.lbs, self.keys.group, "-", "+", 1000)
        return {one["message_id"].decode(): one["consumer"].decode() for one in found}

    async def left(self) -> int:
        """How many announcements are not finished."""
        return int(await self.redis.xlen(self.keys.lbs))


@pytest.fixture
def orders(redis: Connection, service: str) -> Service:
    return Service(redis, service)


@pytest.fixture
async def make_client(redis: Connection, service: str) -> AsyncIterator[MakeClient]:
    clients: list[RedisStreamClient] = []

    def make(**parameters: Any) -> RedisStreamClient:
        clients.append(RedisStreamClient(redis, service, **{"lock_ttl": 1.0, **parameters}))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def client(make_client: MakeClient) -> AsyncIterator[RedisStreamClient]:
    async with make_client() as client:
        yield client


async def added(client: RedisStreamClient, count: int = 1) -> list[Lease]:
    """The next events, all of them new streams."""
    leases = []
    for _ in range(count):
        event = await asyncio.wait_for(anext(client.events()), 10)
        assert isinstance(event, StreamAdded), event
        leases.append(event.payload)
    return leases


async def expired(client: RedisStreamClient) -> ExpiredStream:
    event = await asyncio.wait_for(anext(client.events()), 10)
    assert isinstance(event, StreamExpired), event
    return event.payload


# Joining and leaving.


async def test_a_client_is_a_member_inside_its_block_and_not_after_it(
    redis: Connection, orders: Service, make_client: MakeClient
) -> None:
    client = make_client()
    async with client as entered:
        assert entered is client
        assert client.alive
        assert await redis.exists(orders.keys.lock(client.id))
    assert not client.alive
    assert not await redis.exists(orders.keys.lock(client.id))


async def test_the_given_redis_is_only_a_source_of_settings(server: Server, service: str) -> None:
    pool = server.url + "?max_connections=1"
    client = RedisStreamClient.from_url(pool, service)
    async with client:
        assert client.alive


@pytest.mark.parametrize("how", ["normally", "by an exception", "by a cancellation", "by aclose()"])
async def test_leaving_acknowledges_nothing_and_hands_everything_to_the_peers_at_once(
    orders: Service, make_client: MakeClient, how: str
) -> None:
    async def work() -> None:
        async with make_client(lock_ttl=10.0) as leaver:
            await orders.announce(20)
            await added(leaver, 10)  # the others lie unread
            await wait_until(lambda: len(leaver.leases) == 20, "everything has arrived")
            everything_arrived.set()
            match how:
                case "normally":
                    pass
                case "by an exception":
                    raise LookupError
                case "by aclose()":
                    await leaver.aclose()
                case _:
                    await asyncio.sleep(60)

    everything_arrived = asyncio.Event()
    task = asyncio.create_task(work())
    await everything_arrived.wait()
    async with make_client(lock_ttl=10.0) as peer:
        if how != "by a cancellation":
            await asyncio.wait((task,))
        left = time.monotonic()
        task.cancel()
        offered = {(await expired(peer)).lbs_id for _ in range(20)}
        assert time.monotonic() - left < 0.5
        assert set(await orders.pending()) == offered
        assert len(offered) == await orders.left() == 20
    with contextlib.suppress(LookupError, asyncio.CancelledError):
        await task


async def test_a_client_may_be_left_from_another_task_than_the_one_that_entered(make_client: MakeClient) -> None:
    client = make_client()
    await asyncio.create_task(client.__aenter__())
    assert client.alive
    await asyncio.create_task(client.__aexit__(None, None, None))
    assert not client.alive


async def test_a_client_joins_once(make_client: MakeClient) -> None:
    client = make_client()
    async with client:
        with pytest.raises(RuntimeError, match="joined already"):
            await client.__aenter__()
        assert client.alive
    with pytest.raises(ClientClosed):
        await client.__aenter__()


async def test_closing_is_idempotent_and_concurrent_closers_wait_for_the_same_close(
    redis: Connection, orders: Service, make_client: MakeClient
) -> None:
    async with make_client() as client:
        await asyncio.gather(*(client.aclose() for _ in range(5)))
        assert not await redis.exists(orders.keys.lock(client.id))
        await client.aclose()


async def test_after_the_close_everything_says_so_and_the_iterator_has_ended(
    orders: Service, make_client: MakeClient
) -> None:
    client = make_client()
    async with client:
        await orders.announce()
        [lease] = await added(client)
    payload = ExpiredStream("call-0", "1-1", None, None, 1)
    for call in (lambda: client.claim(payload), lambda: client.done(lease), client.done):
        with pytest.raises(ClientClosed):
            await call()
    with pytest.raises(NotOwner) as caught:
        await lease.done()
    assert caught.value.reason == "closed"
    assert [event async for event in client.events()] == []
    assert not client.leases


async def test_a_client_that_was_closed_before_it_joined_does_not_join(make_client: MakeClient) -> None:
    client = make_client()
    await client.aclose()
    with pytest.raises(ClientClosed):
        await client.__aenter__()
    with pytest.raises(ClientClosed):
        await anext(client.events())


async def test_before_joining_calls_say_that_they_need_it(make_client: MakeClient) -> None:
    client = make_client()
    for call in (client.done, lambda: client.claim(ExpiredStream("call-0", "1-1", None, None, 1))):
        with pytest.raises(NotJoined, match="async with"):
            await call()


async def test_the_users_exception_leaves_the_block_as_it_is(make_client: MakeClient) -> None:
    error = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        async with make_client():
            raise error
    assert caught.value is error


async def test_a_client_that_was_never_closed_warns_and_leaves(
    redis: Connection, orders: Service, service: str
) -> None:
    client = RedisStreamClient(redis, service, lock_ttl=60.0)
    await client.__aenter__()
    lock = orders.keys.lock(client.id)
    del client
    with pytest.warns(ResourceWarning, match=r"unclosed <RedisStreamClient .*aclose"):
        gc.collect()

    async def gone() -> bool:
        return not await redis.exists(lock)

    await wait_until(gone, "the lock is given up")
    await wait_until(lambda: len(asyncio.all_tasks()) == 1, "its tasks have ended")


# The iterator.


async def test_there_is_one_iterator_and_leaving_it_loses_nothing(
    orders: Service, client: RedisStreamClient
) -> None:
    await orders.announce(5)
    seen = []
    for _ in range(5):
        async for event in client.events():
            seen.append(event.payload.stream)
            break
    assert sorted(seen) == [f"call-{number}" for number in range(5)]


async def test_a_cancelled_step_of_the_iterator_loses_no_event(orders: Service, client: RedisStreamClient) -> None:
    seen: list[str] = []
    steps = 0
    producer = asyncio.create_task(slowly(orders, 60))
    while len(seen) < 60:
        steps += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.0005 * (steps % 5)):
                event = await anext(client.events())
                assert isinstance(event, StreamAdded)
                seen.append(event.payload.lbs_id)
    assert steps > 60, "some were cancelled"
    assert sorted(seen) == sorted(await producer)


async def slowly(orders: Service, count: int) -> list[str]:
    lbs_ids = []
    for _ in range(count):
        lbs_ids += await orders.announce()
        await asyncio.sleep(0.002)
    return lbs_ids


async def test_a_second_reader_is_refused_and_the_first_goes_on(
    orders: Service, client: RedisStreamClient
) -> None:
    first = asyncio.create_task(added(client))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        await anext(client.events())
    await orders.announce()
    assert [lease.stream for lease in await first] == ["call-0"]


@pytest.mark.parametrize("how", ["done", "aclose"])
async def test_the_iterator_without_a_block_joins_and_done_or_aclose_ends_it(
    orders: Service, make_client: MakeClient, how: str
) -> None:
    await orders.announce()
    client = make_client()
    assert not client.alive
    async for event in client.events():
        assert isinstance(event, StreamAdded)
        assert client.alive
        await getattr(client, how)()
    assert not client.alive
    assert await orders.left() == (0 if how == "done" else 1)


async def test_a_cancelled_first_step_does_not_lose_the_membership(
    orders: Service, make_client: MakeClient
) -> None:
    await orders.announce()
    client = make_client()
    first = asyncio.create_task(added(client))
    for _ in range(3):
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait((first,))
    assert first.cancelled()
    assert [lease.stream for lease in await added(client)] == ["call-0"]


async def test_a_waiting_reader_ends_when_the_client_is_closed(client: RedisStreamClient) -> None:
    reader = asyncio.create_task(anext(client.events(), "the end"))
    await asyncio.sleep(0)
    await client.aclose()
    assert await reader == "the end"


# Finishing.


async def test_done_with_a_lease_acknowledges_and_deletes_it(orders: Service, client: RedisStreamClient) -> None:
    await orders.announce(2)
    first, second = await added(client, 2)
    await client.done(first)
    assert not first.owned
    assert await orders.pending() == {second.lbs_id: client.id}
    assert await orders.left() == 1
    with pytest.raises(NotOwner):
        await client.done(first)


async def test_done_without_a_lease_finishes_what_was_handed_out_and_releases_the_rest(
    orders: Service, client: RedisStreamClient
) -> None:
    lbs_ids = await orders.announce(10)
    handed_out = {lease.lbs_id for lease in await added(client, 4)}
    await wait_until(lambda: len(client.leases) == 10, "everything has arrived")
    await client.done()
    assert set(await orders.pending()) == set(lbs_ids) - handed_out
    assert await orders.left() == 6
    assert not client.alive
    assert [event async for event in client.events()] == []


async def test_done_without_a_lease_passes_over_what_was_lost(orders: Service, client: RedisStreamClient) -> None:
    await orders.announce(2)
    lost, kept = await added(client, 2)
    await orders.redis.xclaim(orders.keys.lbs, orders.keys.group, GHOST, 0, [lost.lbs_id])
    await client.done()
    assert await orders.pending() == {lost.lbs_id: GHOST}
    assert kept.lbs_id not in await orders.pending()


@pytest.mark.parametrize(
    ("payload", "hint"),
    [
        (None, "call done\\(\\) without an argument"),
        ("call-0", "not str"),
        (ExpiredStream("call-0", "1-1", None, None, 1), "claim the stream first"),
        (StreamExpired(ExpiredStream("call-0", "1-1", None, None, 1)), "claim the stream first"),
    ],
    ids=["None", "str", "expired stream", "event"],
)
async def test_done_takes_a_lease_and_nothing_else(client: RedisStreamClient, payload: Any, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        await client.done(payload)
    assert client.alive


async def test_done_and_claim_say_when_they_get_the_event_instead_of_its_payload(
    orders: Service, client: RedisStreamClient
) -> None:
    await orders.announce()
    [lease] = await added(client)
    with pytest.raises(TypeError, match=r"event\.payload"):
        await client.done(StreamAdded(lease))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(TypeError, match=r"event\.payload"):
        await client.claim(StreamExpired(ExpiredStream("x", "1-1", None, None, 1)))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert lease.owned


async def test_another_clients_lease_is_a_value_error(
    orders: Service, client: RedisStreamClient, make_client: MakeClient
) -> None:
    await orders.announce()
    [lease] = await added(client)
    async with make_client() as other:
        with pytest.raises(ValueError, match="another client"):
            await other.done(lease)
    assert lease.owned


# Claiming.


async def test_a_dead_consumers_stream_is_offered_and_claimed(orders: Service, client: RedisStreamClient) -> None:
    [lbs_id] = await orders.orphan()
    payload = await expired(client)
    assert payload == ExpiredStream("call-0", lbs_id, None, GHOST, 1)
    lease = await client.claim(payload)
    assert (lease.stream, lease.lbs_id, lease.deliveries) == ("call-0", lbs_id, 2)
    assert lease.owned
    assert client.leases == {lbs_id: lease}
    assert await orders.pending() == {lbs_id: client.id}


async def test_a_released_stream_is_offered_to_the_peers_without_a_previous_owner(
    orders: Service, client: RedisStreamClient, make_client: MakeClient
) -> None:
    await orders.announce()
    [lease] = await added(client)
    async with make_client() as peer:
        await lease.release()
        payload = await expired(peer)
        assert (payload.stream, payload.info, payload.previous_owner) == ("call-0", {"number": 0}, None)
        assert (await peer.claim(payload)).fence > lease.fence


@pytest.mark.parametrize(
    "why", ["a peer was first", "its owner is back", "I have it", "it is finished", "it is trimmed"]
)
async def test_a_claim_that_comes_too_late_says_why(orders: Service, client: RedisStreamClient, why: str) -> None:
    redis, keys = orders.redis, orders.keys
    [lbs_id] = await orders.orphan()
    payload = await expired(client)
    owner: str | None = "peer"
    error: type[AlreadyClaimed | StreamGone] = AlreadyClaimed
    match why:
        case "a peer was first":
            await redis.set(keys.lock("peer"), "{}")
            await redis.xclaim(keys.lbs, keys.group, "peer", 0, [lbs_id])
        case "its owner is back":
            await redis.set(keys.lock(GHOST), "{}")
            owner = GHOST
        case "I have it":
            await client.claim(payload)
            owner = client.id
        case "it is finished":
            await redis.xack(keys.lbs, keys.group, lbs_id)
            error, owner = StreamGone, None
        case _:
            await redis.xdel(keys.lbs, lbs_id)
            error, owner = StreamGone, None
    with pytest.raises(error) as caught:
        await client.claim(payload)
    assert (caught.value.stream, caught.value.lbs_id, caught.value.owner) == ("call-0", lbs_id, owner)
    assert client.alive


async def test_a_stream_that_changed_its_dead_owner_is_claimed_all_the_same(
    orders: Service, client: RedisStreamClient
) -> None:
    [lbs_id] = await orders.orphan()
    payload = await expired(client)
    await orders.redis.xclaim(orders.keys.lbs, orders.keys.group, NOBODY, 0, [lbs_id])
    assert (await client.claim(payload)).deliveries == 3


@pytest.mark.parametrize("payload", [None, "call-0", 17])
async def test_claim_takes_an_expired_stream_and_nothing_else(client: RedisStreamClient, payload: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(payload).__name__}"):
        await client.claim(payload)


async def test_a_claim_whose_caller_is_cancelled_leaves_no_stream_behind(
    orders: Service, client: RedisStreamClient
) -> None:
    [lbs_id] = await orders.orphan()
    claim = asyncio.create_task(client.claim(await expired(client)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    claim.cancel()
    await asyncio.wait((claim,))

    async def not_mine() -> bool:
        return (await orders.pending())[lbs_id] == NOBODY and not client.leases

    await wait_until(not_mine, "it is released")


async def test_a_claimed_stream_that_is_lost_before_its_claimer_wakes_is_told_all_the_same(
    orders: Service, client: RedisStreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await orders.orphan()
    payload = await expired(client)
    won = LeaseTable.add

    def won_and_lost(table: LeaseTable, lease: LeaseState) -> None:
        won(table, lease)
        asyncio.get_running_loop().call_soon(table.lose, lease, "claimed")

    monkeypatch.setattr(LeaseTable, "add", won_and_lost)
    lease = await client.claim(payload)
    assert not lease.owned
    assert await asyncio.wait_for(anext(client.events()), 1) == StreamDisowned(lease, "claimed")


# Limits.


@pytest.mark.parametrize(
    ("limits", "most"), [({"max_streams": 3}, 3), ({"prefetch": 5}, 5), ({"max_streams": 4, "prefetch": 9}, 4)]
)
async def test_no_more_is_taken_from_the_peers_than_there_is_room_for(
    orders: Service, make_client: MakeClient, limits: dict[str, int], most: int
) -> None:
    await orders.announce(20)
    async with make_client(**limits) as client:
        await wait_until(lambda: len(client.leases) == most, "it is full")
        await time_passes(0.5, client)
        assert len(await orders.pending()) == len(client.leases) == most
        leases = await added(client, most)
        await asyncio.gather(*map(client.done, leases))
        await wait_until(lambda: len(client.leases) == most, "there was room for as many again")
        assert len(await orders.pending()) == most


# What it says of itself.


async def test_a_client_says_who_and_how_it_is(orders: Service, make_client: MakeClient) -> None:
    client = make_client(consumer_name="worker-7")
    assert re.fullmatch(r"redis-consumer-worker-7-[0-9a-f]{8}", client.id)
    assert "not joined" in repr(client)
    async with client:
        await orders.announce(3)
        leases = await added(client, 3)
        for part in (orders.keys.service, client.id, "3 leases", "held"):
            assert part in repr(client)
        await client.done(leases[0])
        await leases[1].release()
        await wait_until(lambda: client.statistics().beats, "a beat")
        now = client.statistics()
        assert (now.leases, now.streams_added, now.streams_done, now.streams_released) == (1, 3, 1, 1)
        assert (now.unread_events, now.lapses, now.reconnects, now.live_members) == (0, 0, 0, 1)
        assert now.last_beat_age is not None
        assert 0 <= now.last_beat_age < 10
        with pytest.raises(AttributeError):
            now.leases = 7  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert "closed" in repr(client)
    assert client.statistics().leases == 0


async def test_statistics_can_be_had_before_joining(make_client: MakeClient) -> None:
    now = make_client().statistics()
    assert (now.leases, now.unread_events, now.beats, now.last_beat_age) == (0, 0, 0, None)


async def test_the_leases_can_be_looked_at_but_not_changed(orders: Service, client: RedisStreamClient) -> None:
    await orders.announce()
    [lease] = await added(client)
    leases: Any = client.leases
    assert dict(leases) == {lease.lbs_id: lease}
    for method in ("clear", "pop", "popitem", "update", "setdefault"):
        assert not hasattr(leases, method)
    with pytest.raises(TypeError):
        leases[lease.lbs_id] = None
    with pytest.raises(TypeError):
        del leases[lease.lbs_id]


async def test_events_match_by_position(orders: Service, client: RedisStreamClient) -> None:
    await orders.announce()
    match await anext(client.events()):
        case StreamAdded(lease):
            assert lease.stream == "call-0"
        case StreamExpired(_) | StreamDisowned(_):
            pytest.fail("it was added")
