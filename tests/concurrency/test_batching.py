"""Calls that travel together: each caller has its own result, and may leave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client._concurrency.batching import Batch
from redis_stream_client._concurrency.tasks import start_task

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


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


class Line:
    """What sends one at once: it is open or not, and answers when the test says so."""

    def __init__(self) -> None:
        self.open = True
        self.sent: list[int] = []
        self.answer: list[Callable[[int | Exception], None]] = []
        self.sender = Sender()
        self.sender.may.set()
        self.batch: Batch[int, int] = Batch(self.sender.send, self.sender.spawn, Gone, 10, self.send)

    def send(self, item: int, heard: Callable[[int | Exception], None]) -> bool:
        if self.open:
            self.sent.append(item)
            self.answer.append(heard)
        return self.open


async def test_one_on_its_own_is_sent_at_once_and_needs_no_task() -> None:
    line = Line()
    heard: list[object] = []
    for number in (1, 2):
        outcome = line.batch.add(number, heard.append)
        outcome.add_done_callback(lambda _: heard.append("gone on"))
        assert line.batch.has(number)
        line.answer.pop()(number * 10)
        assert not line.batch.has(number)
        assert await outcome == number * 10
        await asyncio.sleep(0)  # for the callback
    assert line.sent == [1, 2]
    assert not line.sender.tasks
    assert heard == [10, "gone on", 20, "gone on"]


async def test_others_beside_it_share_a_call_and_do_not_wait_for_it() -> None:
    line = Line()
    alone, second, third = [line.batch.add(number) for number in (1, 2, 3)]
    assert (await second, await third) == (4, 9)
    assert (line.sent, line.sender.calls) == ([1], [[2, 3]])
    assert not alone.done()
    line.answer.pop()(1)
    assert await alone == 1


async def test_none_overtakes_what_waits_to_be_sent() -> None:
    line = Line()
    line.batch.add(1)
    second = line.batch.add(2)
    line.answer.pop()(1)
    third = line.batch.add(3)
    assert (await second, await third) == (4, 9)
    assert (line.sent, line.sender.calls) == ([1], [[2, 3]])


async def test_where_several_travel_together_the_next_call_is_open_to_several_too() -> None:
    line = Line()
    line.batch.add(1)
    for numbers in ([2, 3], [4, 5], [6]):
        outcomes = [line.batch.add(number) for number in numbers]
        assert [await outcome for outcome in outcomes] == [number * number for number in numbers]
        if numbers == [2, 3]:
            line.answer.pop()(1)
    line.batch.add(7)
    assert line.sent == [1, 7]
    assert line.sender.calls == [[2, 3], [4, 5], [6]]


async def test_one_that_cannot_be_sent_at_once_is_sent_by_a_task() -> None:
    line = Line()
    line.open = False
    assert await line.batch.add(2) == 4
    assert (line.sent, line.sender.calls) == ([], [[2]])


async def test_one_on_its_own_fails_or_loses_its_caller_without_harm() -> None:
    line = Line()
    heard: list[object] = []
    error = ValueError("negative")
    outcome = line.batch.add(-1)
    line.answer.pop()(error)
    with pytest.raises(ValueError, match="negative"):
        await outcome
    line.batch.add(2, heard.append).cancel()
    line.answer.pop()(4)
    assert heard == [4]
    outcome = line.batch.add(3)
    line.answer.pop()(9)
    assert await outcome == 9
