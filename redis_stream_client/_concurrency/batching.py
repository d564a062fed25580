"""Batching: operations that are asked for at about the same time share one call of a script."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]
_Entry = tuple[Item, Callable[[Result | Exception], None] | None, "asyncio.Future[Result]"]


class Batch(Generic[Item, Result]):
    """Collects items while a call is under way, and sends them together with the next call.

    A task of the client does the I/O. If a caller is cancelled, it only stops waiting.

    Args:
        send: sends items together, and returns a result or an exception for each.
        spawn: starts the task that sends; may raise.
        gone: makes the exception for the callers that still wait when that task is cancelled.
        most: the most items in one call.
        at_once: sends one item without a task, and calls back with its result or an exception; returns False if it
            cannot now. So a caller on its own waits for no task. While one such item is under way, others share
            calls as usual; and after a call that several shared, the next one is open to several again.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Result | Exception]]],
        spawn: Spawn,
        gone: Callable[[], Exception],
        most: int | Callable[[], int],
        at_once: Callable[[Item, Callable[[Result | Exception], None]], bool] | None = None,
    ) -> None:
        self._send = send
        self._spawn = spawn
        self._gone = gone
        self._most = most
        self._at_once = at_once
        self._alone: _Entry[Item, Result] | None = None
        self._shared = False  # the last call of the task had several items
        self._waiting: list[_Entry[Item, Result]] = []
        self._under_way: list[_Entry[Item, Result]] = []
        self._task: asyncio.Task[None] | None = None

    def add(
        self, item: Item, heard: "Callable[[Result | Exception], None] | None" = None
    ) -> "asyncio.Future[Result]":
        """Send `item` with the next call. The future gets its result or exception.

        `heard` is called with it before the waiter goes on, even if nobody waits any more.
        """
        if self._at_once is not None and self._alone is None and not (self._shared or self._waiting):
            alone = self._alone = (item, heard, asyncio.get_running_loop().create_future())
            if self._at_once(item, self._answered_alone):
                return alone[2]
            self._alone = None
        task = self._task or self._spawn(self._run())  # may raise; then no item waits
        outcome: asyncio.Future[Result] = task.get_loop().create_future()
        self._waiting.append((item, heard, outcome))
        if self._task is None:
            self._task = task
            task.add_done_callback(self._ended)
        return outcome

    def has(self, item: Item) -> bool:
        """Whether `item` waits to be sent, or is under way."""
        alone = () if self._alone is None else (self._alone,)
        return any(other is item for other, _, _ in (*alone, *self._under_way, *self._waiting))

    def _answered_alone(self, result: Result | Exception) -> None:
        assert self._alone is not None
        entry, self._alone = self._alone, None
        _deliver(entry, result)

    async def _run(self) -> None:
        while self._waiting:
            most = self._most if isinstance(self._most, int) else self._most()
            self._under_way, self._waiting = self._waiting[:most], self._waiting[most:]
            self._shared = len(self._under_way) > 1
            results = await self._send([item for item, _, _ in self._under_way])
            for entry, result in zip(self._under_way, results, strict=True):
                _deliver(entry, result)
            self._under_way = []
        self._task = None  # the next item starts a new task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Release the waiters of a task that was cancelled, perhaps before it began."""
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        self._task = None
        left = [*self._under_way, *self._waiting]
        self._under_way, self._waiting = [], []
        for _, _, outcome in left:
            _settle(outcome, error if isinstance(error, Exception) else self._gone())


def _deliver(entry: _Entry[Item, Result], result: Result | Exception) -> None:
    _, heard, outcome = entry
    if heard is not None:
        heard(result)
    _settle(outcome, result)


def _settle(outcome: "asyncio.Future[Result]", result: Result | Exception) -> None:
    if outcome.done():
        return
    if isinstance(result, Exception):
        outcome.set_exception(result)
    else:
        outcome.set_result(result)
