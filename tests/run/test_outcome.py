"""What `run()` is told, and how work ends: how long a stream rests after a failure, and whose fault an end is."""

from __future__ import annotations

import pytest

from redis_stream_client import PoisonError
from redis_stream_client._model.retry_policy import RetryPolicy
from redis_stream_client._run.outcome import Outcome, Rules, Status

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
RULES = Rules(RetryPolicy(max_attempts=5), progress_timeout=None, patience=1.0)


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_a_rest_doubles_with_each_attempt_and_is_spread_over_its_second_half(attempts: int) -> None:
    longest = FIRST_PAUSE * 2 ** (attempts - 1)
    pauses = [RULES.pause(attempts) for _ in range(200)]
    assert all(longest / 2 <= pause <= longest for pause in pauses)
    assert max(pauses) - min(pauses) > longest / 4, "the streams of one failure do not come back together"


@pytest.mark.parametrize("attempts", [10, 100, 10**9])
def test_a_rest_has_a_limit(attempts: int) -> None:
    assert LONGEST_PAUSE / 2 <= RULES.pause(attempts) <= LONGEST_PAUSE


def test_an_attempt_that_did_not_count_rests_as_the_first_one() -> None:
    assert FIRST_PAUSE / 2 <= RULES.pause(0) <= FIRST_PAUSE


@pytest.mark.parametrize(
    ("status", "error", "failed"),
    [
        ("done", None, False),
        ("released", None, False),
        ("failed", ZeroDivisionError(), True),
        ("dead", ZeroDivisionError(), True),
        ("dead", None, False),  # its owners died: this one has not even begun
        ("drained", None, False),
        ("stalled", None, True),
        ("lost", None, False),
    ],
)
def test_only_what_a_handler_did_is_its_failure(status: Status, error: Exception | None, failed: bool) -> None:
    assert Outcome(status, error, None, 1).failed is failed


class Poison(PoisonError):
    """One of the user's own."""


@pytest.mark.parametrize(
    ("error", "poison"),
    [
        (None, None),
        (ValueError(), None),
        (PoisonError(), PoisonError),
        (Poison(), Poison),
        (KeyError(), KeyError),
        (BaseExceptionGroup("", [ValueError(), ExceptionGroup("", [Poison()])]), Poison),
        (ExceptionGroup("", [ValueError()]), None),
    ],
)
def test_what_no_attempt_can_mend_is_found_wherever_it_is(
    error: BaseException | None, poison: type[BaseException] | None
) -> None:
    rules = Rules(RetryPolicy(bury_on=(LookupError,)), progress_timeout=None, patience=1.0)
    found = rules.poison_in(error)
    assert (type(found) if found is not None else None) is poison
