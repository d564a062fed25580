"""Since when a dead owner is dead, by what a member hears and sees."""

from __future__ import annotations

import pytest

from redis_stream_client._ownership.last_signs import LastSigns

TTL, GRACE = 2.0, 0.2


class Signs(LastSigns):
    """The signs, with a clock of the test."""

    def __init__(self) -> None:
        self.time = 100.0
        super().__init__(TTL, GRACE, lambda: self.time)

    def after(self, seconds: float) -> float | None:
        self.time += seconds
        return self.silent_for("peer")


def test_of_a_stranger_nothing_is_known() -> None:
    assert Signs().silent_for("peer") is None


def test_a_lock_that_has_expired_lived_for_its_lifetime_after_the_last_beat() -> None:
    signs = Signs()
    signs.lock_expired("peer")
    assert signs.after(0.5) == TTL + 0.5
    signs.has_ttl("peer", 10.0)
    signs.lock_expired("peer")
    assert signs.after(0.5) == 10.5


def test_one_that_leaves_was_alive_until_then() -> None:
    signs = Signs()
    signs.left("peer")
    assert signs.after(0.5) == 0.5


def test_one_found_dead_by_its_presence_was_absent_for_its_grace() -> None:
    signs = Signs()
    signs.deposed("peer")
    signs.found_dead("peer", idle=3600.0)  # which we know already
    assert signs.after(0.5) == pytest.approx(0.5 + GRACE)


def test_without_a_notification_the_lifetime_of_the_lock_is_the_least() -> None:
    signs = Signs()
    signs.found_dead("peer")
    assert signs.after(0.5) == TTL + 0.5
    signs.found_dead("peer")  # again
    assert signs.after(0.5) == TTL + 1.0


def test_one_that_died_before_this_member_came_was_alive_at_its_last_request() -> None:
    signs = Signs()
    signs.found_dead("peer", idle=3600.0)
    assert signs.after(0.5) == 3600.5


def test_one_that_has_made_a_request_since_its_lock_could_expire_was_deposed_or_has_left() -> None:
    signs = Signs()
    signs.found_dead("peer", idle=0.3)
    assert signs.after(0.5) == pytest.approx(0.8)


def test_one_that_was_seen_alive_has_not_been_dead_for_longer() -> None:
    signs = Signs()
    signs.found_alive("peer")
    signs.time += 1.0
    signs.found_dead("peer", idle=3600.0)  # it was full, and read nothing
    assert signs.after(0.0) == TTL + 1.0


def test_one_that_came_back_dies_anew() -> None:
    signs = Signs()
    signs.lock_expired("peer")
    signs.time += 60.0
    signs.found_alive("peer")
    assert signs.silent_for("peer") is None
    signs.time += 1.0
    signs.found_dead("peer")
    assert signs.after(0.0) == TTL


def test_what_the_group_has_forgotten_is_forgotten() -> None:
    signs = Signs()
    signs.left("peer")
    signs.left("other")
    signs.keep({"other"})
    assert (signs.silent_for("peer"), signs.silent_for("other")) == (None, 0.0)
