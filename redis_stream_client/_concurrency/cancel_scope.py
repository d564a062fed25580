"""Telling a task to stop, by cancelling it, so that it can be told apart from a cancellation by others."""

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class CancelScope:
    """The task that runs a block, and how it is told to stop."""

    __slots__ = ("_baseline", "_left", "_task", "fired", "on_fire")

    def __init__(self, task: "asyncio.Task[Any] | None" = None) -> None:
        task = task or asyncio.current_task()
        assert task is not None, "what is awaited runs in a task"
        self._task = task
        self._baseline = task.cancelling()
        self._left = False
        self.fired: bool = False
        self.on_fire: Callable[[], None] | None = None

    def fire(self, why: str = "the block is to stop") -> None:
        """Cancel the block, once."""
        if not self._left and not self.fired:
            self.fired = True
            self._task.cancel(why)
            if self.on_fire is not None:
                self.on_fire()

    @property
    def here(self) -> bool:
        """Whether the current task is the one that runs the block."""
        try:
            return asyncio.current_task() is self._task
        except RuntimeError:  # no loop is running
            return False

    @property
    def cancelled_by_others(self) -> bool:
        """Whether somebody else asked the task to end, and `fire` did not."""
        return not self.fired and self._task.cancelling() > self._baseline

    @property
    def fired_here(self) -> bool:
        """Whether it was the current task that was cancelled."""
        return self.fired and asyncio.current_task() is self._task

    def postpone(self) -> bool:
        """Have the cancellation that this task has just caught delivered at its next step, if `fire` alone asked
        for it: what it waited for has ended with that, too, and has something to say first."""
        if not self.fired_here or self._task.cancelling() != self._baseline + 1:
            return False
        self._task.uncancel()
        self._task.cancel()
        return True

    def leave_unfired(self) -> bool:
        """End the block, if nobody asked it to stop; else `leave` must."""
        if not self.fired:
            self._leave()
        return not self.fired

    def _leave(self) -> None:
        self._left = True
        self.on_fire = None  # what it would tell holds this: a cycle, for the garbage collector to find

    async def leave(self, cancelled: bool) -> tuple[bool, bool]:
        """End the block, which `cancelled` says was cancelled by whomever.

        Returns whether the block noticed that `fire` cancelled it, and whether a cancellation by others must go on
        its way.
        """
        if self.leave_unfired():
            return False, cancelled
        self._leave()
        noticed = True
        try:  # a cancellation that is asked for but not delivered yet must not escape the block
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            noticed = cancelled
            cancelled = True
        by_others = self._task.uncancel() > self._baseline
        return noticed, cancelled and by_others
