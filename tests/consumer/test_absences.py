"""Who is absent, since when, and when to look again: pure."""

from __future__ import annotations

import pytest

from redis_stream_client._consumer.absences import CHEAP, LONE, PERIOD, RAREST, SETTLING, STALE, Absences
from redis_stream_client._consumer.presence_state import LEAST_GRACE
from redis_stream_client._protocol.replies import Absent, Watch

A = Absent("a", 0.15, b"run 150 1")
B = Absent("b", 0.4, b"run 400 1")
ANSWER = 0.001


def look(absences: Absences, at: float, *absent: Absent, present: int = 5, took: float = ANSWER) -> None:
    absences.saw(Watch("watching", present, absent), at, at + took)


def begun(at: float = 10.0) -> Absences:
    """Of one that has not looked yet, and may from now on."""
    absences = Absences()
    absences.begin(at)
    return absences


def due(absences: Absences, at: float) -> list[Absent]:
    return list(absences.take_due(at, 100))


def test_who_is_absent_once_is_due_after_its_own_grace() -> None:
    absences = begun()
    look(absences, 10.0, A, B)
    assert due(absences, 10.1) == []
    assert due(absences, 10.0 + ANSWER + LEAST_GRACE) == [A]
    assert due(absences, 10.0 + ANSWER + LEAST_GRACE) == []  # once
    assert due(absences, 10.0 + ANSWER + B.grace) == [B]


def test_the_next_look_does_not_put_it_off() -> None:
    absences = begun()
    look(absences, 10.0, A)
    look(absences, 10.1, A)
    assert due(absences, 10.16) == [A]


def test_a_grace_that_is_too_short_does_not_count() -> None:
    absences = begun()
    look(absences, 10.0, Absent("a", 0.001, b""))
    assert due(absences, 10.1) == []


def test_who_is_back_is_forgotten() -> None:
    absences = begun()
    look(absences, 10.0, A)
    look(absences, 10.1)
    assert due(absences, 10.2) == []
    look(absences, 10.2, A)
    assert due(absences, 10.3) == []


def test_who_declared_anew_gets_its_full_grace() -> None:
    absences = begun()
    look(absences, 10.0, A)
    anew = Absent("a", 0.15, b"run 150 2")
    look(absences, 10.1, anew)
    assert due(absences, 10.2) == []
    assert due(absences, 10.26) == [anew]


def test_many_at_once_get_more_time() -> None:
    absences = begun()
    look(absences, 10.0, A, B, present=3)
    assert due(absences, 10.9) == []
    assert due(absences, 10.0 + ANSWER + LEAST_GRACE + SETTLING) == [A]


def test_one_of_two_is_not_many() -> None:
    absences = begun()
    look(absences, 10.0, A, present=2)
    assert due(absences, 10.16) == [A]


def test_a_moment_that_was_missed_proves_nothing() -> None:
    absences = begun()
    look(absences, 10.0, A)
    assert due(absences, 10.16 + STALE) == []
    look(absences, 10.17 + STALE, A)
    assert due(absences, 10.18 + STALE) == []  # the look before was long ago


def after_trouble(absences: Absences) -> None:
    """Who is absent at 20.0 gets a second more than its grace."""
    look(absences, 20.0, A)
    for looks in range(1, 10):
        look(absences, 20.0 + looks / 10, A)
    assert due(absences, 20.9 + LEAST_GRACE) == []
    look(absences, 21.0, A)
    assert due(absences, 20.0 + ANSWER + SETTLING + LEAST_GRACE) == [A]


def test_who_stood_still_or_was_cut_off_gives_others_time_to_come_back() -> None:
    absences = begun()
    look(absences, 10.0)
    after_trouble(absences)


def test_who_never_looked_before_does_not_know_what_was() -> None:
    after_trouble(Absences())


def test_a_look_without_an_answer_gives_others_time_to_come_back() -> None:
    absences = begun(19.9)
    look(absences, 19.9)
    absences.unanswered(20.0)
    after_trouble(absences)


