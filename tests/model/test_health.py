"""What ages mean: from which on something is stuck, and what that says of a client."""

from __future__ import annotations

import pytest

from redis_stream_client._model import health
from tests.harness.options import checked


def test_what_is_older_than_the_limit_is_named_the_oldest_first() -> None:
    found = health.judge(checked(), alive=True, announcement=11.0, lease=("call-1", 30.0), wakeup=("call-2", 9.9))
    assert found.limit == 10.0
    assert [(one.what, one.stream, one.age) for one in found.stuck] == [
        ("lease", "call-1", 30.0),
        ("announcement", None, 11.0),
    ]
    assert not found.ok
    assert (found.oldest_announcement, found.oldest_unhandled, found.oldest_wakeup) == (11.0, 30.0, 9.9)


@pytest.mark.parametrize("alive", [True, False])
def test_without_anything_that_waits_a_client_with_its_lock_is_well(alive: bool) -> None:
    found = health.judge(checked(), alive=alive)
    assert found.ok is alive
    assert found.stuck == ()


def test_announcements_that_wait_for_the_end_of_an_outage_are_not_stuck() -> None:
    found = health.judge(checked(), alive=True, announcement=100.0, outage=True, full=True)
    assert found.ok
    assert found.oldest_announcement == 100.0
