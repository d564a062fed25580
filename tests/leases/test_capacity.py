"""How many more streams a client has room for."""

from __future__ import annotations

import asyncio

from redis_stream_client._leases.capacity import UNLIMITED, Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.table import LeaseTable
from tests.harness.leases import new_lease


class Client:
    """A client's state, into which streams arrive."""

    def __init__(self, max_streams: int | None = None) -> None:
        self.event_queue = EventQueue(1.0, 1.0)
        self.table = LeaseTable(self.event_queue)
        self.capacity = Capacity(self.table, self.event_queue, max_streams=max_streams, prefetch=5, at_once=50)

    def arrive(self, streams: int) -> None:
        for _ in range(streams):
            lease = new_lease(f"{len(self.table)}-0")
            self.table.add(lease)
            self.event_queue.added(lease)

    @property
    def room(self) -> tuple[int, int]:
        return self.capacity.free, self.capacity.to_read


def test_without_a_limit_prefetch_alone_says_how_much_is_read() -> None:
    client = Client()
    assert client.room == (UNLIMITED, 5)
    client.arrive(3)
    assert client.room == (UNLIMITED, 2)
    client.arrive(4)
    assert client.room == (UNLIMITED, 0)
    client.event_queue.take(0.0)
    client.event_queue.take(0.0)
    client.event_queue.take(0.0)
    assert client.room == (UNLIMITED, 1)


def test_max_streams_counts_what_is_owned_whether_it_was_read_or_not() -> None:
    client = Client(max_streams=4)
    client.arrive(3)
    assert client.room == (1, 1)
    client.event_queue.take(0.0)
    assert client.room == (1, 1)


def test_where_everything_is_handled_at_once_more_may_lie_unread() -> None:
    client = Client()
    client.capacity.handled_at_once = True
    assert client.room == (UNLIMITED, 50)


def test_a_client_that_drains_wants_nothing() -> None:
    client = Client()
    client.capacity.draining = True
    assert client.room == (0, 0)


def test_a_client_that_slows_down_takes_so_many_however_much_room_it_has() -> None:
    client, changed = Client(), asyncio.Event()
    client.capacity.handled_at_once = True
    client.capacity.changed.add(changed.set)
    client.capacity.slow_down(1)
    assert client.room == (1, 1)
    assert changed.is_set()
    with client.capacity.expecting(1):
        assert client.room == (0, 0)
    client.arrive(1)
    assert client.room == (0, 0)
    client.event_queue.take(0.0)
    client.capacity.slow_down(0)
    assert client.room == (0, 0)
    client.capacity.slow_down(None)
    assert client.room == (UNLIMITED, 50)


def test_what_may_be_on_its_way_has_its_room_until_the_request_is_over() -> None:
    client, changed = Client(max_streams=4), asyncio.Event()
    client.capacity.changed.add(changed.set)
    with client.capacity.expecting(3):
        assert client.room == (1, 1)
        assert not changed.is_set()
    assert client.room == (4, 4)
    assert changed.is_set()


def test_a_handler_that_goes_on_without_its_lease_keeps_its_place() -> None:
    client, changed = Client(max_streams=4), asyncio.Event()
    client.capacity.changed.add(changed.set)
    client.capacity.keep_place(1)
    assert client.room == (3, 3)
    assert changed.is_set()
    client.capacity.keep_place(-1)
    assert client.room == (4, 4)
