"""Calls that are made at about the same time share one script call."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from redis_stream_client.errors import ClientClosed
from redis_stream_client.lease import Lease

Send = Callable[[list[Lease]], Awaitable[list[Exception | None]]]
Spawn = Callable[[Coroutine[Any, Any, None]], object]


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
        self._running = False

    def add(self, lease: Lease) -> asyncio.Future[None]:
        """Send `lease` with the next call. The future carries its outcome."""
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((lease, outcome))
        if not self._running:
            self._running = True
            self._spawn(self._run())
        return outcome

    async def _run(self) -> None:
        under_way: list[tuple[Lease, asyncio.Future[None]]] = []
        try:
            while self._waiting:
                under_way, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                failures = await self._send([lease for lease, _ in under_way])
                for (_, outcome), failure in zip(under_way, failures, strict=True):
                    _settle(outcome, failure)
        finally:  # a no-op, unless the client is closing
            self._running = False
            for _, outcome in (*under_way, *self._waiting):
                _settle(outcome, self._gone())
            self._waiting = []


def _settle(outcome: asyncio.Future[None], failure: Exception | None) -> None:
    if outcome.done():
        return
    if failure is None:
        outcome.set_result(None)
    else:
        outcome.set_exception(failure)
