"""A lock that many may share, or one have alone."""

from __future__ import annotations

import asyncio

from redis_stream_client._concurrency.shared_lock import SharedLock
from tests.harness.waiting import wait_until


class Operations:
    """Operations under one lock, each of which goes on until it is told to end."""

    def __init__(self) -> None:
        self.lock = SharedLock()
        self.inside: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    def start(self, name: str) -> asyncio.Task[None]:
        self._ends[name] = asyncio.Event()
        return asyncio.create_task(self._operate(name))

    async def _operate(self, name: str) -> None:
        async with self.lock.alone() if name == "alone" else self.lock.passing():
            self.inside.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.inside.remove(name)

    def end(self, name: str) -> None:
        self._ends[name].set()


async def test_any_number_may_pass() -> None:
    operations = Operations()
    tasks = [operations.start(name) for name in "abc"]
    await wait_until(lambda: len(operations.inside) == 3, "all are inside")
    for name in "abc":
        operations.end(name)
    await asyncio.gather(*tasks)


async def test_one_alone_waits_for_the_others_and_keeps_new_ones_out() -> None:
    operations = Operations()
    passing = operations.start("a")
    await wait_until(lambda: operations.inside == ["a"], "it is inside")
    alone, late = operations.start("alone"), operations.start("b")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert operations.inside == ["a"]
    operations.end("a")
    await passing
    await wait_until(lambda: operations.inside == ["alone"], "it is alone")
    operations.end("alone")
    await alone
    await wait_until(lambda: operations.inside == ["b"], "who waited has its turn")
    operations.end("b")
    await late


async def test_one_that_gives_up_waiting_to_be_alone_lets_the_others_in() -> None:
    operations = Operations()
    passing = operations.start("a")
    await wait_until(lambda: operations.inside == ["a"], "it is inside")
    alone, late = operations.start("alone"), operations.start("b")
    await asyncio.sleep(0)
    alone.cancel()
    await wait_until(lambda: operations.inside == ["a", "b"], "it is let in")
    operations.end("a")
    operations.end("b")
    await asyncio.gather(passing, late)
    assert alone.cancelled()
