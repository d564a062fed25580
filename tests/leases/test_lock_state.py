"""What a client may believe about its own lock, on a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_stream_client._leases.lock_state import LapseCause, Liveness, State

TTL = 2.0
INTERVAL = 0.5


class Fleet:
    """A liveness with a clock of its own, and what it said."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.lapses: list[LapseCause] = []
        self.liveness = Liveness(TTL, INTERVAL, self.lapses.append, lambda: self.time)

    def joined(self) -> Liveness:
        assert self.liveness.held_since(self.time)
        return self.liveness

    def lapsed(self, cause: LapseCause) -> Liveness:
        liveness = self.joined()
        self.time += 0.1
        liveness.lapse(cause)
        return liveness


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_nothing_is_held_before_joining(fleet: Fleet) -> None:
    assert not fleet.liveness.held
    assert fleet.liveness.beat_at is None
    fleet.liveness.check()
    assert fleet.lapses == []


def test_a_join_counts_from_before_it_was_sent(fleet: Fleet) -> None:
    sent = fleet.time
    fleet.time += 1.5  # the reply took its time
    assert fleet.liveness.held_since(sent)
    assert fleet.liveness.deadline == sent + TTL
    fleet.time = sent + TTL - 0.001
    assert fleet.liveness.held
    fleet.time = sent + TTL
    assert not fleet.liveness.held


def test_a_join_whose_reply_came_too_late_is_not_believed(fleet: Fleet) -> None:
    sent = fleet.time
    fleet.time += TTL
    assert not fleet.liveness.held_since(sent)
    assert not fleet.liveness.held


def test_a_renewal_counts_from_before_it_was_sent(fleet: Fleet) -> None:
    liveness = fleet.joined()
    fleet.time += INTERVAL
    sent = fleet.time
    fleet.time += 1.0
    liveness.renewed(sent, liveness.epoch)
    assert liveness.deadline == sent + TTL
    assert liveness.beat_at == sent


def test_a_renewal_that_was_sent_earlier_takes_nothing_back(fleet: Fleet) -> None:
    liveness = fleet.joined()
    deadline = liveness.deadline
    liveness.renewed(fleet.time - 1.0, liveness.epoch)
    assert liveness.deadline == deadline


def test_a_deadline_noticed_in_time_without_an_answer_is_silence_and_all_is_lost(fleet: Fleet) -> None:
    liveness = fleet.joined()
    liveness.asking()
    fleet.time = liveness.deadline + INTERVAL
    liveness.check()
    assert fleet.lapses == ["silent"]
    assert liveness.state is State.ABSENT
    assert liveness.lapses == 1


def test_a_deadline_noticed_late_is_a_stall_and_not_yet_a_loss(fleet: Fleet) -> None:
    liveness = fleet.joined()
    fleet.time = liveness.deadline + INTERVAL + 0.01
    liveness.check()
    assert fleet.lapses == ["stalled"]
    assert liveness.state is State.SUSPECT
    assert not liveness.held


def test_a_deadline_that_passed_without_a_beat_being_sent_is_a_stall(fleet: Fleet) -> None:
    liveness = fleet.joined()
    liveness.asking()
    fleet.time += INTERVAL
    liveness.renewed(fleet.time, liveness.epoch)
    fleet.time = liveness.deadline + 0.001
    liveness.check()
    assert fleet.lapses == ["stalled"]


def test_a_lock_that_redis_does_not_know_is_missing_and_not_yet_a_loss(fleet: Fleet) -> None:
    liveness = fleet.lapsed("missing")
    assert fleet.lapses == ["missing"]
    assert liveness.state is State.SUSPECT
    assert not liveness.held


@pytest.mark.parametrize("cause", ["stalled", "missing"])
def test_a_suspect_that_gets_no_answer_within_one_interval_has_lost_all(fleet: Fleet, cause: LapseCause) -> None:
    liveness = fleet.lapsed(cause)
    assert liveness.deadline == fleet.time + INTERVAL
    fleet.time += INTERVAL - 0.001
    liveness.check()
    assert fleet.lapses == [cause]
    fleet.time += 0.001
    liveness.check()
    liveness.check()
    assert fleet.lapses == [cause, "silent"]
    assert liveness.state is State.ABSENT


def test_a_suspect_that_was_answered_has_a_locks_lifetime_to_look_around(fleet: Fleet) -> None:
    liveness = fleet.lapsed("stalled")
    sent = fleet.time
    fleet.time += INTERVAL - 0.01
    liveness.answered(sent)
    assert liveness.deadline == sent + TTL
    fleet.time = sent + TTL - 0.01
    liveness.check()
    assert fleet.lapses == ["stalled"]
    assert liveness.held_since(sent)
    assert liveness.held


