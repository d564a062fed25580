"""Rebalancing for users of events: they are asked to give up streams, and may refuse."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import (
    AlreadyClaimed,
    Lease,
    LoadBalancerStream,
    Observer,
    Rebalance,
    RedisStreamClient,
    StreamAdded,
    StreamExpired,
    StreamGone,
    StreamWanted,
)
from redis_stream_client._consumer import on_their_way
from redis_stream_client._consumer.orders import Orders
from redis_stream_client._consumer.wanted_streams import WantedStreams
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._leases.trouble import Trouble
from redis_stream_client._model.statistics import Counters
from tests.harness.leases import new_lease
from tests.harness.logs import LOG, outage
from tests.harness.runs import Running
from tests.harness.waiting import meanwhile, wait_until

if TYPE_CHECKING:
    from redis_stream_client import Ending
    from redis_stream_client._leases.state import LeaseState
    from tests.harness.connection import Connection
    from tests.harness.servers import Server

SOON = Rebalance(settle=0.2)


class Scene:
    """One client's leases, all of which the user has received."""

    def __init__(self, leases: int, observation: Observation | None = None) -> None:
        self.event_queue = EventQueue(2.0, 5.0)
        self.table = LeaseTable(self.event_queue, observation)
        self.capacity = Capacity(self.table, self.event_queue, max_streams=None, prefetch=1000, at_once=1000)
        self.counters = Counters()
        self.wanted = WantedStreams(
            table=self.table,
            event_queue=self.event_queue,
            capacity=self.capacity,
            orders=Orders(LOG, outage(), 1.0),
            counters=self.counters,
        )
        self.leases = [self.receive(f"{number}-0") for number in range(leases)]

    def receive(self, lbs_id: str) -> LeaseState:
        lease = new_lease(lbs_id)
        self.table.add(lease)
        self.event_queue.added(lease)
        assert isinstance(self.event_queue.take(0.0), StreamAdded)
        return lease

    def asked(self) -> list[Lease]:
        """What the user is asked for."""
        asked = []
        while (event := self.event_queue.take(0.0)) is not None:
            assert isinstance(event, StreamWanted)
            asked.append(event.payload)
        return asked

    def release(self, lease: Lease) -> None:
        state = self.table.state_of(lease)
        assert state is not None
        self.table.part(state)
        self.capacity.freed()


async def test_the_user_is_asked_for_so_many_and_for_each_once() -> None:
    scene = Scene(5)
    assert (scene.wanted.give(2), scene.wanted.going) == (2, 2)
    assert (scene.wanted.give(9), scene.wanted.going) == (3, 5)
    assert scene.wanted.give(1) == 0
    asked = scene.asked()
    assert len(asked) == len({lease.lbs_id for lease in asked}) == 5
    scene.wanted.stop()


async def test_what_the_user_releases_is_given() -> None:
    scene = Scene(4)
    scene.wanted.give(3)
    first, second, third = scene.asked()
    scene.release(first)
    state = scene.table.state_of(second)
    assert state is not None
    scene.table.end(state, "done")
    scene.capacity.freed()
    assert scene.wanted.going == 1
    assert (scene.counters.streams_given, scene.counters.streams_going) == (1, 1)
    scene.release(third)
    assert (scene.counters.streams_given, scene.counters.streams_going) == (2, 0)


class Endings(Observer):
    """How leases have ended."""

    def __init__(self) -> None:
        self.how: list[str] = []

    def ended(self, ending: Ending) -> None:
        """It is told."""
        self.how.append(ending.how)


async def test_an_observer_knows_what_is_released_for_a_peer() -> None:
    endings = Endings()
    scene = Scene(3, Observation(endings, "me"))
    scene.wanted.give(2)
    first, second = scene.asked()
    scene.release(first)
    scene.wanted.stop()
    scene.release(second)
    assert endings.how == ["given", "released"]


async def test_nobody_is_asked_for_what_must_stay() -> None:
    scene = Scene(3)
    pinned, failing, free = scene.leases
    pinned.pinned = True
    failing.trouble = Trouble(failures=1, since=0.0)
    unread = new_lease("9-0")
    scene.table.add(unread)
    scene.event_queue.added(unread)
    assert scene.wanted.give(9) == 1
    assert isinstance(event := scene.event_queue.take(0.0), StreamWanted)
    assert event.payload is free.face
    scene.wanted.stop()


async def test_a_user_that_keeps_a_stream_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_their_way, "UNWILLING", 0.05)
    monkeypatch.setattr(on_their_way, "ALONE", 0.4)
    scene = Scene(2)
    scene.wanted.give(1)
    assert len(scene.asked()) == 1
    await wait_until(lambda: not scene.wanted.going, "its time is over")
    assert scene.wanted.give(2) == 1  # the other one
    await wait_until(lambda: not scene.wanted.going, "so is that of the other one")
    assert scene.asked() == []  # it was not read, and is withdrawn
    assert scene.wanted.give(2) == 0
    await wait_until(lambda: scene.wanted.give(1), "after a while it may be asked for again")
    scene.wanted.stop()
    assert (scene.asked(), scene.wanted.going) == ([], 0)


