"""The policy for retries: what it refuses, its short form, and what a handler says by `RetryLater`."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from redis_stream_client import RetryLater, RetryPolicy
from redis_stream_client._model.retry_policy import NOT_GIVEN, later, policy


class Poison(Exception):
    """What nothing can mend."""


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"max_attempts": 0}, ValueError, "max_attempts must be at least 1"),
        ({"max_attempts": 1.5}, TypeError, "max_attempts must be an int"),
        ({"max_attempts": True}, TypeError, "max_attempts must be an int"),
        ({"patience": -1}, ValueError, "patience must be between"),
        ({"patience": float("nan")}, ValueError, "patience must be between"),
        ({"patience": float("inf")}, ValueError, "patience must be between"),
        ({"patience": "10"}, TypeError, "patience must be a number of seconds"),
        ({"first_pause": -0.1}, ValueError, "first_pause must be between"),
        ({"longest_pause": None}, TypeError, "longest_pause must be a number"),
        ({"first_pause": 2, "longest_pause": 1}, ValueError, "longest_pause must be at least first_pause = 2 s"),
        ({"bury_on": Poison}, TypeError, "bury_on must be a tuple of exception classes, not type"),
        ({"bury_on": [Poison]}, TypeError, "bury_on must be a tuple of exception classes, not list"),
        ({"bury_on": (Poison, int)}, TypeError, "<class 'int'> is none"),
        ({"bury_on": (Poison(),)}, TypeError, "is none"),
    ],
)
def test_a_policy_that_says_nothing_sensible_is_refused(
    said: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RetryPolicy(**said)


def test_a_policy_is_a_value() -> None:
    assert RetryPolicy() == RetryPolicy(
        max_attempts=16, patience=600.0, first_pause=0.1, longest_pause=30.0, bury_on=()
    )
    assert len({RetryPolicy(), RetryPolicy(patience=600)}) == 1
    assert pickle.loads(pickle.dumps(RetryPolicy(bury_on=(Poison,)))) == RetryPolicy(bury_on=(Poison,))


def test_the_short_form_has_no_patience() -> None:
    assert policy(None, NOT_GIVEN) == RetryPolicy()
    assert policy(None, 3) == RetryPolicy(max_attempts=3, patience=0)
    assert policy(None, None).max_attempts is None
    chosen = RetryPolicy(max_attempts=2)
    assert policy(chosen, NOT_GIVEN) is chosen


def test_a_policy_and_its_short_form_are_one_too_many() -> None:
    for attempts in (3, None):
        with pytest.raises(ValueError, match="give retry or max_attempts, not both"):
            policy(RetryPolicy(), attempts)
    wrong: Any = 3
    with pytest.raises(TypeError, match="retry must be a RetryPolicy, not int"):
        policy(wrong, NOT_GIVEN)


# RetryLater.


class Mute(RetryLater):
    """A subclass that says nothing."""

    def __init__(self) -> None:
        pass


class Liar(RetryLater):
    """A subclass whose attribute is no number."""

    after = "never"  # type: ignore[assignment]


@pytest.mark.parametrize(("after", "error"), [(-1, ValueError), (86_401, ValueError), ("1", TypeError)])
def test_a_rest_that_cannot_be_is_refused(after: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="after must be"):
        RetryLater(after)


def test_a_rest_can_be_copied_and_pickled() -> None:
    error = RetryLater(after=30)
    assert (error.after, str(error)) == (30.0, "after 30 s")
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(other), other.after) == (RetryLater, 30.0)


@pytest.mark.parametrize(
    ("error", "rest"),
    [
        (None, None),
        (LookupError(), None),
        (RetryLater(0), 0.0),
        (RetryLater(30), 30.0),
        (Liar(5), 5.0),
        (Mute(), None),
        (ExceptionGroup("tasks", [RetryLater(1), ExceptionGroup("more", [RetryLater(3)])]), 3.0),
        (ExceptionGroup("tasks", [RetryLater(1), LookupError()]), None),
    ],
)
def test_how_long_a_stream_is_to_rest(error: BaseException | None, rest: float | None) -> None:
    assert later(error) == rest
