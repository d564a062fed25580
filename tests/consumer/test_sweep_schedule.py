"""When to look at whose streams, on a clock that the test moves."""

from __future__ import annotations

import asyncio

import pytest

from redis_stream_client._consumer.sweep_schedule import SweepSchedule

PACE = 2.0


class Fleet:
    """A schedule with a clock of its own."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.sweeps = SweepSchedule(PACE, lambda: self.time)

    def look_at(self, owner: str, *, takes: float, brought: bool = False) -> None:
        assert owner in self.sweeps.due()
        began = self.time
        self.sweeps.look_begins(owner)
        self.time += takes
        self.sweeps.look_ended(owner, began, brought=brought)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_nobody_is_suspected_at_first(fleet: Fleet) -> None:
    assert fleet.sweeps.due() == []
    assert fleet.sweeps.next_look == float("inf")


def test_what_is_heard_wakes_the_sweeper_and_is_due_at_once(fleet: Fleet) -> None:
    woken = asyncio.Event()
    fleet.sweeps.changed.add(woken.set)
    fleet.sweeps.suspect("peer")
    assert woken.is_set()
    assert fleet.sweeps.due() == ["peer"]
    assert fleet.sweeps.next_look == fleet.time


def test_a_storm_of_hints_costs_no_more_than_a_few_looks(fleet: Fleet) -> None:
    fleet.sweeps.suspect("peer")
    fleet.look_at("peer", takes=0.1)
    for _ in range(100):
        fleet.sweeps.suspect("peer")
    assert fleet.sweeps.due() == []
    assert fleet.sweeps.next_look == pytest.approx(fleet.time + 0.3)
    fleet.sweeps.suspect("another")
    assert fleet.sweeps.due() == ["another"]


def test_looks_that_take_no_time_keep_a_small_distance(fleet: Fleet) -> None:
    fleet.sweeps.suspect("peer")
    fleet.look_at("peer", takes=0.0)
    fleet.sweeps.suspect("peer")
    assert fleet.sweeps.next_look == fleet.time + PACE / 200


def test_an_earlier_look_is_not_put_off(fleet: Fleet) -> None:
    fleet.sweeps.look_at("peer", fleet.time + 1.0)
    fleet.sweeps.look_at("peer", fleet.time + 2.0)
    assert fleet.sweeps.next_look == fleet.time + 1.0
    fleet.sweeps.suspect("peer")
    assert fleet.sweeps.next_look == fleet.time


def test_what_is_heard_during_a_look_asks_for_another_one(fleet: Fleet) -> None:
    fleet.sweeps.suspect("peer")
    fleet.sweeps.look_begins("peer")
    assert fleet.sweeps.due() == []
    fleet.sweeps.suspect("peer")
    fleet.sweeps.look_ended("peer", fleet.time)
    assert fleet.sweeps.due() == ["peer"]


def test_a_look_is_long_ago_after_half_a_lifetime_or_a_multiple_of_what_it_took(fleet: Fleet) -> None:
    assert fleet.sweeps.long_ago("peer"), "there was none yet"
    fleet.sweeps.suspect("peer")
    fleet.look_at("peer", takes=0.1)
    assert not fleet.sweeps.long_ago("peer")
    fleet.time += PACE / 2 + 0.01
    assert fleet.sweeps.long_ago("peer")
    assert not fleet.sweeps.long_ago("peer", distance=50)
    fleet.time += 5.0
    assert fleet.sweeps.long_ago("peer", distance=50)


def test_who_is_not_in_the_group_any_more_is_forgotten(fleet: Fleet) -> None:
    for owner in ("peer", "another"):
        fleet.sweeps.suspect(owner)
        fleet.look_at(owner, takes=0.1)
    fleet.sweeps.keep({"another"})
    assert fleet.sweeps.long_ago("peer")
    assert not fleet.sweeps.long_ago("another")


def test_after_a_gap_a_sweep_is_due_and_after_a_lapse_it_looks_at_everybody(fleet: Fleet) -> None:
    woken = asyncio.Event()
    fleet.sweeps.changed.add(woken.set)
    fleet.sweeps.swept_at = fleet.time
    fleet.sweeps.sweep_now()
    assert woken.is_set()
    assert (fleet.sweeps.swept_at, fleet.sweeps.tidy_asked) == (float("-inf"), False)
    fleet.sweeps.swept_at = fleet.time
    fleet.sweeps.tidy_now()
    assert (fleet.sweeps.swept_at, fleet.sweeps.tidy_asked) == (float("-inf"), True)


def test_a_look_that_brought_what_was_asked_for_is_soon_followed_by_another(fleet: Fleet) -> None:
    fleet.sweeps.suspect("nobody")
    fleet.look_at("nobody", takes=0.1, brought=True)
    fleet.sweeps.suspect("nobody")
    assert fleet.sweeps.next_look == pytest.approx(fleet.time + PACE / 200)
