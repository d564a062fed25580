"""Callers that go away: what they asked for belongs to the client, and goes on without them."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from redis_stream_client._concurrency.batching import Spawn
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.errors import ClientClosed, RedisStreamClientError
from redis_stream_client._model.logs import log

Work = Coroutine[Any, Any, None]
Outcome = RedisStreamClientError | None


class Callers:
    """Runs what callers ask about their leases, and remembers what is under way for those who were cancelled."""

    def __init__(self, spawn: Spawn, gone: Callable[[], ClientClosed]) -> None:
        self._start = spawn
        self._gone = gone
        self._left: dict[LeaseState, set[asyncio.Task[Outcome]]] = {}

    async def wait_for(self, lease: LeaseState, work: Work) -> None:
        """Run `work`, also when the caller does not wait for it any more. Raises what it raises."""
        task = self._spawn(work)
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            # Of a loss that is found here the caller hears first, and is cancelled then.
            if not (task.done() and lease.postpone_cancellation()):
                self._leave(lease, task)
                raise
        if task.cancelled():
            raise self._gone()
        if (error := task.result()) is not None:
            raise error

    def go_on(self, lease: LeaseState, work: Work) -> None:
        """Run `work` for a caller who is gone. Raises `ClientClosed`."""
        self._leave(lease, self._spawn(work))

    async def answered(self, lease: LeaseState) -> None:
        """Wait for what cancelled callers have asked, and Redis has not answered yet: a lock's lifetime or so."""
        while left := self._left.get(lease):
            await asyncio.wait(left)

    def _spawn(self, work: Work) -> "asyncio.Task[Outcome]":
        try:
            return self._start(_caught(work))
        except BaseException:
            work.close()
            raise

    def _leave(self, lease: LeaseState, task: "asyncio.Task[Outcome]") -> None:
        if not task.done():
            self._left.setdefault(lease, set()).add(task)
            task.add_done_callback(functools.partial(self._ended, lease))

    def _ended(self, lease: LeaseState, task: "asyncio.Task[Outcome]") -> None:
        left = self._left[lease]
        left.discard(task)
        if not left:
            del self._left[lease]
        if not task.cancelled() and (error := task.result()) is not None:
            log.info("after its caller was cancelled: %s", error, extra=lease.log_fields())


async def _caught(work: Work) -> Outcome:
    """What goes wrong is its caller's to hear, and not the supervisor's."""
    try:
        await work
    except RedisStreamClientError as error:
        return error
    return None
