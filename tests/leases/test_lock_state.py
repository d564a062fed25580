"""What a client may believe about its own lock, on a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_stream_client._leases.lock_state import LapseCause, LockState, State

TTL = 2.0
INTERVAL = 0.5


class Fleet:
    """A lock state with a clock of its own, and the lapses that it told."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.lapses: list[LapseCause] = []
        self.lock_state = LockState(TTL, INTERVAL, self.lapses.append, lambda: self.time)

    def joined(self) -> LockState:
        assert self.lock_state.held_since(self.time)
        return self.lock_state

    def lapsed(self, cause: LapseCause) -> LockState:
        lock_state = self.joined()
        self.time += 0.1
        lock_state.lapse(cause)
        return lock_state


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_nothing_is_held_before_joining(fleet: Fleet) -> None:
    assert not fleet.lock_state.held
    assert fleet.lock_state.beat_at is None
    fleet.lock_state.check()
    assert fleet.lapses == []


def test_a_join_counts_from_before_it_was_sent(fleet: Fleet) -> None:
    sent = fleet.time
    fleet.time += 1.5  # the reply took its time
    assert fleet.lock_state.held_since(sent)
    assert fleet.lock_state.deadline == sent + TTL
    fleet.time = sent + TTL - 0.001
    assert fleet.lock_state.held
    fleet.time = sent + TTL
    assert not fleet.lock_state.held


def test_a_join_whose_reply_came_too_late_is_not_believed(fleet: Fleet) -> None:
    sent = fleet.time
    fleet.time += TTL
    assert not fleet.lock_state.held_since(sent)
    assert not fleet.lock_state.held


