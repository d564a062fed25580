"""A cancel scope: cancels the block of a lease, and can tell this cancellation from one by others."""

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class CancelScope:
    """A block in its task, and the way to cancel it."""

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
        """Deliver the cancellation that this task has just caught at its next step instead, if only `fire` has
        asked for it. So the operation that was under way can raise its own error first."""
        if not self.fired_here or self._task.cancelling() != self._baseline + 1:
            return False
        self._task.uncancel()
        self._task.cancel()
        return True

    def leave_unfired(self) -> bool:
        """End the block, unless `fire` has cancelled it. Returns False then: `leave` must do it."""
        if not self.fired:
            self._leave()
        return not self.fired

    def _leave(self) -> None:
        self._left = True
        self.on_fire = None  # breaks a reference cycle

    async def leave(self, cancelled: bool) -> tuple[bool, bool]:
        """End the block. `cancelled`: whether the block has raised ``CancelledError``, for whatever reason.

        Returns whether the block has noticed a cancellation by `fire`, and whether a cancellation by others must
        be passed on.
        """
        if self.leave_unfired():
            return False, cancelled
        self._leave()
        noticed = True
        try:  # a cancellation that is not delivered yet must not leave the block
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            noticed = cancelled
            cancelled = True
        by_others = self._task.uncancel() > self._baseline
        return noticed, cancelled and by_others