@pytest.mark.parametrize("what", ["watching", "other"])
def test_so_does_an_answer_that_took_too_long(what: str) -> None:
    absences = begun(19.4)
    absences.saw(Watch(what, 5), 19.4, 20.0)  # type: ignore[arg-type]
    after_trouble(absences)


def test_one_that_begins_to_watch_knows_of_no_trouble() -> None:
    absences = begun()
    absences.saw(Watch("other", 5), 10.0, 10.0)
    look(absences, absences.next_look, A)
    assert due(absences, absences.next_look + 0.1) == [A]


def test_an_answer_that_took_too_long_proves_nothing() -> None:
    absences = begun()
    look(absences, 10.0, A, took=STALE + 0.01)
    assert due(absences, 11.0) == []


@pytest.mark.parametrize("what", ["other", "blind", "undeclared", "lapsed"])
def test_who_does_not_watch_any_more_begins_anew(what: str) -> None:
    absences = begun()
    look(absences, 10.0, A)
    absences.saw(Watch(what, 5), 10.1, 10.1)  # type: ignore[arg-type]
    assert due(absences, 10.2) == []


def test_who_could_not_look_begins_anew() -> None:
    absences = begun()
    look(absences, 10.0, A)
    absences.begin(10.2)
    assert due(absences, 10.2) == []
    look(absences, 10.2, A)
    assert due(absences, 10.3) == []


def test_no_more_than_asked_for() -> None:
    absences = begun()
    look(absences, 10.0, A, Absent("c", 0.15, b""), present=50)
    assert len(absences.take_due(10.2, 1)) == 1
    assert len(absences.take_due(10.2, 1)) == 1


# When to look.


def test_the_one_that_watches_looks_ten_times_a_second() -> None:
    absences = begun()
    look(absences, 10.0, took=0.05)
    assert absences.next_look == pytest.approx(10.0 + PERIOD)
    assert absences.next_due == absences.next_look
    look(absences, 10.1, A)
    assert absences.next_due == absences.next_look
    look(absences, 10.2, A)
    assert absences.next_due == pytest.approx(10.1 + ANSWER + LEAST_GRACE)


def test_a_lone_member_looks_rarely() -> None:
    absences = begun()
    look(absences, 10.0, present=1)
    assert absences.next_look >= 10.0 + LONE


@pytest.mark.parametrize("members", [2, 3, 10, 100, CHEAP])
@pytest.mark.parametrize("what", ["other", "full"])
def test_all_others_together_look_no_more_often_than_twenty_times_a_second(members: int, what: str) -> None:
    absences = Absences()
    pauses = []
    for _ in range(1000):
        absences.saw(Watch(what, members), 10.0, 10.0)  # type: ignore[arg-type]
        pauses.append(absences.next_look - 10.0)
    mean = sum(pauses) / len(pauses)
    looking = members if what == "full" else members - 1
    assert looking / mean < 23
    assert len(set(pauses)) > 100


def test_however_many_there_are_each_looks_now_and_then() -> None:
    absences = begun()
    absences.saw(Watch("other", 100 * CHEAP), 10.0, 10.0)
    assert absences.next_look < 10.0 + 1.2 * RAREST


def test_in_a_very_large_fleet_looks_are_rarer_and_the_tenure_longer() -> None:
    absences = Absences()
    tenure = absences.tenure
    look(absences, 10.0, present=4 * CHEAP)
    assert absences.next_look == pytest.approx(10.0 + 4 * PERIOD)
    assert absences.tenure == pytest.approx(4 * tenure)


@pytest.mark.parametrize("what", ["blind", "undeclared", "lapsed"])
def test_in_trouble_it_looks_again_soon(what: str) -> None:
    absences = Absences()
    absences.saw(Watch(what), 10.0, 10.0)  # type: ignore[arg-type]
    assert absences.next_look == pytest.approx(10.0 + PERIOD)
