"""Calls that travel together: each caller has its own result, and may leave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client._concurrency.batching import Batch
from redis_stream_client._concurrency.tasks import start_task

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Gone(Exception):
    """The sender is gone."""


class Sender:
    """Sends as soon as it may, and notes what it was given together."""

    def __init__(self, most: int = 10) -> None:
        self.calls: list[list[int]] = []
        self.may = asyncio.Event()
        self.tasks: list[asyncio.Task[Any]] = []
        self.batch: Batch[int, int] = Batch(self.send, self.spawn, Gone, most)

    async def send(self, items: list[int]) -> list[int | Exception]:
        self.calls.append(items)
        await self.may.wait()
        return [ValueError("negative") if item < 0 else item * item for item in items]

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        self.tasks.append(start_task(work, "sending"))
        return self.tasks[-1]


async def test_what_is_added_while_a_call_is_under_way_travels_with_the_next() -> None:
    sender = Sender()
    first = sender.batch.add(1)
    await asyncio.sleep(0)
    others = [sender.batch.add(number) for number in (2, 3)]
    sender.may.set()
    assert await asyncio.gather(first, *others) == [1, 4, 9]
    assert sender.calls == [[1], [2, 3]]


async def test_no_more_than_so_many_travel_together() -> None:
    sender = Sender(most=2)
    sender.may.set()
    await asyncio.gather(*(sender.batch.add(number) for number in range(5)))
    assert sender.calls == [[0, 1], [2, 3], [4]]


async def test_each_has_its_own_result_or_error_and_hears_it_before_who_waits_goes_on() -> None:
    sender = Sender()
    sender.may.set()
    heard: list[object] = []
    good, bad = sender.batch.add(2, heard.append), sender.batch.add(-1, heard.append)
    good.add_done_callback(lambda _: heard.append("gone on"))
    assert await good == 4
    with pytest.raises(ValueError, match="negative"):
        await bad
    assert (heard[0], heard[2]) == (4, "gone on")


async def test_a_caller_that_is_cancelled_only_stops_waiting() -> None:
    sender = Sender()
    heard: list[object] = []
    outcome = sender.batch.add(3, heard.append)
    await asyncio.sleep(0)
    assert sender.batch.has(3)
    outcome.cancel()
    sender.may.set()
    await asyncio.wait(sender.tasks)
    assert heard == [9]
    assert not sender.batch.has(3)


@pytest.mark.parametrize("begun", [True, False])
async def test_when_the_sender_is_cancelled_nobody_is_left_waiting(begun: bool) -> None:
    sender = Sender(most=1)
    outcomes = [sender.batch.add(number) for number in (1, 2)]
    if begun:
        await asyncio.sleep(0)
    sender.tasks[0].cancel()
    for outcome in outcomes:
        with pytest.raises(Gone):
            await outcome
    sender.may.set()
    assert await sender.batch.add(4) == 16, "and another one sends what comes later"


async def test_a_sender_that_cannot_be_started_takes_nothing() -> None:
    def refuse(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        work.close()
        raise Gone

    batch: Batch[int, int] = Batch(Sender().send, refuse, Gone, 10)
    with pytest.raises(Gone):
        batch.add(1)
    assert not batch.has(1)
