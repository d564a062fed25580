"""The window: how much one request asks for, on lines of any speed and after an outage."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._redis.window import FIRST_TRIAL, LONGEST_PATIENCE, Window
from tests.harness.logs import LOG

if TYPE_CHECKING:
    from collections.abc import Callable


class Line:
    """A line over which so much goes in a second, and a clock."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.time = 0.0
        self.window = Window("things in a read", 1_000, 1.0, log=LOG, now=lambda: self.time)
        self.failures = 0

    def ask(self) -> int:
        """One request; returns how much came."""
        size, needed = self.window.size, self.window.size / self.speed
        if needed > self.window.patience:
            self.time += self.window.patience
            self.failures += 1
            self.window.unanswered()
            return 0
        self.time += needed
        self.window.answered()
        return size

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(10_000):
            if condition():
                return
            self.ask()
        raise AssertionError("never")


@pytest.mark.parametrize("speed", [0.1, 0.5, 1, 3, 20, 150, 900])
def test_whatever_the_speed_all_goes_through_in_about_the_time_that_the_line_needs(speed: float) -> None:
    line, came = Line(speed), 0
    for _ in range(10_000):
        came += line.ask()
        if came >= 2_000:
            break
    assert came >= 2_000
    needed = came / speed
    assert line.time <= 2.5 * needed + 60
    assert line.failures <= 12 + line.time / FIRST_TRIAL


def test_after_an_outage_it_is_soon_as_large_as_before() -> None:
    line = Line(10_000)
    line.speed = 1e-9
    for _ in range(20):
        line.ask()
    assert line.window.size == 1
    assert line.window.patience == LONGEST_PATIENCE
    line.speed = 10_000
    line.until(lambda: line.window.size >= 500)
    assert line.time < 20 * LONGEST_PATIENCE + 10
    line.time += FIRST_TRIAL
    line.until(lambda: line.window.size == 1_000 and line.window.patience == 1.0)


def test_a_page_that_was_smaller_than_the_window_shrinks_it_to_less_than_itself() -> None:
    window = Window("things", 1_000, 1.0, log=LOG)
    window.unanswered(40)
    assert window.size == 10


@pytest.mark.parametrize("size", [1, 3, 40])
def test_one_small_request_that_was_cut_off_does_not_make_all_others_small(size: int) -> None:
    window = Window("things", 1_000, 1.0, log=LOG)
    window.answered(size=40)
    window.unanswered(size)
    for _ in range(10):
        window.answered(size=window.size)
    assert window.size == 1_000


def test_the_first_request_of_all_may_be_cut_off_too_and_says_nothing_about_sizes() -> None:
    window = Window("things", 1_000, 1.0, log=LOG)
    window.unanswered(1)
    for _ in range(10):
        window.answered(size=window.size)
    assert window.size == 1_000


def test_a_size_that_worked_and_fails_twice_is_too_large_now() -> None:
    window = Window("things", 1_000, 1.0, log=LOG)
    window.answered(size=1_000)
    for _ in range(2):
        window.size = 400
        window.unanswered(400)
        for _ in range(10):
            window.answered(size=min(window.size, 200))
    assert window.size == 200


def test_it_says_once_with_size_and_patience_what_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "redis_stream_client")
    window = Window("things in a read", 1_000, 1.0, log=LOG)
    for _ in range(6):
        window.unanswered()
    [warning] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "things in a read" in warning.getMessage()
    assert "asks for 62, and waits 4 s" in warning.getMessage()
    assert window.shrunk == 6