class User:
    """Reads events, and claims what it is offered. It releases what peers want, unless it keeps all."""

    def __init__(self, server: Server, service: str, *, keeps: bool = False, **options: Any) -> None:
        self.client = RedisStreamClient.from_url(server.url, service, lock_ttl=1.0, **options)
        self.asked: list[Lease] = []
        self._keeps = keeps

    async def read(self, *, rebalance: bool | Rebalance = SOON) -> None:
        async for event in self.client.events(rebalance=rebalance):
            match event:
                case StreamWanted(lease):
                    assert lease.owned
                    self.asked.append(lease)
                    if not self._keeps:
                        await lease.release()
                case StreamExpired(stream):
                    with contextlib.suppress(AlreadyClaimed, StreamGone):
                        await self.client.claim(stream)
                case _:
                    pass

    @property
    def has(self) -> int:
        return len(self.client.leases)


async def filled(redis: Connection, service: str, user: User, streams: int) -> None:
    await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(streams)])
    await wait_until(lambda: user.has == streams, "it has all")


async def test_a_newcomer_gets_its_share_from_users_that_agree(
    server: Server, redis: Connection, service: str
) -> None:
    old, new = User(server, service), User(server, service)
    async with old.client, meanwhile(old.read()):
        await filled(redis, service, old, 20)
        async with new.client, meanwhile(new.read()):
            await wait_until(lambda: old.has == new.has == 10, "they are even", timeout=20)
            assert len(old.asked) == 10
            assert old.client.statistics().streams_given == 10
            assert not new.asked


async def test_what_is_released_is_for_the_one_that_asked(server: Server, redis: Connection, service: str) -> None:
    """Others are offered it, too, but a little later: else each second stream would go astray."""
    users = [User(server, service) for _ in range(4)]
    *old, new = users
    async with contextlib.AsyncExitStack() as stack:

        async def join(user: User) -> None:
            await stack.enter_async_context(user.client)
            await stack.enter_async_context(meanwhile(user.read()))

        for user in old:
            await join(user)
        await wait_until(lambda: all(user.client.statistics().live_members == 3 for user in old), "they are three")
        await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(60)])
        await wait_until(lambda: sum(user.has for user in old) == 60, "they have all")
        await join(new)
        await wait_until(lambda: all(14 <= user.has <= 16 for user in users), "they are even", timeout=25)
        assert sum(len(user.asked) for user in users) <= 20  # 15 are meant


async def test_a_newcomer_in_run_gets_its_share_by_weight(server: Server, redis: Connection, service: str) -> None:
    old = User(server, service)
    new = Running(server.url, service, lock_ttl=1.0, weight=3.0, rebalance=SOON)
    async with old.client, meanwhile(old.read()):
        await filled(redis, service, old, 20)
        async with new:
            await wait_until(
                lambda: (old.has, len(new.client.leases)) == (5, 15), "they are even for their weight", timeout=20
            )


async def test_a_user_may_keep_everything(server: Server, redis: Connection, service: str) -> None:
    old, new = User(server, service, keeps=True), User(server, service)
    async with old.client, meanwhile(old.read()):
        await filled(redis, service, old, 20)
        async with new.client, meanwhile(new.read()):
            await wait_until(lambda: old.asked, "it is asked", timeout=20)
            await wait_until(lambda: new.client.statistics().rebalance_asks >= 2, "again and again", timeout=20)
            assert (old.has, new.has) == (20, 0)
            assert len({lease.lbs_id for lease in old.asked}) == len(old.asked)
            assert old.client.statistics().streams_given == 0


async def test_who_does_not_say_so_is_not_asked(server: Server, redis: Connection, service: str) -> None:
    old, new = User(server, service), User(server, service)
    async with old.client, meanwhile(old.read(rebalance=False)):
        await filled(redis, service, old, 20)
        async with new.client, meanwhile(new.read()):
            await wait_until(lambda: new.client.statistics().rebalance_asks >= 2, "asked in vain", timeout=20)
            assert not old.asked
            assert old.has == 20


async def test_run_after_events_is_not_asked_as_a_user(server: Server, redis: Connection, service: str) -> None:
    """Whoever reads events first, and then runs a handler, rebalances as `run()` says."""
    new = User(server, service)
    old = Running(server.url, service, lock_ttl=1.0, rebalance=None)
    old.client.events(rebalance=SOON)
    async with old:
        await LoadBalancerStream(redis, service).add_many([f"call-{n}" for n in range(20)])
        await wait_until(lambda: len(old.client.leases) == 20, "it has all")
        async with new.client, meanwhile(new.read()):
            await wait_until(lambda: new.client.statistics().rebalance_asks >= 2, "asked in vain", timeout=20)
            assert (len(old.client.leases), old.client.statistics().streams_going) == (20, 0)


@pytest.mark.parametrize("wrong", [None, 1, "yes", 10.0])
def test_what_is_neither_a_bool_nor_a_rebalance_is_refused(wrong: Any) -> None:
    client = RedisStreamClient.from_url("redis://localhost", "orders")
    with pytest.raises(TypeError, match="rebalance must be a bool or a Rebalance, not"):
        client.events(rebalance=wrong)


async def test_asking_ends_with_the_client(server: Server, redis: Connection, service: str) -> None:
    old, new = User(server, service, keeps=True), User(server, service)
    async with old.client, meanwhile(old.read()):
        await filled(redis, service, old, 8)
        async with new.client, meanwhile(new.read()):
            await wait_until(lambda: old.asked, "it is asked", timeout=20)
            old.client.drain()
            assert old.client.statistics().streams_going == 0
    assert not [task for task in asyncio.all_tasks() if "redis_stream_client" in task.get_name()]
