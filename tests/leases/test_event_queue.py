"""The events that wait: their order, what takes them back, and that none is lost."""

from __future__ import annotations

import asyncio

import pytest

from redis_stream_client import Event, ExpiredStream, StreamAdded, StreamDisowned, StreamExpired, StreamWanted
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.lease import lease_of
from redis_stream_client._model.keys import NOBODY
from tests.harness.leases import new_lease
from tests.harness.waiting import wait_until

FIRST, LONGEST = 2.0, 5.0


def orphan(lbs_id: str, owner: str | None = "dead", deliveries: int = 1) -> ExpiredStream:
    return ExpiredStream(f"stream-{lbs_id}", lbs_id, None, owner, deliveries)


def take_all(event_queue: EventQueue, now: float = 0.0) -> list[Event]:
    events = []
    while (event := event_queue.take(now)) is not None:
        events.append(event)
    return events


@pytest.fixture
def event_queue() -> EventQueue:
    return EventQueue(FIRST, LONGEST)


def test_streams_are_handed_out_in_the_order_of_their_arrival(event_queue: EventQueue) -> None:
    leases = [new_lease(f"{number}-0") for number in range(5)]
    for one in leases:
        event_queue.added(one)
    assert take_all(event_queue) == [StreamAdded(lease_of(one)) for one in leases]


def test_streams_that_were_not_handed_out_are_counted(event_queue: EventQueue) -> None:
    for number in range(3):
        event_queue.added(new_lease(f"{number}-0"))
    event_queue.offer(orphan("9-0"), 0.0)
    assert event_queue.unread_added == 3
    assert event_queue.unread == 4
    event_queue.take(0.0)
    assert event_queue.unread_added == 2
    take_all(event_queue)
    assert (event_queue.unread_added, event_queue.unread) == (0, 0)


def test_losses_come_first_since_they_say_stop(event_queue: EventQueue) -> None:
    working = new_lease("1-0")
    event_queue.added(working)
    event_queue.take(0.0)
    arrived = new_lease("2-0")
    event_queue.added(arrived)
    event_queue.offer(orphan("3-0"), 0.0)
    event_queue.lost(working, "claimed")
    assert take_all(event_queue) == [
        StreamDisowned(lease_of(working), "claimed"),
        StreamAdded(lease_of(arrived)),
        StreamExpired(orphan("3-0")),
    ]


def test_a_loss_carries_the_very_lease_that_was_added(event_queue: EventQueue) -> None:
    one = new_lease("1-0")
    event_queue.added(one)
    added = event_queue.take(0.0)
    assert isinstance(added, StreamAdded)
    event_queue.lost(one, "expired")
    lost = event_queue.take(0.0)
    assert isinstance(lost, StreamDisowned)
    assert lost.payload is added.payload


def test_a_stream_that_was_lost_before_it_was_handed_out_is_never_heard_of(event_queue: EventQueue) -> None:
    unread = new_lease("1-0")
    event_queue.added(unread)
    event_queue.lost(unread, "claimed")
    assert take_all(event_queue) == []
    assert event_queue.unread_added == 0


def test_a_stream_that_comes_back_before_its_loss_was_read_is_told_after_it(event_queue: EventQueue) -> None:
    old, new = new_lease("1-0", 1), new_lease("1-0", 3)
    event_queue.added(old)
    event_queue.take(0.0)
    event_queue.lost(old, "expired")
    event_queue.added(new)
    assert [(type(event), event.payload) for event in take_all(event_queue)] == [
        (StreamDisowned, lease_of(old)),
        (StreamAdded, lease_of(new)),
    ]


def test_at_most_one_offer_of_a_stream_lies_unread(event_queue: EventQueue) -> None:
    assert event_queue.offer(orphan("1-0"), 0.0)
    for now in (0.0, 1.0, 100.0):
        assert not event_queue.offer(orphan("1-0"), now)
    assert take_all(event_queue) == [StreamExpired(orphan("1-0"))]


def test_an_unread_offer_shows_the_newest_state(event_queue: EventQueue) -> None:
    event_queue.offer(orphan("1-0", "first", 1), 0.0)
    event_queue.offer(orphan("1-0", "second", 2), 0.0)
    assert take_all(event_queue) == [StreamExpired(orphan("1-0", "second", 2))]


