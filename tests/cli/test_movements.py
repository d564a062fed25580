"""What happened between two looks, in words."""

from __future__ import annotations

from dataclasses import replace

from redis_stream_client import Pause, Unread
from redis_stream_client.cli.movements import movements
from redis_stream_client.terminal.glyphs import ASCII, UNICODE
from tests.cli.test_fleet_view import fleet, member


def test_nothing_is_nothing() -> None:
    status = fleet(member(1, 5))
    assert list(movements(status, status, UNICODE)) == []


def test_who_came_went_died_and_moved_streams() -> None:
    before = fleet(member(1, 5), member(2, 5), member(3, 5), member(4, 0, alive=False), member(6, 0))
    now = fleet(
        *(member(1, 9), member(2, 5, alive=False), member(4, 0), member(5, 6, draining=True)),
        member(6, 0, alive=False),
    )
    assert list(movements(before, now, UNICODE)) == [
        "joined: web-5-0a1b2c3d",
        "died: web-2-0a1b2c3d with 5 streams",
        "gone: web-3-0a1b2c3d, web-6-0a1b2c3d",
        "came back: web-4-0a1b2c3d",
        "streams: web-5-0a1b2c3d +6, web-3-0a1b2c3d −5, web-1-0a1b2c3d +4",
    ]


def test_who_begins_to_drain() -> None:
    before, now = fleet(member(1, 5)), fleet(member(1, 4, draining=True))
    assert list(movements(before, now, ASCII)) == ["draining: web-1-0a1b2c3d", "streams: web-1-0a1b2c3d -1"]


def test_a_whole_deployment_is_two_sentences() -> None:
    before, now = fleet(), fleet(*(member(number, number) for number in range(1, 1001)))
    joined, streams = movements(before, now, UNICODE)
    assert (
        joined == "joined: web-1000-0a1b2c3d, web-999-0a1b2c3d, web-998-0a1b2c3d, web-997-0a1b2c3d and 996 others"
    )
    assert streams.endswith(" +997 and 996 others")


def test_pauses_and_letters() -> None:
    quiet = fleet()
    paused = replace(quiet, paused=Pause("a\nreason", 1.0), dead_letters=3)
    assert list(movements(quiet, paused, UNICODE)) == [r"paused: a\nreason", "3 new dead letters"]
    assert list(movements(paused, replace(paused, paused=Pause("another", 1.0)), UNICODE)) == ["paused: another"]
    assert list(movements(paused, quiet, UNICODE)) == ["resumed"]
    blind = replace(quiet, unread=(Unread("pause", "NOPERM"),), dead_letters=None)
    assert list(movements(paused, blind, UNICODE)) == []
    assert list(movements(blind, replace(paused, paused=None), UNICODE)) == []
