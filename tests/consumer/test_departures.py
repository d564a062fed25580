"""Departures: what goes is counted, and whatever has not gone in time stays."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis_stream_client._consumer import on_their_way
from redis_stream_client._consumer.departures import Departures
from redis_stream_client._model.statistics import Counters
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    import pytest


class Scene:
    def __init__(self) -> None:
        self.counters = Counters()
        self.stayed: list[str] = []
        self.departures = Departures[str](self.counters, self.stayed.append)

    @property
    def counts(self) -> tuple[int, int]:
        return self.counters.streams_going, self.counters.streams_given


async def test_what_was_to_go_and_is_released_is_given() -> None:
    scene = Scene()
    scene.departures.begin(["a", "b", "c"])
    assert list(scene.departures) == ["a", "b", "c"]
    assert scene.counts == (3, 0)
    scene.departures.ended("a", released=True)
    scene.departures.ended("b", released=False)
    scene.departures.ended("z", released=True)  # nobody wanted that one
    assert scene.counts == (1, 1)
    scene.departures.clear()
    assert (len(scene.departures), scene.counts) == (0, (0, 1))
    assert scene.departures.able("c")


async def test_what_does_not_go_in_time_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_their_way, "UNWILLING", 0.02)
    scene = Scene()
    scene.departures.begin(["a"])
    await asyncio.sleep(0.01)
    scene.departures.begin(["b"])
    await wait_until(lambda: scene.stayed == ["a", "b"], "one after the other had its time")
    assert scene.counts == (0, 0)
    assert not scene.departures.able("a")
    scene.departures.ended("a", released=True)
    assert scene.counts == (0, 0)
    assert scene.departures.able("a")


async def test_the_time_of_those_in_line_begins_when_it_is_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a line with long round trips the last of many waits for longer than one has."""
    monkeypatch.setattr(on_their_way, "UNWILLING", 0.02)
    scene = Scene()
    scene.departures.line_up(["a", "b", "c"])
    assert (scene.departures.next(), list(scene.departures)) == ("a", ["a", "b", "c"])
    await wait_until(lambda: scene.stayed == ["a"], "the first had its time")
    assert scene.counts == (2, 0)
    assert not scene.departures.able("b")
    scene.departures.ended("b", released=True)  # by itself
    assert (scene.departures.next(), scene.departures.next()) == ("c", None)
    scene.departures.ended("c", released=True)
    assert scene.counts == (0, 2)
    scene.departures.line_up(["d"])
    scene.departures.clear()
    assert (scene.departures.next(), len(scene.departures)) == (None, 0)


async def test_nobody_waits_for_what_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_their_way, "UNWILLING", 0.02)
    scene = Scene()
    scene.departures.begin(["a"])
    scene.departures.ended("a", released=True)
    scene.departures.begin(["b"])
    await wait_until(lambda: scene.stayed, "the other one stays")
    assert scene.stayed == ["b"]
