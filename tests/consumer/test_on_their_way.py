"""Streams on their way to others: how long they may take, and which are left alone for a while."""

from __future__ import annotations

import gc
import math
import weakref

import pytest

from redis_stream_client._consumer.on_their_way import ALONE, UNWILLING, OnTheirWay


class Stream:
    """What weak references can point to."""


class Scene:
    """What one member gives up, and a clock that the test moves."""

    def __init__(self) -> None:
        self.time = 50.0
        self.leaving = OnTheirWay[str](lambda: self.time)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_is_on_its_way_counts_until_it_has_gone(scene: Scene) -> None:
    assert (len(scene.leaving), scene.leaving.next_overdue) == (0, math.inf)
    for stream in ("a", "b"):
        assert scene.leaving.able(stream)
        scene.leaving.begin(stream)
    assert len(scene.leaving) == 2
    assert "a" in scene.leaving
    assert not scene.leaving.able("a")
    scene.leaving.ended("a")
    scene.leaving.ended("a")
    assert len(scene.leaving) == 1
    assert scene.leaving.able("a")


def test_a_handler_that_reaches_no_checkpoint_is_left_alone_for_a_while(scene: Scene) -> None:
    scene.leaving.begin("a")
    scene.time += UNWILLING / 2
    scene.leaving.begin("b")
    assert scene.leaving.next_overdue == scene.time + UNWILLING / 2
    assert scene.leaving.overdue() == []
    scene.time = scene.leaving.next_overdue
    assert scene.leaving.overdue() == ["a"]
    assert scene.leaving.overdue() == []
    assert len(scene.leaving) == 1
    assert scene.leaving.next_overdue == scene.time + UNWILLING / 2
    assert not scene.leaving.able("a")
    scene.time += ALONE
    assert scene.leaving.able("a")
    scene.leaving.begin("a")
    assert "a" in scene.leaving


def test_a_stream_that_has_ended_is_forgotten(scene: Scene) -> None:
    scene.leaving.begin("a")
    scene.time += UNWILLING
    assert scene.leaving.overdue() == ["a"]
    scene.leaving.ended("a")
    assert scene.leaving.able("a")


def test_what_was_left_alone_for_long_enough_is_not_remembered(scene: Scene) -> None:
    """Nobody says of it that it has ended, where the user alone knows."""
    gone = Stream()
    known = weakref.ref(gone)
    leaving = OnTheirWay[Stream](lambda: scene.time)
    leaving.begin(gone)
    scene.time += UNWILLING
    assert leaving.overdue() == [gone]
    del gone
    scene.time += ALONE
    leaving.begin(Stream())
    gc.collect()
    assert known() is None
