"""Callers: if the caller of an operation is cancelled, the operation goes on without it."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from redis_stream_client._concurrency.batching import Spawn
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.errors import ClientClosed, RedisStreamClientError
from redis_stream_client._model.logs import Log

Work = Coroutine[Any, Any, None]
Outcome = RedisStreamClientError | None


class Callers:
    """Runs operations on leases for their callers, and keeps track of those whose caller was cancelled."""

    def __init__(self, spawn: Spawn, gone: Callable[[], ClientClosed], log: Log) -> None:
        self._start = spawn
        self._gone = gone
        self._log = log
        self._left: dict[LeaseState, set[asyncio.Task[Outcome]]] = {}
        self._shared: dict[LeaseState, asyncio.Task[Outcome]] = {}

    async def wait_for(self, lease: LeaseState, work: Work) -> None:
        """Run `work` to its end, even if the caller is cancelled. Raises what `work` raises."""
        await self._wait(lease, self._spawn(work))

    async def share(self, lease: LeaseState, work: Callable[[], Work]) -> None:
        """`wait_for` what is under way for this lease, also if its caller was cancelled; else begin it."""
        task = self._shared.get(lease)
        if task is None:
            task = self._shared[lease] = self._spawn(work())
            task.add_done_callback(lambda _: self._shared.pop(lease))
        await self._wait(lease, task)

    async def _wait(self, lease: LeaseState, task: "asyncio.Task[Outcome]") -> None:
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            # If the work finds out that the lease is lost, the caller first gets its error, and is cancelled then.
            if not (task.done() and lease.postpone_cancellation()):
                self._leave(lease, task)
                raise
        if task.cancelled():
            raise self._gone()
        if (error := task.result()) is not None:
            raise error

    def go_on(self, lease: LeaseState, work: Work) -> None:
        """Run `work` for a caller that is gone. Raises `ClientClosed`."""
        self._leave(lease, self._spawn(work))

    async def answered(self, lease: LeaseState) -> None:
        """Wait for the operations whose callers were cancelled. Takes about one lifetime of the lock at most."""
        while left := self._left.get(lease):
            await asyncio.wait(left)

    def _spawn(self, work: Work) -> "asyncio.Task[Outcome]":
        try:
            task = self._start(_caught(work))
        except BaseException:
            work.close()
            raise
        task.add_done_callback(lambda _: work.close())  # a task that is cancelled at once never begins it
        return task

    def _leave(self, lease: LeaseState, task: "asyncio.Task[Outcome]") -> None:
        if not task.done() and task not in self._left.get(lease, ()):
            self._left.setdefault(lease, set()).add(task)
            task.add_done_callback(functools.partial(self._ended, lease))

    def _ended(self, lease: LeaseState, task: "asyncio.Task[Outcome]") -> None:
        left = self._left[lease]
        left.discard(task)
        if not left:
            del self._left[lease]
        if not task.cancelled() and (error := task.result()) is not None:
            self._log.info("after its caller was cancelled: %s", error, about=lease)


async def _caught(work: Work) -> Outcome:
    """Run `work`, and return its error: the error is for the caller, and not for the supervisor."""
    try:
        await work
    except RedisStreamClientError as error:
        return error
    return None
