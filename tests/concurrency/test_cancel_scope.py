"""A block that the package stops: that cancellation ends at the block, and one from elsewhere goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._concurrency.cancel_scope import CancelScope

if TYPE_CHECKING:
    from collections.abc import Callable


class Block:
    """A task with a scope around what it waits for."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.scope: CancelScope | None = None
        self.left: tuple[bool, bool] | None = None
        self.task = asyncio.create_task(self.run(), name="block")

    async def run(self) -> None:
        self.scope = CancelScope()
        cancelled = False
        self.ready.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled = True
        self.left = await self.scope.leave(cancelled)
        if self.left[1]:
            raise asyncio.CancelledError

    async def stop(self, *how: Callable[[Block], object]) -> None:
        await self.ready.wait()
        for step in how:
            step(self)
        await asyncio.wait((self.task,))


def fire(block: Block) -> None:
    assert block.scope is not None
    block.scope.fire()


def cancel(block: Block) -> None:
    block.task.cancel()


async def test_a_block_that_was_told_to_stop_goes_on_behind_its_end() -> None:
    block = Block()
    await block.stop(fire)
    assert block.left == (True, False)
    assert not block.task.cancelled()
    assert block.task.cancelling() == 0


async def test_a_cancellation_by_others_goes_its_way() -> None:
    block = Block()
    await block.stop(cancel)
    assert block.left == (False, True)
    assert block.task.cancelled()


@pytest.mark.parametrize("steps", [(fire, cancel), (cancel, fire)])
async def test_of_both_the_one_by_others_goes_its_way(steps: tuple[Callable[[Block], object], ...]) -> None:
    block = Block()
    await block.stop(*steps)
    assert block.left == (True, True)
    assert block.task.cancelled()


async def test_it_tells_who_cancelled() -> None:
    block = Block()
    await block.ready.wait()
    scope = block.scope
    assert scope is not None
    told: list[str] = []
    scope.on_fire = lambda: told.append("fired")
    assert not scope.here
    assert not scope.cancelled_by_others
    cancel(block)
    assert scope.cancelled_by_others
    scope.fire()
    scope.fire()
    assert (scope.fired, scope.fired_here, told) == (True, False, ["fired"])
    await asyncio.wait((block.task,))


async def test_behind_its_end_a_block_cannot_be_told_to_stop() -> None:
    scope = CancelScope()
    assert scope.here
    assert scope.leave_unfired()
    scope.fire()
    await asyncio.sleep(0)
    assert not scope.fired


async def test_a_cancellation_can_be_put_off_until_what_it_ended_has_spoken() -> None:
    said: list[str] = []

    async def run() -> None:
        scope = CancelScope()
        asyncio.get_running_loop().call_soon(scope.fire)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            assert scope.postpone()
            said.append("what it has to say")
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        assert await scope.leave(cancelled=True) == (True, False)

    await asyncio.create_task(run(), name="block")
    assert said
