"""`running()`: `run()` in the background of a block."""

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from redis_stream_client.lease import Guard

if TYPE_CHECKING:
    from redis_stream_client.client import RedisStreamClient, Run


class Running:
    """The block of ``async with client.running(handler):``.

    Entering joins. Leaving drains, and waits for that; leaving by a cancellation releases at once. When `run()`
    fails, the block is cancelled, and leaving it raises the failure.
    """

    def __init__(self, client: "RedisStreamClient", run: "Run") -> None:
        self._client = client
        self._run = run
        self._task: asyncio.Task[None] | None = None
        self._guard: Guard | None = None

    async def __aenter__(self) -> "RedisStreamClient":
        if self._task is not None:
            raise RuntimeError("enter it once; call running() again for another")
        await self._run.join()
        self._guard = Guard()
        self._task = asyncio.create_task(self._run.until_closed(), name="redis_stream_client running")
        self._task.add_done_callback(self._ended)
        return self._client

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None and self._guard is not None:
            self._guard.fire("run() failed")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        assert self._guard is not None
        cancelled = isinstance(error, asyncio.CancelledError)
        _, cancelled_by_others = await self._guard.leave(cancelled)
        if cancelled_by_others:
            self._task.cancel()
        else:
            self._run.drain()
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if cancelled_by_others:
            raise asyncio.CancelledError
        failure = None if self._task.cancelled() else self._task.exception()
        if failure is not None and (error is None or cancelled):
            raise failure