def test_what_was_read_but_not_claimed_is_offered_again_after_pauses_that_double_to_the_limit(
    event_queue: EventQueue,
) -> None:
    now = 1000.0
    assert event_queue.offer(orphan("1-0"), now)
    for pause in (2.0, 4.0, 5.0, 5.0):
        assert event_queue.take(now) == StreamExpired(orphan("1-0"))
        assert not event_queue.offer(orphan("1-0"), now + pause - 0.001)
        assert event_queue.take(now) is None
        now += pause
        assert event_queue.offer(orphan("1-0"), now)


def test_a_longer_lock_lifetime_than_the_limit_is_the_limit() -> None:
    event_queue, now = EventQueue(30.0, LONGEST), 0.0
    for _ in range(3):
        assert event_queue.offer(orphan("1-0"), now)
        assert event_queue.take(now)
        assert not event_queue.offer(orphan("1-0"), now + 29.0)
        now += 30.0


def test_another_owners_death_is_offered_at_once(event_queue: EventQueue) -> None:
    event_queue.offer(orphan("1-0", "first", 1), 0.0)
    event_queue.take(0.0)
    assert event_queue.offer(orphan("1-0", "second", 2), 0.1)
    assert event_queue.take(0.1) == StreamExpired(orphan("1-0", "second", 2))
    assert not event_queue.offer(orphan("1-0", "second", 2), 0.1 + FIRST - 0.01)  # the pause begins anew
    assert event_queue.offer(orphan("1-0", "second", 2), 0.1 + FIRST)


def test_an_offer_is_withdrawn_when_a_peer_took_the_stream(event_queue: EventQueue) -> None:
    event_queue.offer(orphan("1-0"), 0.0)
    event_queue.offer(orphan("2-0"), 0.0)
    event_queue.withdraw("1-0")
    event_queue.withdraw("1-0")
    event_queue.withdraw("unknown")
    assert take_all(event_queue) == [StreamExpired(orphan("2-0"))]


def test_an_offer_that_was_read_and_withdrawn_may_be_made_anew_at_once(event_queue: EventQueue) -> None:
    event_queue.offer(orphan("1-0"), 0.0)
    event_queue.take(0.0)
    event_queue.withdraw("1-0")
    assert event_queue.offer(orphan("1-0"), 0.1)


def test_an_offer_is_withdrawn_when_the_stream_arrives_here(event_queue: EventQueue) -> None:
    event_queue.offer(orphan("1-0"), 0.0)
    ours = new_lease("1-0", 2)
    event_queue.added(ours)
    assert take_all(event_queue) == [StreamAdded(lease_of(ours))]


def test_a_complete_look_withdraws_what_is_no_orphan_of_this_owner_any_more(event_queue: EventQueue) -> None:
    for number in (1, 2):
        event_queue.offer(orphan(f"{number}-0"), 0.0)
    event_queue.offer(orphan("3-0", "another"), 0.0)
    known = event_queue.offered("dead")
    event_queue.offer(orphan("4-0"), 0.0)  # made during the look
    event_queue.withdraw_absent("dead", ["2-0"], known)
    assert [event.payload.lbs_id for event in take_all(event_queue)] == ["2-0", "3-0", "4-0"]


def test_an_owners_offers_are_found_also_a_released_ones(event_queue: EventQueue) -> None:
    event_queue.offer(orphan("1-0"), 0.0)
    event_queue.offer(orphan("2-0", None), 0.0)
    assert event_queue.offered("dead") == ["1-0"]
    assert event_queue.offered(NOBODY) == ["2-0"]


def test_what_was_released_here_is_held_back_for_the_peers(event_queue: EventQueue) -> None:
    event_queue.hold_back(orphan("1-0", None), until=10.0)
    assert take_all(event_queue) == []
    assert not event_queue.offer(orphan("1-0", None), 9.999)
    assert event_queue.offer(orphan("1-0", None), 10.0)


def test_what_was_held_back_is_offered_at_once_when_it_had_another_owner_since(event_queue: EventQueue) -> None:
    event_queue.hold_back(orphan("1-0", None), until=10.0)
    assert event_queue.offer(orphan("1-0", "peer", 2), 1.0)


def test_what_is_held_back_may_be_let_go(event_queue: EventQueue) -> None:
    event_queue.hold_back(orphan("1-0", None), until=10.0)
    event_queue.hold_back(orphan("2-0", "peer"), until=10.0)
    event_queue.let_go(NOBODY, 1.0)
    assert (event_queue.held_back(NOBODY, 1.0), event_queue.held_back("peer", 1.0)) == ([], ["2-0"])
    assert event_queue.owners_to_recheck(1.0) == ({NOBODY}, set())
    assert event_queue.offer(orphan("1-0", None), 1.0)


