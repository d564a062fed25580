"""Wait for a described condition: what tests do instead of sleeping. And for the end of what they began."""

from __future__ import annotations

import asyncio
from typing import Any

from redis_stream_client.testing import wait_until

__all__ = ["stop", "wait_until"]


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
