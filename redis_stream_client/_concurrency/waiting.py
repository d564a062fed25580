"""Waiting for an event, and not for longer than some time."""

import asyncio
import contextlib


async def wait_for(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until an event is set, for so many seconds at the most; None or infinity: for as long as it takes.

    Unlike ``asyncio.wait_for`` on Python 3.11, this swallows no cancellation that comes together with the event.
    Returns whether the event is set.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None if seconds is None or seconds == float("inf") else max(0.0, seconds)):
            await event.wait()
    return event.is_set()
