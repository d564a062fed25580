"""Telling whoever listens that some state has changed."""

from __future__ import annotations

import asyncio

from redis_stream_client._concurrency.notifier import Notifier


async def test_every_listener_hears_of_every_change_in_order() -> None:
    heard: list[tuple[str, int]] = []
    changed = Notifier[[int]]()
    changed.notify(0)
    changed.add(lambda number: heard.append(("first", number)))
    changed.add(lambda number: heard.append(("second", number)))
    changed.notify(1)
    changed.notify(2)
    assert heard == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]


async def test_a_part_that_waits_sees_the_change_that_came_before_it_looked() -> None:
    changed, wake = Notifier[[]](), asyncio.Event()
    changed.add(wake.set)
    wake.clear()
    changed.notify()
    await asyncio.wait_for(wake.wait(), 1)
