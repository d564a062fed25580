"""What a client may believe about its own lock, on a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_stream_client._leases.lock_state import UNANSWERED, LapseCause, LockState, State

TTL = 2.0
INTERVAL = 0.5
GRACE = 0.2
OVERDUE = INTERVAL + UNANSWERED  # seconds after the last beat: one is due, and has not been answered in time


class Fleet:
    """A lock state with a clock of its own, and the lapses that it told."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.lapses: list[LapseCause] = []
        self.lock_state = LockState(TTL, INTERVAL, self.lapses.append, lambda: self.time)
        self.told = 0
        self.questions = 0
        self.lock_state.changed.add(self._changed)
        self.lock_state.questioned.add(self._questioned)

    def _changed(self) -> None:
        self.told += 1

    def _questioned(self) -> None:
        self.questions += 1

    def joined(self) -> LockState:
        assert self.lock_state.held_since(self.time)
        return self.lock_state

    def declared(self, grace: float = GRACE) -> LockState:
        lock_state = self.joined()
        lock_state.declared(grace)
        return lock_state

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
    lock_state.beating(fleet.time)
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
    lock_state.beating(fleet.time)
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
    lock_state.beating(fleet.time)
    fleet.time = lock_state.deadline
    assert not lock_state.believed(lock_state.epoch)
    assert fleet.lapses == ["silent"]


