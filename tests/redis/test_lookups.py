"""Questions that may take long: shared, repeated, and given up when nobody waits."""

from __future__ import annotations

import asyncio
import threading

import pytest

from redis_stream_client._redis import lookups
from redis_stream_client._redis.lookups import Lookup, in_thread
from tests.harness.waiting import wait_until


class Source:
    """Answers with the count of the questions, as slowly as it is told."""

    def __init__(self) -> None:
        self.asked = 0
        self.ended = 0
        self.may = asyncio.Event()
        self.error: Exception | None = None

    async def answer(self) -> int:
        self.asked += 1
        asked = self.asked
        try:
            await self.may.wait()
        finally:
            self.ended += 1
        if self.error is not None:
            raise self.error
        return asked


async def test_all_who_want_the_answer_at_the_same_time_share_one_question() -> None:
    source = Source()
    lookup = Lookup("number", source.answer)
    waiting = [asyncio.create_task(lookup.get()) for _ in range(3)]
    await wait_until(lambda: source.asked, "it was asked")
    source.may.set()
    assert await asyncio.gather(*waiting) == [1, 1, 1]


async def test_a_question_outlives_who_is_less_patient() -> None:
    source = Source()
    lookup = Lookup("number", source.answer)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await lookup.get()
    source.may.set()
    assert await lookup.get() == 1


async def test_a_question_that_nobody_waits_for_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "ABANDON", 0.01)
    source = Source()
    lookup = Lookup("number", source.answer)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await lookup.get()
    await wait_until(lambda: source.ended, "it is given up")
    source.may.set()
    assert await lookup.get() == 2


async def test_an_answer_that_led_nowhere_is_asked_for_anew() -> None:
    source = Source()
    lookup = Lookup("number", source.answer)
    asyncio.get_running_loop().call_later(0.05, source.may.set)
    assert await lookup.get() == 1
    assert await lookup.get() == 1, "what took long is used again for a while"
    lookup.doubt()
    assert await lookup.get() == 2


async def test_a_source_that_fails_is_asked_again() -> None:
    source = Source()
    source.may.set()
    source.error = LookupError("no")
    lookup = Lookup("number", source.answer)
    with pytest.raises(LookupError, match="no"):
        await lookup.get()
    source.error = None
    assert await lookup.get() == 2


async def test_a_source_that_cancels_itself_cancels_nobody() -> None:
    async def answer() -> int:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="number was cancelled"):
        await Lookup("number", answer).get()


async def test_what_blocks_runs_in_a_thread_of_its_own() -> None:
    assert await in_thread(lambda: threading.current_thread().name, "mine") == "mine"


@pytest.mark.parametrize("error", [ValueError("x"), StopIteration("x"), SystemExit("x")])
async def test_whatever_it_raises_is_told(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(ValueError if isinstance(error, ValueError) else RuntimeError, match="x"):
        await in_thread(fail, "mine")
