"""The table of leases: what is held, what users see of it, and what is remembered of what has ended."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from redis_stream_client import Event, StreamAdded, StreamDisowned
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.lease import lease_of
from redis_stream_client._leases.table import REMEMBERED, LeaseTable
from tests.harness.leases import new_lease


@pytest.fixture
def event_queue() -> EventQueue:
    return EventQueue(1.0, 1.0)


@pytest.fixture
def table(event_queue: EventQueue) -> LeaseTable:
    return LeaseTable(event_queue)


# What users see.


def test_users_see_the_leases_that_are_held_and_always_the_same_ones(table: LeaseTable) -> None:
    one, other = new_lease("1-0"), new_lease("2-0")
    view = table.view
    assert dict(view) == {}
    table.add(one)
    table.add(other)
    assert view == {"1-0": lease_of(one), "2-0": lease_of(other)}
    assert view["1-0"] is view["1-0"] is lease_of(one)
    assert "2-0" in view
    table.lose(one, "claimed")
    assert list(view.values()) == [lease_of(other)]
    assert "1-0" not in view
    assert repr(view) == "{'2-0': <Lease 'stream-2-0' 2-0/1 owned>}"


def test_users_cannot_change_what_is_held(table: LeaseTable) -> None:
    table.add(new_lease("1-0"))
    view: Any = table.view
    with pytest.raises(TypeError):
        view["2-0"] = view["1-0"]
    with pytest.raises(TypeError):
        del view["1-0"]


def test_a_users_lease_leads_to_its_state_as_long_as_it_is_held(table: LeaseTable) -> None:
    older, newer = new_lease("1-0", 1), new_lease("1-0", 2)
    face = lease_of(older)
    table.add(older)
    assert table.state_of(face) is older
    table.add(newer)
    assert older.lost == "claimed"
    assert table.state_of(face) is None
    assert table.state_of(lease_of(newer)) is newer


def test_the_events_of_a_lease_carry_the_same_object(table: LeaseTable, event_queue: EventQueue) -> None:
    lease = new_lease("1-0")
    table.add(lease)
    event_queue.added(lease)
    added = event_queue.take(0.0)
    assert isinstance(added, StreamAdded)
    assert added.payload is table.view["1-0"]
    table.lose(lease, "gone")
    lost = event_queue.take(0.0)
    assert isinstance(lost, StreamDisowned)
    assert (lost.payload, lost.reason) == (added.payload, "gone")


class Backend:
    """Of one lease: as long as that is there, this is."""

    held = True


@pytest.mark.parametrize(("end", "how"), [(LeaseTable.lose, "closed"), (LeaseTable.end, "done")])
def test_a_lease_that_is_over_needs_no_garbage_collector(
    table: LeaseTable, event_queue: EventQueue, end: Any, how: str
) -> None:
    backend: Any = Backend()
    known = weakref.ref(backend)
    lease = new_lease("1-0", backend=backend)
    del backend
    gc.disable()
    try:
        table.add(lease)
        event_queue.added(lease)
        event: Event | None = event_queue.take(0.0)
        end(table, lease, how)
        event = event_queue.take(0.0)
        del lease
        assert isinstance(event, StreamDisowned) == (end is LeaseTable.lose)
        del event
        assert known() is None
    finally:
        gc.enable()


# What is held, and was.


def test_a_lease_ends_once(table: LeaseTable, event_queue: EventQueue) -> None:
    lease = new_lease("1-0")
    lease.handed_out = True
    table.add(lease)
    table.end(lease, "done")
    table.lose(lease, "claimed")
    assert lease.lost == "done"
    assert not table.holds(lease)
    assert event_queue.take(0.0) is None


def test_the_greatest_count_of_an_announcement_is_remembered(table: LeaseTable) -> None:
    assert table.handed_out("1-0") == 0
    lease = new_lease("1-0", 3)
    table.add(lease)
    assert table.handed_out("1-0") == 3
    table.lose(lease, "expired")
    assert table.handed_out("1-0") == 3
    table.audited("history")
    assert table.handed_out("1-0") == 3
    table.add(new_lease("1-0", 2))
    assert table.handed_out("1-0") == 3


def test_of_those_that_ended_long_ago_nothing_is_remembered(table: LeaseTable) -> None:
    for number in range(REMEMBERED + 1):
        table.end(new_lease(f"{number}-0"), "done")
    assert table.handed_out("0-0") == 0
    assert table.handed_out("1-0") == 1


def test_what_is_being_released_is_neither_held_nor_unknown(table: LeaseTable) -> None:
    lease = new_lease("1-0")
    table.add(lease)
    table.part(lease)
    assert lease.lost == "released"
    assert table.parting == {"1-0"}
    assert list(table.unknown({"1-0": 1, "2-0": 1})) == [("2-0", 1)]
    table.parted(lease)
    assert list(table.unknown({"1-0": 1})) == [("1-0", 1)]


def test_what_redis_counts_otherwise_is_found(table: LeaseTable) -> None:
    same, other, gone, lost = (new_lease(f"{number}-0", 2) for number in range(4))
    for lease in (same, other, gone, lost):
        table.add(lease)
    table.lose(lost, "claimed")
    pending = {"0-0": 2, "1-0": 3, "3-0": 1}
    assert table.disagreeing(pending) == [other, gone]
    assert table.behind(pending) == [("3-0", 1, 2)]


def test_all_are_lost_at_once(table: LeaseTable) -> None:
    leases = [new_lease(f"{number}-0") for number in range(5)]
    for lease in leases:
        table.add(lease)
    table.lose_all("closed")
    assert len(table) == 0
    assert {lease.lost for lease in leases} == {"closed"}