def test_a_reply_processed_after_the_deadline_does_not_renew(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    sent = lock_state.deadline - 0.1
    lock_state.beating(fleet.time)
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


def test_a_declaration_alone_is_no_reason_for_doubt(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    assert lock_state.held
    assert fleet.questions == 0


def test_a_lost_subscription_is_doubt_from_half_the_grace_on(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    lost = fleet.time
    fleet.time += GRACE / 4  # it was noticed a moment later
    lock_state.unseen(lost)
    assert fleet.questions == 1
    fleet.time = lost + GRACE / 2 - 0.001
    assert lock_state.held
    fleet.time = lost + GRACE / 2
    assert not lock_state.held
    assert lock_state.alive
    assert lock_state.state is State.HELD
    assert lock_state.believed(lock_state.epoch)
    assert fleet.lapses == []


def test_a_subscription_that_is_lost_again_and_again_gains_no_time(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    lost = fleet.time
    lock_state.unseen(lost)
    fleet.time = lost + GRACE / 2
    lock_state.unseen(fleet.time)
    lock_state.declared(10 * GRACE)
    assert not lock_state.held


def test_without_a_declaration_a_lost_subscription_means_nothing_but_a_question(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    lock_state.unseen(fleet.time)
    assert fleet.questions == 1
    fleet.time = lock_state.deadline - 0.001
    assert lock_state.held


def test_of_two_declarations_without_an_answer_the_shorter_grace_counts(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    lock_state.declared(2 * GRACE)
    lock_state.unseen(fleet.time)
    fleet.time += GRACE / 2
    assert not lock_state.held


def test_a_beat_does_not_end_the_doubt_about_a_lost_subscription(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    lock_state.unseen(fleet.time)
    fleet.time += GRACE
    lock_state.renewed(fleet.time, lock_state.epoch)
    assert not lock_state.held
    assert lock_state.alive
    assert lock_state.deadline == fleet.time + TTL  # it lapses no earlier than without a declaration


def test_a_withdrawal_ends_the_doubt_and_tells_so(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    lock_state.unseen(fleet.time)
    fleet.time += GRACE
    assert not lock_state.held
    told = fleet.told
    lock_state.withdrawn()
    assert fleet.told == told + 1
    assert lock_state.held
    fleet.time = lock_state.deadline - 0.001
    assert lock_state.held
    fleet.time += 0.001
    assert not lock_state.held


def test_a_withdrawal_in_time_tells_nobody(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    lock_state.unseen(fleet.time)
    told = fleet.told
    lock_state.withdrawn()
    assert fleet.told == told
    assert lock_state.held


@pytest.mark.parametrize(
    ("ttl", "interval", "grace", "overdue"),
    [
        (2.0, 0.5, 0.15, 1.0),
        (10.0, 2.5, 0.15, 3.0),
        (10.0, 2.5, 2.0, 3.5),  # a slow line: subscribing took long, and so will a beat
        (10.0, 2.5, 5.0, 5.0),
        (10.0, 0.1, 0.15, 0.6),  # many beats: one that is late says nothing
        (0.4, 0.1, 0.15, 0.4),  # the lock itself expires before
    ],
)
def test_an_overdue_beat_is_doubt_for_those_that_are_declared(
    ttl: float, interval: float, grace: float, overdue: float
) -> None:
    time = 1000.0
    lock_state = LockState(ttl, interval, lambda cause: None, lambda: time)
    lock_state.held_since(time)
    lock_state.declared(grace)
    time = 1000.0 + overdue - 0.001
    assert lock_state.held
    time = 1000.0 + overdue + 0.001
    assert not lock_state.held
    assert lock_state.alive == (overdue < ttl)
    lock_state.withdrawn()
    assert lock_state.held == (overdue < ttl)


def test_a_question_without_an_answer_is_doubt(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    fleet.time += 0.1
    asked = fleet.time
    lock_state.asking(asked)
    fleet.time += 0.2
    lock_state.beating(fleet.time)  # to ask once more gains no time
    fleet.time = asked + UNANSWERED - 0.001
    assert lock_state.held
    fleet.time = asked + UNANSWERED
    assert not lock_state.held
    assert lock_state.alive
    told = fleet.told
    lock_state.there(asked, lock_state.epoch)
    assert lock_state.held
    assert fleet.told == told + 1
    fleet.time = asked + 0.2 + UNANSWERED  # the other one has no answer yet
    assert not lock_state.held
    lock_state.there(fleet.time, lock_state.epoch)
    assert lock_state.held


def test_that_the_lock_is_there_does_not_prolong_it(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    deadline = lock_state.deadline
    fleet.time += 0.1
    lock_state.asking(fleet.time)
    lock_state.there(fleet.time, lock_state.epoch)
    assert lock_state.deadline == deadline


def test_without_a_declaration_a_question_without_an_answer_means_nothing(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    lock_state.asking(fleet.time)
    fleet.time = lock_state.deadline - 0.001
    assert lock_state.held


def test_the_next_answered_beat_ends_the_doubt_about_the_last_one(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    fleet.time += OVERDUE
    assert not lock_state.held
    told = fleet.told
    lock_state.renewed(fleet.time, lock_state.epoch)
    assert lock_state.held
    assert fleet.told == told + 1
    fleet.time += OVERDUE - 0.001
    assert lock_state.held
    fleet.time += 0.001
    assert not lock_state.held


def test_a_beat_in_time_tells_nobody(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    fleet.time += INTERVAL
    told = fleet.told
    lock_state.renewed(fleet.time, lock_state.epoch)
    assert fleet.told == told


def test_an_answer_to_a_beat_of_long_ago_ends_no_doubt(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    sent = fleet.time + 0.1
    fleet.time = sent + OVERDUE
    lock_state.renewed(sent, lock_state.epoch)
    assert not lock_state.held
    assert lock_state.alive


def test_a_doubted_lock_lapses_as_any_other(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    lock_state.unseen(fleet.time)
    lock_state.beating(fleet.time)
    fleet.time = lock_state.deadline
    assert not lock_state.alive
    lock_state.check()
    assert fleet.lapses == ["silent"]


def test_a_resume_takes_the_declaration_back(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    lock_state.lapse("missing")
    assert not lock_state.alive
    assert lock_state.held_since(fleet.time)
    fleet.time = lock_state.deadline - 0.001
    assert lock_state.held


def test_a_resume_does_not_end_the_doubt_about_a_lost_subscription(fleet: Fleet) -> None:
    """A declaration that was under way may have been executed after the lock was taken."""
    lock_state = fleet.declared()
    lock_state.unseen(fleet.time)
    fleet.time += GRACE
    lock_state.lapse("missing")
    assert lock_state.held_since(fleet.time)
    assert lock_state.alive
    assert not lock_state.held
    lock_state.withdrawn()
    assert lock_state.held


def test_a_withdrawn_declaration_may_be_executed_late(fleet: Fleet) -> None:
    lock_state = fleet.declared()
    lock_state.withdrawn()
    lock_state.unseen(fleet.time)
    assert lock_state.held
    fleet.time += GRACE / 2
    assert not lock_state.held


def test_a_question_is_no_change(fleet: Fleet) -> None:
    lock_state = fleet.joined()
    told = fleet.told
    lock_state.doubt()
    assert fleet.questions == 1
    assert fleet.told == told
    assert lock_state.held


STEPS = ["ask", "there", "beat", "join", "answered", "check", "missing", "declared", "unseen", "withdrawn"]
steps = st.tuples(
    st.sampled_from(STEPS),
    st.floats(0, 3),
    st.floats(0, 3),
)


@given(st.lists(steps, max_size=30))
def test_nothing_is_believed_longer_than_the_lock_lives_in_redis(script: list[tuple[str, float, float]]) -> None:
    fleet = Fleet()
    lock_state = fleet.lock_state
    last_sent = fleet.time
    assert lock_state.held_since(last_sent)
    declared, unseen_at, asked_at = False, float("inf"), float("inf")
    for what, before, took in script:
        fleet.time += before
        sent, epoch = fleet.time, lock_state.epoch
        fleet.time += took
        match what:
            case "ask":
                lock_state.asking(sent)
                asked_at = min(sent, asked_at)
            case "there":
                lock_state.there(sent, epoch)
                asked_at = float("inf")
            case "beat":
                lock_state.renewed(sent, epoch)
                last_sent, asked_at = sent, float("inf")
            case "join":
                if lock_state.held_since(sent):
                    declared, unseen_at, asked_at = False, float("inf"), float("inf")
                last_sent = sent
            case "declared":
                lock_state.declared(GRACE)
                declared = True
            case "unseen":
                lock_state.unseen(sent)
                unseen_at = min(sent, unseen_at) if declared else unseen_at
            case "withdrawn":
                lock_state.withdrawn()
                declared, unseen_at = False, float("inf")
            case "answered":
                lock_state.answered(sent)
            case "check":
                lock_state.check()
            case _:
                lock_state.lapse("missing")
        assert not lock_state.held or fleet.time < last_sent + TTL
        assert not lock_state.held or fleet.time < unseen_at + GRACE / 2
        assert not lock_state.held or not declared or fleet.time < last_sent + OVERDUE
        assert not lock_state.held or not declared or fleet.time < asked_at + UNANSWERED
        assert lock_state.alive == lock_state.believed(lock_state.epoch)
        assert lock_state.alive or not lock_state.held
