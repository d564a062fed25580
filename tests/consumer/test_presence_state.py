"""What a client has declared, and what Redis may believe: pure."""

from __future__ import annotations

import pytest

from redis_stream_client._consumer.presence_state import ANEW, LEAST_GRACE, TRIES, PresenceState


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def state(lock_ttl: float = 10.0, *, wanted: bool = True, time: Time | None = None) -> PresenceState:
    return PresenceState(lock_ttl, wanted=wanted, now=time or Time())


def step(presence: PresenceState) -> str | None:
    return presence.step


def declared(lock_ttl: float = 10.0) -> PresenceState:
    presence = state(lock_ttl)
    presence.heard_subscribed(0.01)
    presence.declares()
    presence.has_declared(presence.grace, 0.001)
    assert presence.standing == "declared"
    return presence


def test_a_subscription_leads_to_a_declaration() -> None:
    presence = state()
    assert step(presence) is None
    presence.heard_subscribed(0.01)
    assert step(presence) == "declare"
    assert presence.declares() == 1
    presence.has_declared(presence.grace, 0.001)
    assert presence.standing == "declared"
    assert step(presence) is None


def test_unwanted_it_does_nothing() -> None:
    presence = state(wanted=False)
    presence.heard_subscribed(0.01)
    assert presence.standing == "off"
    assert step(presence) is None


@pytest.mark.parametrize(
    ("took", "lock_ttl", "grace"),
    [(0.001, 10.0, LEAST_GRACE), (0.1, 10.0, 0.3), (9.0, 10.0, 5.0), (0.001, 0.2, 0.1)],
)
def test_the_grace_suits_the_line_and_the_lock(took: float, lock_ttl: float, grace: float) -> None:
    presence = state(lock_ttl)
    presence.heard_subscribed(took)
    assert presence.grace == pytest.approx(grace)


def test_a_grace_that_is_long_because_the_process_was_busy_is_measured_anew_and_shortened() -> None:
    time = Time()
    presence = state(time=time)
    presence.heard_subscribed(0.5)
    presence.declares()
    presence.has_declared(1.5, 0.1)
    assert presence.standing == "declared"
    assert step(presence) is None
    time.now = presence.declare_at
    assert time.now == 101.0
    assert step(presence) == "declare"
    assert presence.grace == 1.5  # 0.1 s for a round trip is no better
    presence.declares()
    presence.has_declared(presence.grace, 0.001)
    assert presence.grace == LEAST_GRACE
    time.now = presence.declare_at
    assert time.now == 103.0
    assert step(presence) == "declare"
    presence.declares()
    presence.has_declared(presence.grace, 0.001)
    assert presence.declare_at == float("inf")
    assert step(presence) is None


def test_a_line_that_stays_slow_is_measured_rarely() -> None:
    time = Time()
    presence = state(time=time)
    presence.heard_subscribed(0.3)
    for _ in range(20):
        presence.declares()
        presence.has_declared(presence.grace, 0.05)
        assert presence.grace == pytest.approx(0.9)
        time.now = presence.declare_at
    before = presence.declare_at
    presence.has_declared(presence.grace, 0.05)
    assert presence.declare_at == before + ANEW[1]


def test_with_a_short_lock_nothing_is_measured_anew() -> None:
    presence = state(0.2)
    presence.heard_subscribed(0.5)
    presence.declares()
    presence.has_declared(presence.grace, 0.1)
    assert presence.declare_at == float("inf")


def test_a_lost_subscription_leads_to_a_withdrawal_and_a_new_one_to_a_new_declaration() -> None:
    presence = declared()
    presence.heard_unsubscribed()
    assert presence.standing == "withdrawn"
    assert step(presence) == "withdraw"
    presence.heard_subscribed(0.01)
    assert step(presence) == "withdraw"  # it comes first
    assert presence.has_withdrawn(presence.losses)
    assert presence.withdrawals == 1
    assert step(presence) == "declare"
    assert presence.declares() == 2


def test_a_declaration_without_an_answer_is_withdrawn_all_the_same() -> None:
    presence = state()
    presence.heard_subscribed(0.01)
    presence.declares()
    presence.heard_unsubscribed()
    assert step(presence) == "withdraw"


def test_an_answer_that_comes_after_the_loss_does_not_count() -> None:
    presence = state()
    presence.heard_subscribed(0.01)
    presence.declares()
    presence.heard_unsubscribed()
    presence.has_declared(presence.grace, 0.001)
    assert presence.standing == "withdrawn"
    assert step(presence) == "withdraw"


