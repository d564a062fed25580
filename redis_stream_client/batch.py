"""Calls that are made at about the same time share one script call."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from redis_stream_client.errors import ClientClosed
from redis_stream_client.lease import Lease

Send = Callable[[list[Lease]], Awaitable[list[Exception | None]]]
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Batch:
    """Collects leases while one call is under way, and sends them together with the next.

    The I/O belongs to the client: a caller that is cancelled only stops waiting.
    """

    def __init__(self, send: Send, spawn: Spawn, gone: Callable[[], ClientClosed], most: int) -> None:
        self._send = send
        self._spawn = spawn
        self._gone = gone
        self._most = most
        self._waiting: list[tuple[Lease, asyncio.Future[None]]] = []
        self._under_way: list[tuple[Lease, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, lease: Lease) -> asyncio.Future[None]:
        """Send `lease` with the next call. The future carries its outcome."""
        if self._task is None:
            self._task = self._spawn(self._run())
            self._task.add_done_callback(self._ended)
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((lease, outcome))
        return outcome

    async def _run(self) -> None:
        while self._waiting:
            self._under_way, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            failures = await self._send([lease for lease, _ in self._under_way])
            for (_, outcome), failure in zip(self._under_way, failures, strict=True):
                _settle(outcome, failure)
            self._under_way = []
        self._task = None  # whoever comes from now on starts another

    def _ended(self, task: asyncio.Task[None]) -> None:
        """It did not get to its end, or not even to its beginning: nobody is left waiting for that."""
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        self._task = None
        left = [*self._under_way, *self._waiting]
        self._under_way, self._waiting = [], []
        for _, outcome in left:
            _settle(outcome, error if isinstance(error, Exception) else self._gone())


def _settle(outcome: asyncio.Future[None], failure: Exception | None) -> None:
    if outcome.done():
        return
    if failure is None:
        outcome.set_result(None)
    else:
        outcome.set_exception(failure)
