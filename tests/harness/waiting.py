"""Wait for a described condition: what tests do instead of sleeping. And for the end of what they began."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from redis_stream_client.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

__all__ = ["meanwhile", "stop", "wait_until"]


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks that call redis-py, until they end.

    On Python 3.11 one cancellation may get lost: redis-py writes in `asyncio.wait_for`, which returns the result
    when it is cancelled in the moment in which the work is done.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.1)


@contextlib.asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Do something in the background, until the block ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await stop(task)
        if not task.cancelled():
            task.result()