def test_a_renewal_counts_from_before_it_was_sent(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    fleet.time += INTERVAL
    sent = fleet.time
    fleet.time += 1.0
    lock_state.renewed(sent, lock_state.epoch)
    assert lock_state.deadline == sent + TTL
    assert lock_state.beat_at == sent


def test_a_renewal_that_was_sent_earlier_takes_nothing_back(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    deadline = lock_state.deadline
    lock_state.renewed(fleet.time - 1.0, lock_state.epoch)
    assert lock_state.deadline == deadline


def test_a_deadline_noticed_in_time_without_an_answer_is_silence_and_all_is_lost(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    lock_state.asking()
    fleet.time = lock_state.deadline + INTERVAL
    lock_state.check()
    assert fleet.lapses == ["silent"]
    assert lock_state.state is State.ABSENT
    assert lock_state.lapses == 1


def test_a_deadline_noticed_late_is_a_stall_and_not_yet_a_loss(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    fleet.time = lock_state.deadline + INTERVAL + 0.01
    lock_state.check()
    assert fleet.lapses == ["stalled"]
    assert lock_state.state is State.SUSPECT
    assert not lock_state.held


def test_a_deadline_that_passed_without_a_beat_being_sent_is_a_stall(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    lock_state.asking()
    fleet.time += INTERVAL
    lock_state.renewed(fleet.time, lock_state.epoch)
    fleet.time = lock_state.deadline + 0.001
    lock_state.check()
    assert fleet.lapses == ["stalled"]


def test_a_lock_that_redis_does_not_know_is_missing_and_not_yet_a_loss(fleet: Fleet) -> None:
    lock_state = fleet.lapsed("missing")
    assert fleet.lapses == ["missing"]
    assert lock_state.state is State.SUSPECT
    assert not lock_state.held


@pytest.mark.parametrize("cause", ["stalled", "missing"])
def test_a_suspect_that_gets_no_answer_within_one_interval_has_lost_all(fleet: Fleet, cause: LapseCause) -> None:
    lock_state = fleet.lapsed(cause)
    assert lock_state.deadline == fleet.time + INTERVAL
    fleet.time += INTERVAL - 0.001
    lock_state.check()
    assert fleet.lapses == [cause]
    fleet.time += 0.001
    lock_state.check()
    lock_state.check()
    assert fleet.lapses == [cause, "silent"]
    assert lock_state.state is State.ABSENT


def test_a_suspect_that_was_answered_has_a_locks_lifetime_to_look_around(fleet: Fleet) -> None:
    lock_state = fleet.lapsed("stalled")
    sent = fleet.time
    fleet.time += INTERVAL - 0.01
    lock_state.answered(sent)
    assert lock_state.deadline == sent + TTL
    fleet.time = sent + TTL - 0.01
    lock_state.check()
    assert fleet.lapses == ["stalled"]
    assert lock_state.held_since(sent)
    assert lock_state.held


def test_an_answer_that_came_after_all_was_lost_revives_nothing(fleet: Fleet) -> None:
    lock_state = fleet.lapsed("stalled")
    sent = fleet.time
    fleet.time += INTERVAL
    lock_state.answered(sent)
    assert fleet.lapses == ["stalled", "silent"]
    assert lock_state.state is State.ABSENT


def test_after_a_lapse_no_beat_makes_the_lock_held_only_a_resume_does(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    before = lock_state.epoch
    lock_state.lapse("missing")
    for epoch in (before, lock_state.epoch):
        lock_state.renewed(fleet.time, epoch)
        assert not lock_state.held
    assert lock_state.held_since(fleet.time)
    assert lock_state.held


def test_a_reply_to_what_was_asked_before_a_lapse_is_not_believed_after_it(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    asked = lock_state.epoch
    assert lock_state.believed(asked)
    lock_state.lapse("missing")
    assert not lock_state.believed(asked)
    lock_state.held_since(fleet.time)
    assert not lock_state.believed(asked)
    assert lock_state.believed(lock_state.epoch)


def test_a_beat_that_was_sent_before_a_lapse_renews_nothing_after_it(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    asked = lock_state.epoch
    lock_state.lapse("missing")
    lock_state.held_since(fleet.time)
    deadline = lock_state.deadline
    fleet.time += 1.0
    lock_state.renewed(fleet.time, asked)
    assert lock_state.deadline == deadline


def test_believing_notices_a_deadline_that_nobody_noticed_yet(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    lock_state.asking()
    fleet.time = lock_state.deadline
    assert not lock_state.believed(lock_state.epoch)
    assert fleet.lapses == ["silent"]


def test_a_reply_processed_after_the_deadline_does_not_renew(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    sent = lock_state.deadline - 0.1
    lock_state.asking()
    fleet.time = lock_state.deadline + 0.1
    lock_state.renewed(sent, lock_state.epoch)
    assert not lock_state.held
    assert fleet.lapses == ["silent"]


def test_there_is_no_quiet_time_at_the_first_join(fleet: Fleet) -> None:
    assert not fleet.joined().quiet


@pytest.mark.parametrize("cause", ["silent", "stalled", "missing"])
def test_after_a_lapse_orphans_are_left_alone_for_two_intervals(fleet: Fleet, cause: LapseCause) -> None:
    lock_state = fleet.lapsed(cause)
    lock_state.held_since(fleet.time)
    assert lock_state.quiet
    fleet.time += 2 * INTERVAL - 0.001
    assert lock_state.quiet
    fleet.time += 0.001
    assert not lock_state.quiet


def test_a_lapse_is_told_once(fleet: Fleet) -> None:
    lock_state = fleet.lapsed("silent")
    lock_state.lapse("missing")
    lock_state.check()
    assert fleet.lapses == ["silent"]
    assert lock_state.lapses == 1


def test_a_closed_client_believes_nothing_and_never_lapses(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    epoch = lock_state.epoch
    lock_state.close()
    fleet.time += 10 * TTL
    lock_state.check()
    lock_state.lapse("missing")
    assert fleet.lapses == []
    assert not lock_state.held
    assert not lock_state.believed(epoch)
    assert not lock_state.believed(lock_state.epoch)
    assert not lock_state.held_since(fleet.time)


steps = st.tuples(
    st.sampled_from(["beat", "join", "answered", "check", "missing"]), st.floats(0, 3), st.floats(0, 3)
)


@given(st.lists(steps, max_size=30))
def test_nothing_is_believed_longer_than_the_lock_lives_in_redis(script: list[tuple[str, float, float]]) -> None:
    fleet = Fleet()
    lock_state = fleet.lock_state
    last_sent = fleet.time
    assert lock_state.held_since(last_sent)
    for what, before, took in script:
        fleet.time += before
        sent, epoch = fleet.time, lock_state.epoch
        fleet.time += took
        match what:
            case "beat":
                lock_state.renewed(sent, epoch)
                last_sent = sent
            case "join":
                lock_state.held_since(sent)
                last_sent = sent
            case "answered":
                lock_state.answered(sent)
            case "check":
                lock_state.check()
            case _:
                lock_state.lapse("missing")
        assert not lock_state.held or fleet.time < last_sent + TTL
        assert lock_state.held == lock_state.believed(lock_state.epoch)