def test_owners_are_looked_at_again_when_an_offer_is_due(event_queue: EventQueue) -> None:
    event_queue.offer(orphan("1-0", "read"), 0.0)
    event_queue.take(0.0)
    event_queue.offer(orphan("2-0", "unread"), 0.0)
    event_queue.hold_back(orphan("3-0", None), until=10.0)
    assert event_queue.owners_to_recheck(1.0) == (set(), {"unread"})
    assert event_queue.owners_to_recheck(2.0) == ({"read"}, {"unread"})
    assert event_queue.owners_to_recheck(10.0) == ({"read", NOBODY}, {"unread"})


async def test_a_reader_wakes_when_something_arrives(event_queue: EventQueue) -> None:
    for act in (
        lambda: event_queue.added(new_lease("1-0")),
        lambda: event_queue.offer(orphan("2-0"), 0.0),
        event_queue.end,
    ):
        reader = asyncio.create_task(event_queue.wait())
        await wait_until(lambda: event_queue.being_read, "the reader waits")
        act()
        await asyncio.wait_for(reader, 1)
        assert not event_queue.being_read
        take_all(event_queue)


async def test_a_reader_that_has_left_something_does_not_wait(event_queue: EventQueue) -> None:
    handed_out = []
    for n in range(600):  # more than one look takes out
        held = new_lease(f"{n + 1}-0")
        event_queue.added(held)
        assert event_queue.take(0.0) == StreamAdded(lease_of(held))
        handed_out.append(held)
    for held in handed_out:
        event_queue.lost(held, "claimed")
    for left in range(600, 0, -1):
        await asyncio.wait_for(event_queue.wait(), 1)
        assert event_queue.unread == left
        assert event_queue.take(0.0)


async def test_a_reader_that_is_cancelled_in_the_moment_of_an_arrival_loses_nothing(
    event_queue: EventQueue,
) -> None:
    reader = asyncio.create_task(event_queue.wait())
    await wait_until(lambda: event_queue.being_read, "the reader waits")
    arrived = new_lease("1-0")
    event_queue.added(arrived)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert not event_queue.being_read
    assert take_all(event_queue) == [StreamAdded(lease_of(arrived))]


def test_an_orphan_may_be_left_to_others_first(event_queue: EventQueue) -> None:
    released = orphan("1-0", owner=None)
    assert not event_queue.offer(released, 10.0, wait=0.5)
    assert not event_queue.offer(released, 10.4, wait=0.5)
    assert event_queue.owners_to_recheck(10.4) == (set(), set())
    assert event_queue.owners_to_recheck(10.5) == ({NOBODY}, set())
    assert event_queue.offer(released, 10.5, wait=0.5)
    again = orphan("1-0", owner=None, deliveries=2)
    assert event_queue.offer(again, 10.6, wait=0.5)  # it lies unread already
    assert take_all(event_queue, 10.6) == [StreamExpired(again)]
    event_queue.offer(orphan("2-0", owner=None), 11.0, wait=0.5)
    event_queue.withdraw("2-0")
    assert take_all(event_queue, 12.0) == []


# What peers want.


def test_what_peers_want_comes_behind_the_losses_and_before_all_else(event_queue: EventQueue) -> None:
    lost, wanted, arrived = (new_lease(f"{number}-0") for number in range(3))
    for one in (lost, wanted):
        event_queue.added(one)
    take_all(event_queue)
    event_queue.added(arrived)
    event_queue.want(wanted)
    event_queue.want(wanted)
    event_queue.lost(lost, "claimed")
    assert event_queue.unread == 3
    assert take_all(event_queue) == [
        StreamDisowned(lease_of(lost), "claimed"),
        StreamWanted(lease_of(wanted)),
        StreamAdded(lease_of(arrived)),
    ]
    assert event_queue.unread == 0


def test_what_peers_want_is_withdrawn_when_the_lease_ends(event_queue: EventQueue) -> None:
    finished, kept = new_lease("1-0"), new_lease("2-0")
    for one in (finished, kept):
        event_queue.added(one)
    take_all(event_queue)
    for one in (finished, kept):
        event_queue.want(one)
    event_queue.unadd(finished)
    event_queue.unwant(kept)
    assert take_all(event_queue) == []
    event_queue.unwant(kept)


async def test_what_peers_want_wakes_the_reader(event_queue: EventQueue) -> None:
    lease = new_lease("1-0")
    reader = asyncio.create_task(event_queue.wait())
    await wait_until(lambda: event_queue.being_read, "it waits")
    event_queue.want(lease)
    await reader
