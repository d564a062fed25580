"""Who did not help lately: asked last for a while, and forgiven."""

from __future__ import annotations

from redis_stream_client._redis.unhelpful import FORGIVEN, Unhelpful


class Time:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_who_did_not_help_comes_last_and_the_one_that_is_asked_longest_ago_first() -> None:
    time = Time()
    unhelpful: Unhelpful[str] = Unhelpful(time)
    unhelpful.mark("a")
    time.now += 1
    unhelpful.mark("b")
    assert sorted(["b", "a", "c"], key=unhelpful.since) == ["c", "a", "b"]
    assert "a" in unhelpful
    assert "c" not in unhelpful


def test_after_a_while_it_is_forgiven() -> None:
    time = Time()
    unhelpful: Unhelpful[str] = Unhelpful(time)
    unhelpful.mark("a")
    time.now += FORGIVEN - 1
    assert "a" in unhelpful
    time.now += 1
    assert "a" not in unhelpful
    assert unhelpful.since("a") == 0.0


def test_who_helps_is_forgiven_at_once() -> None:
    unhelpful: Unhelpful[str] = Unhelpful(Time())
    unhelpful.mark("a")
    unhelpful.forgive("a")
    unhelpful.forgive("b")
    assert "a" not in unhelpful


def test_what_counts_may_be_when_it_was_asked() -> None:
    time = Time()
    unhelpful: Unhelpful[str] = Unhelpful(time)
    unhelpful.mark("a", time.now - 5)
    assert unhelpful.since("a") == time.now - 5