def test_an_answer_that_came_after_all_was_lost_revives_nothing(fleet: Fleet) -> None:
    liveness = fleet.lapsed("stalled")
    sent = fleet.time
    fleet.time += INTERVAL
    liveness.answered(sent)
    assert fleet.lapses == ["stalled", "silent"]
    assert liveness.state is State.ABSENT


def test_after_a_lapse_no_beat_makes_the_lock_held_only_a_resume_does(fleet: Fleet) -> None:
    liveness = fleet.joined()
    before = liveness.epoch
    liveness.lapse("missing")
    for epoch in (before, liveness.epoch):
        liveness.renewed(fleet.time, epoch)
        assert not liveness.held
    assert liveness.held_since(fleet.time)
    assert liveness.held


def test_a_reply_to_what_was_asked_before_a_lapse_is_not_believed_after_it(fleet: Fleet) -> None:
    liveness = fleet.joined()
    asked = liveness.epoch
    assert liveness.believed(asked)
    liveness.lapse("missing")
    assert not liveness.believed(asked)
    liveness.held_since(fleet.time)
    assert not liveness.believed(asked)
    assert liveness.believed(liveness.epoch)


def test_a_beat_that_was_sent_before_a_lapse_renews_nothing_after_it(fleet: Fleet) -> None:
    liveness = fleet.joined()
    asked = liveness.epoch
    liveness.lapse("missing")
    liveness.held_since(fleet.time)
    deadline = liveness.deadline
    fleet.time += 1.0
    liveness.renewed(fleet.time, asked)
    assert liveness.deadline == deadline


def test_believing_notices_a_deadline_that_nobody_noticed_yet(fleet: Fleet) -> None:
    liveness = fleet.joined()
    liveness.asking()
    fleet.time = liveness.deadline
    assert not liveness.believed(liveness.epoch)
    assert fleet.lapses == ["silent"]


def test_a_reply_processed_after_the_deadline_does_not_renew(fleet: Fleet) -> None:
    liveness = fleet.joined()
    sent = liveness.deadline - 0.1
    liveness.asking()
    fleet.time = liveness.deadline + 0.1
    liveness.renewed(sent, liveness.epoch)
    assert not liveness.held
    assert fleet.lapses == ["silent"]


def test_there_is_no_quiet_time_at_the_first_join(fleet: Fleet) -> None:
    assert not fleet.joined().quiet


@pytest.mark.parametrize("cause", ["silent", "stalled", "missing"])
def test_after_a_lapse_orphans_are_left_alone_for_two_intervals(fleet: Fleet, cause: LapseCause) -> None:
    liveness = fleet.lapsed(cause)
    liveness.held_since(fleet.time)
    assert liveness.quiet
    fleet.time += 2 * INTERVAL - 0.001
    assert liveness.quiet
    fleet.time += 0.001
    assert not liveness.quiet


def test_a_lapse_is_told_once(fleet: Fleet) -> None:
    liveness = fleet.lapsed("silent")
    liveness.lapse("missing")
    liveness.check()
    assert fleet.lapses == ["silent"]
    assert liveness.lapses == 1


def test_a_closed_client_believes_nothing_and_never_lapses(fleet: Fleet) -> None:
    liveness = fleet.joined()
    epoch = liveness.epoch
    liveness.close()
    fleet.time += 10 * TTL
    liveness.check()
    liveness.lapse("missing")
    assert fleet.lapses == []
    assert not liveness.held
    assert not liveness.believed(epoch)
    assert not liveness.believed(liveness.epoch)
    assert not liveness.held_since(fleet.time)


steps = st.tuples(
    st.sampled_from(["beat", "join", "answered", "check", "missing"]), st.floats(0, 3), st.floats(0, 3)
)


@given(st.lists(steps, max_size=30))
def test_nothing_is_believed_longer_than_the_lock_lives_in_redis(script: list[tuple[str, float, float]]) -> None:
    fleet = Fleet()
    liveness = fleet.liveness
    last_sent = fleet.time
    assert liveness.held_since(last_sent)
    for what, before, took in script:
        fleet.time += before
        sent, epoch = fleet.time, liveness.epoch
        fleet.time += took
        match what:
            case "beat":
                liveness.renewed(sent, epoch)
                last_sent = sent
            case "join":
                liveness.held_since(sent)
                last_sent = sent
            case "answered":
                liveness.answered(sent)
            case "check":
                liveness.check()
            case _:
                liveness.lapse("missing")
        assert not liveness.held or fleet.time < last_sent + TTL
        assert liveness.held == liveness.believed(liveness.epoch)
