"""What is known of a stream in trouble, and what makes it forgotten."""

from __future__ import annotations

import pytest

from redis_stream_client._concurrency import clock
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.trouble import Trouble
from redis_stream_client._model.announcement import Announcement


@pytest.fixture
def lease() -> LeaseState:
    lease = LeaseState("1-0", Announcement("call-1", None), 4)
    lease.begin("3-0", 2, trouble=Trouble.found(5, 60.0, "LookupError"))
    return lease


def test_deaths_and_failures_are_counted_apart(lease: LeaseState) -> None:
    assert (lease.deaths, lease.failures, lease.tries) == (1, 5, 7)
    assert lease.failing_for(clock.now()) == pytest.approx(60.0, abs=1.0)


def test_a_failure_is_no_death(lease: LeaseState) -> None:
    lease.fail("TimeoutError")
    assert (lease.attempts, lease.failures, lease.tries) == (1, 6, 7)
    assert lease.trouble is not None
    assert lease.trouble.error == "TimeoutError"
    assert lease.failing_for(clock.now()) == pytest.approx(60.0, abs=1.0)


def test_the_first_failure_begins_the_time() -> None:
    lease = LeaseState("1-0", Announcement("call-1", None), 1)
    assert lease.failing_for(clock.now()) == 0.0
    lease.fail("TimeoutError")
    assert (lease.deaths, lease.failures, lease.tries) == (0, 1, 1)
    assert lease.failing_for(clock.now() + 5) == pytest.approx(5.0, abs=1.0)


@pytest.mark.parametrize("advanced", [True, False])
def test_a_checkpoint_that_moves_ends_the_trouble_also_when_a_repeat_hears_of_it(
    lease: LeaseState, advanced: bool
) -> None:
    lease.checkpointed("4-0", advanced=advanced, handed_over=0)
    assert (lease.trouble, lease.tries) == (None, 0)


def test_a_late_checkpoint_changes_nothing(lease: LeaseState) -> None:
    lease.checkpointed("3-0", advanced=False, handed_over=0)
    assert (lease.deaths, lease.failures) == (1, 5)


def test_who_has_nothing_left_to_do_is_in_no_trouble(lease: LeaseState) -> None:
    lease.acquit()
    assert (lease.trouble, lease.tries) == (None, 0)
