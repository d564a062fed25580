"""Pauses between attempts: they double, have a limit, and are never in step."""

from __future__ import annotations

from redis_stream_client._concurrency.backoff import Backoff


def test_pauses_double_up_to_the_longest_each_between_half_and_the_whole() -> None:
    backoff = Backoff(0.1, 1.0)
    for whole in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert whole / 2 <= backoff.pause() <= whole


def test_after_a_success_it_starts_anew() -> None:
    backoff = Backoff(0.1, 1.0)
    for _ in range(5):
        backoff.pause()
    backoff.reset()
    assert backoff.pause() <= 0.1


def test_two_of_a_fleet_do_not_pause_in_step() -> None:
    assert len({Backoff(1.0, 1.0).pause() for _ in range(50)}) > 40
