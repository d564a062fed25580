"""Idle time: what passes, what starts it anew, and when to look again."""

from __future__ import annotations

from redis_stream_client._leases.idle_time import FIRST_LOOK, LOOKS, IdleTime


def test_it_passes_while_steps_wait_and_over_several_of_them() -> None:
    idle = IdleTime(10.0)
    assert idle.start(0) == 10.0
    idle.stop(4.0)
    assert idle.start(0) == 6.0
    idle.stop(5.0)
    assert not idle.passed
    assert idle.start(0) == 1.0
    idle.stop(1.5)
    assert idle.passed
    assert idle.start(0) == 0.0


def test_an_entry_starts_it_anew() -> None:
    idle = IdleTime(10.0)
    idle.start(0)
    idle.stop(9.0)
    assert idle.start(1) == 10.0
    idle.stop(9.0)
    assert idle.start(1) == 1.0


def test_it_is_never_shorter_than_a_look() -> None:
    idle = IdleTime(0.0)
    assert idle.start(0) == FIRST_LOOK


def test_an_answer_starts_it_anew() -> None:
    idle = IdleTime(10.0)
    idle.start(0)
    idle.stop(11.0)
    idle.trying = True
    idle.answered(asleep=False)
    assert (idle.trying, idle.over, idle.passed) == (False, False, False)
    assert idle.start(0) == 10.0
    idle.answered(asleep=True)
    assert idle.over


def test_where_nothing_is_read_it_looks_less_and_less_often_and_then_starts_anew() -> None:
    idle = IdleTime(600.0)
    idle.start(0)
    idle.stop(600.0)
    looks: list[float] = []
    for _ in range(LOOKS + 1):
        assert idle.passed
        idle.look_again()
        looks.append(idle.start(0))
        idle.stop(looks[-1])
    assert looks == [FIRST_LOOK * 2**look for look in range(LOOKS)] + [600.0]
