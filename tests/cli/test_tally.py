"""A sum over the streams: it agrees with `Fleet.lag`, and remembers the worst."""

from __future__ import annotations

import random
from typing import Any

from redis_stream_client import Lag, StreamStatus
from redis_stream_client.cli.tally import WORST, Tally


def stream(number: int, **facts: Any) -> StreamStatus:
    known: dict[str, Any] = {
        "owner": "a",
        "owner_alive": True,
        "deliveries": 1,
        "behind": 0.0,
        "entries": 0,
    } | facts
    return StreamStatus(stream=f"call-{number}", lbs_id=f"{number}-0", **known)


def test_it_adds_up() -> None:
    tally = Tally(5.0)
    assert tally.lag() == Lag(0, False, 0.0, None, 0, 0, 0)
    for one in (
        stream(1),
        stream(2, behind=5.0, entries=3),
        stream(3, behind=7.5, entries=100, more=True, owner="b"),
        stream(4, owner=None, deliveries=0, behind=4.9, entries=2),
        stream(5, behind=None, entries=None, unread="no answer"),
    ):
        tally.add(one)
    assert tally.lag() == Lag(105, True, 7.5, "call-3", 1, 5, 1)
    assert tally.late == 2
    assert [one.stream for one in tally.worst()] == ["call-3", "call-2", "call-4"]
    assert [one.stream for one in tally.worst_late()] == ["call-3", "call-2"]
    assert [one.stream for one in tally.unreadable] == ["call-5"]
    assert tally.members == {"a": 5.0, "b": 7.5}


def test_what_is_not_behind_is_late_only_for_a_limit_of_none_at_all() -> None:
    strict, usual = Tally(0.0), Tally(0.1)
    for tally in (strict, usual):
        tally.add(stream(1))
        tally.add(stream(2, behind=None, unread="no answer"))
    assert (strict.late, usual.late) == (1, 0)


def test_it_keeps_the_worst_and_no_more() -> None:
    tally = Tally()
    numbers = list(range(1, 1001))
    random.shuffle(numbers)
    for number in numbers:
        tally.add(stream(number, behind=float(number)))
        tally.add(stream(-number, behind=None, unread="no answer"))
    assert [one.behind for one in tally.worst()] == [float(number) for number in range(1000, 1000 - WORST, -1)]
    assert (len(tally.unreadable), tally.unread) == (WORST, 1000)
