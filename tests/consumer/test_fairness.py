"""Fairness of reading: all members end their blocking reads at the same moments, and queue up by who was served
longest ago; and each leaves the others their share of a backlog."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from redis_stream_client._consumer.fairness import CLOCK_PERIOD, FIRST_LOOK, STEP, Backlog, Fairness, Yielding
from redis_stream_client._protocol.replies import Delivered, Member, Share

PERIOD = 1.0

times = st.floats(0, 1e7)
servers = st.floats(0, 2e9)


def with_clock(server: float = 0.0, now: float = 0.0, period: float = PERIOD) -> Fairness:
    fairness = Fairness(period)
    fairness.server_clock(server, now, now)
    return fairness


def member(name: str, served_ms: float) -> Member:
    return Member(name, pending=0, idle_ms=0, served_ms=served_ms)


# The common moments.


@given(server=servers, set_at=times, elapsed=st.floats(0, 1000), period=st.floats(0.05, 10))
def test_a_read_blocks_no_longer_than_a_period_and_never_for_ever(
    server: float, set_at: float, elapsed: float, period: float
) -> None:
    assert 0.001 <= with_clock(server, set_at, period).block(set_at + elapsed) <= period


@given(server=servers, one=times, other=times, elapsed=st.floats(0, 1000))
def test_members_whose_clocks_differ_end_their_reads_at_the_same_moment(
    server: float, one: float, other: float, elapsed: float
) -> None:
    first = with_clock(server, one).block(one + elapsed)
    second = with_clock(server, other).block(other + elapsed)
    apart = abs(first - second)
    assert min(apart, PERIOD - apart) < 0.002


@pytest.mark.parametrize(("server", "block"), [(0.0, 1.0), (0.25, 0.75), (999.9, 0.1), (1000.0, 1.0)])
def test_a_read_ends_at_a_multiple_of_the_period_on_the_servers_clock(server: float, block: float) -> None:
    assert with_clock(server, 77.7).block(77.7) == pytest.approx(block, abs=0.002)


# The server's clock.


def test_a_reading_counts_for_the_middle_of_its_round_trip() -> None:
    fairness = Fairness(PERIOD)
    fairness.server_clock(100.5, 10.0, 10.002)
    assert fairness.block(10.001) == pytest.approx(0.5)


def test_a_slow_reading_does_not_replace_a_quick_one() -> None:
    fairness = with_clock(100.0, 10.0)
    # 101.15 would be its middle, and 11.15 says the same within its error
    fairness.server_clock(101.2, 11.0, 11.3)
    assert fairness.block(10.0) == pytest.approx(1.0)
    assert fairness.certain


def test_a_reading_that_contradicts_means_that_a_clock_was_set() -> None:
    fairness = with_clock(100.0, 10.0)
    fairness.server_clock(500.25, 11.0, 11.1)
    assert fairness.block(11.05) == pytest.approx(0.75)


def test_the_order_is_kept_only_when_the_clock_is_known_well_enough() -> None:
    fairness = Fairness(PERIOD)
    assert not fairness.certain
    fairness.server_clock(100.0, 10.0, 10.5)
    assert not fairness.certain
    fairness.server_clock(101.0, 11.0, 11.001)
    assert fairness.certain


def test_the_clock_is_looked_at_now_and_then() -> None:
    fairness = Fairness(PERIOD)
    assert fairness.clock_due(0.0)
    fairness.server_clock(100.0, 10.0, 10.0)
    assert not fairness.clock_due(10.0 + CLOCK_PERIOD)
    assert fairness.clock_due(10.1 + CLOCK_PERIOD)


# The queue.


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0, 1e6) | st.just(math.inf), min_size=1))
def test_who_was_served_longest_ago_asks_first_and_everybody_at_another_moment(ages: dict[str, float]) -> None:
    members = [member(name, served_ms) for name, served_ms in ages.items()]
    pauses = {one.name: with_clock().pause(one.name, members) for one in members}
    assert len(set(pauses.values())) == len(members)
    order = sorted(members, key=lambda one: pauses[one.name])
    assert [one.served_ms for one in order] == sorted(ages.values(), reverse=True)
    assert pauses[order[0].name] == 0


def test_who_was_never_served_asks_at_once() -> None:
    members = [member("old", 60_000), member("new", math.inf)]
    assert with_clock().pause("new", members) == 0


def test_who_is_not_in_the_group_asks_at_once() -> None:
    assert with_clock().pause("stranger", [member("a", 1), member("b", 2)]) == 0
    assert with_clock().pause("stranger", []) == 0


def test_the_members_of_a_small_fleet_are_further_apart_than_the_noise() -> None:
    members = [member(f"m{number}", number) for number in range(4)]
    pauses = sorted(with_clock().pause(one.name, members) for one in members)
    assert pauses == pytest.approx([0, STEP, 2 * STEP, 3 * STEP])


@given(size=st.integers(1, 1000), period=st.floats(0.05, 10))
def test_queueing_up_takes_a_small_part_of_the_period_however_large_the_fleet(size: int, period: float) -> None:
    members = [member(f"m{number}", number) for number in range(size)]
    assert with_clock(period=period).pause("m0", members) <= 0.1 * period


@given(now=st.floats(0, 100), size=st.integers(1, 100), since=st.floats(0, 0.99), period=st.floats(0.05, 10))
def test_who_is_served_while_the_others_queue_up_waits_until_they_have(
    now: float, size: int, since: float, period: float
) -> None:
    fairness = with_clock(now=now, period=period)
    last = fairness.pause("m0", [member(f"m{number}", number) for number in range(size)])
    asked = since * period
    assume(abs(asked - last) > 1e-6)
    wait = fairness.settling(now + asked, size)
    assert asked + wait >= last - 1e-6
    assert 0 <= wait <= 0.1 * period + 1e-6


GRACE = 1.0


def waits(*, since: float = 100.0) -> Backlog:
    """A backlog of ten announcements that we have just seen."""
    backlog = Backlog(GRACE)
    backlog.seen(10, since, took=False)
    assert backlog.patient
    return backlog


def test_there_may_be_a_backlog_until_a_look_finds_none() -> None:
    backlog = Backlog(GRACE)
    assert backlog.expected
    backlog.others = ["peer"]
    backlog.seen(0, 100.0, took=False)
    assert not backlog.expected
    assert backlog.others is None, "they are looked up anew for the next one"
    backlog.expect()
    assert backlog.expected


def test_others_get_their_grace_to_take_their_share() -> None:
    backlog = waits()
    backlog.seen(10, 100.0 + GRACE, took=False)
    assert backlog.patient
    backlog.seen(10, 100.1 + GRACE, took=False)
    assert not backlog.patient


def test_grace_begins_anew_whenever_one_of_them_takes_something_but_not_for_ever() -> None:
    backlog = waits()
    for step in range(4):
        backlog.seen(9 - step, 100.0 + GRACE * (step + 1), took=False)
        assert backlog.patient
    backlog.seen(5, 100.1 + 4 * GRACE, took=False)
    assert not backlog.patient


def test_what_we_take_ourselves_begins_everything_anew() -> None:
    backlog = waits()
    backlog.seen(8, 100.0 + 4 * GRACE, took=True)
    backlog.seen(8, 100.0 + 5 * GRACE, took=False)
    assert backlog.patient


def test_a_new_backlog_meets_patience_again() -> None:
    backlog = waits()
    backlog.seen(10, 200.0, took=False)
    assert not backlog.patient
    backlog.seen(0, 200.0, took=False)
    backlog.expect()
    assert backlog.patient


# Members of different weights.


def share(took: int = 0, *, satisfied: bool) -> Share:
    return Share([Delivered(f"{n}-0", 1, ()) for n in range(took)], 0, 2, satisfied)


def test_who_has_its_share_by_weight_looks_ever_more_rarely_while_nothing_is_for_it() -> None:
    yielding = Yielding(0.25, no_more=20.0)
    assert yielding.pause() is None
    yielding.seen(share(1, satisfied=True), 100.0, patient=True)
    pauses = [yielding.pause() for _ in range(8)]
    assert pauses[:3] == [FIRST_LOOK, 2 * FIRST_LOOK, 4 * FIRST_LOOK]
    assert pauses[-1] == 0.25
    yielding.seen(share(satisfied=True), 101.0, patient=True)
    assert yielding.pause() == 0.25
    yielding.seen(share(1, satisfied=True), 102.0, patient=True)
    assert yielding.pause() == FIRST_LOOK
    yielding.seen(share(satisfied=False), 103.0, patient=True)
    assert yielding.pause() is None


def test_who_left_something_to_others_in_vain_queues_up_for_a_while() -> None:
    yielding = Yielding(0.25, no_more=20.0)
    yielding.seen(share(1, satisfied=True), 100.0, patient=False)
    assert yielding.pause() is None
    yielding.seen(share(1, satisfied=True), 119.9, patient=True)
    assert yielding.pause() is None
    yielding.seen(share(1, satisfied=True), 120.0, patient=True)
    assert yielding.pause() is not None