def test_who_never_declared_has_nothing_to_withdraw() -> None:
    presence = state()
    presence.heard_subscribed(0.01)
    presence.heard_unsubscribed()
    assert step(presence) is None


def test_a_declaration_that_was_given_up_may_arrive_late_so_the_next_loss_withdraws_again() -> None:
    presence = declared()
    presence.heard_unsubscribed()
    assert presence.has_withdrawn(presence.losses)
    presence.heard_subscribed(0.01)
    presence.heard_unsubscribed()
    assert step(presence) == "withdraw"


def test_a_withdrawal_that_was_sent_before_the_last_loss_does_not_count() -> None:
    presence = declared()
    presence.heard_unsubscribed()
    losses = presence.losses
    presence.heard_subscribed(0.01)
    presence.heard_unsubscribed()  # in between, Redis may have executed a declaration that was given up
    assert not presence.has_withdrawn(losses)
    assert step(presence) == "withdraw"
    assert presence.has_withdrawn(presence.losses)
    assert step(presence) is None


def test_losing_it_twice_is_losing_it_once() -> None:
    presence = state()
    presence.heard_unsubscribed()
    assert step(presence) is None
    assert presence.unsubscribed_at == float("-inf")


def test_who_is_not_seen_for_long_gives_up_until_the_next_subscription() -> None:
    presence = state()
    presence.heard_subscribed(0.01)
    for _ in range(TRIES - 1):
        presence.declares()
        presence.not_seen()
        assert step(presence) == "declare"
    presence.declares()
    presence.not_seen()
    assert presence.standing == "impossible"
    assert "proxy" in presence.why
    assert step(presence) == "withdraw"  # should one of the answers be wrong
    assert presence.has_withdrawn(presence.losses)
    assert step(presence) is None
    presence.heard_subscribed(0.01)
    assert step(presence) == "declare"


def test_what_redis_refuses_needs_no_withdrawal() -> None:
    presence = state()
    presence.heard_subscribed(0.01)
    presence.declares()
    assert presence.refused("no permission") is True
    assert presence.standing == "impossible"
    assert step(presence) is None
    presence.heard_unsubscribed()
    assert step(presence) is None


def test_an_earlier_declaration_does_when_a_later_one_is_refused() -> None:
    presence = declared()
    presence.undeclared()
    presence.declares()
    assert presence.refused("no permission any more") is False
    assert step(presence) == "withdraw"


def test_taking_the_lock_anew_withdraws() -> None:
    presence = declared()
    presence.lock_taken_anew()
    assert presence.standing == "withdrawn"
    assert step(presence) == "declare"
    presence.heard_unsubscribed()
    assert step(presence) == "withdraw"
    presence.lock_taken_anew()
    assert step(presence) == "withdraw"  # one that is still under way


def test_a_loss_while_the_lock_was_taken_anew_is_not_forgotten() -> None:
    presence = declared()
    presence.heard_unsubscribed()
    presence.heard_subscribed(0.01)
    presence.lock_taken_anew()
    assert step(presence) == "withdraw"


def test_a_declaration_that_redis_has_lost_is_made_again() -> None:
    presence = declared()
    presence.undeclared()
    assert step(presence) == "declare"


def test_a_subscription_that_redis_has_lost_is_made_anew_unless_we_know() -> None:
    presence = declared()
    told = []
    presence.blind.add(lambda: told.append(presence.subscribed))
    presence.not_seen_any_more()
    presence.heard_unsubscribed()
    presence.not_seen_any_more()
    assert told == [True]


def test_it_tells_of_what_has_changed() -> None:
    presence = state()
    told = []
    presence.changed.add(lambda: told.append(presence.step))
    presence.heard_subscribed(0.01)
    presence.declares()
    presence.has_declared(presence.grace, 0.001)
    presence.heard_unsubscribed()
    presence.heard_of_other()
    presence.heard_of_other()
    assert told == ["declare", None, "withdraw", "withdraw"]


def test_it_knows_whether_others_are_present() -> None:
    presence = declared()
    assert not presence.others
    presence.heard_of_other()
    assert presence.others
    presence.counted(1, watching=True)
    assert not presence.others
    presence.counted(3, watching=False)
    assert presence.others
    assert presence.members == 3
    assert not presence.watching
