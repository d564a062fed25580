"""What the contenders without a library share: the announcements, and reading a data stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import uuid
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.member import Report
    from tests.harness.connection import Connection

BATCH = 100
"""Entries of a data stream that one command reads, and orphans that one claims."""

FEW = 10
"""Announcements that one command reads, so that others get some, too."""

PAUSE = 0.1
"""Seconds to wait after an error of Redis."""

BLOCK = 500
"""Milliseconds that a blocking read waits."""


class Announcements:
    """The load balancer stream, its consumer group, and a consumer of our own."""

    def __init__(self, redis: Connection, service: str) -> None:
        self.redis = redis
        self.service = service
        self.key = f"{service}-input"
        self.group = f"{service}-group"
        self.consumer = f"consumer-{uuid.uuid4().hex[:8]}"

    async def create_group(self) -> None:
        """The first consumer creates it, as the documentation of `XGROUP CREATE` shows."""
        with contextlib.suppress(ResponseError):  # BUSYGROUP: somebody did
            await self.redis.xgroup_create(self.key, self.group, "0", mkstream=True)

    async def read(self) -> list[tuple[str, str]]:
        """Wait for announcements; returns their ids, and the streams that they name."""
        reply: Any = await self.redis.xreadgroup(
            self.group, self.consumer, {self.key: ">"}, count=FEW, block=BLOCK
        )
        return [(lbs_id, stream_of(fields)) for _, entries in reply for lbs_id, fields in entries]

    async def finish(self, lbs_id: str) -> None:
        """Acknowledge and delete."""
        async with self.redis.pipeline() as pipe:
            await pipe.xack(self.key, self.group, lbs_id).xdel(self.key, lbs_id).execute()


def stream_of(fields: dict[str, str]) -> str:
    """The data stream that an announcement names."""
    return str(json.loads(fields["lbs-input"])["DataStreamName"])


async def follow(redis: Connection, service: str, stream: str, report: Report, stop: asyncio.Event) -> bool:
    """Read a data stream after the last entry that was processed; returns whether that was to its end.

    Each stream has a blocking read of its own, on a connection of its own; how far it got is stored after each
    entry.
    """
    positions = f"{service}:positions"
    position = await redis.hget(positions, stream) or "0"
    while not stop.is_set():
        reply: Any = await redis.xread({stream: position}, count=BATCH, block=BLOCK)
        for entry_id, fields in [entry for _, entries in reply for entry in entries]:
            if fields.get("type") == "end":
                return True
            report.entry(stream, entry_id)
            await redis.hset(positions, stream, entry_id)
            position = entry_id
            if stop.is_set():
                break
    return False


async def insist(step: Callable[[], Awaitable[None]]) -> None:
    """Do it again and again, whatever Redis says."""
    while True:
        try:
            await step()
        except RedisError:
            await asyncio.sleep(PAUSE)


def stop_at_sigterm() -> asyncio.Event:
    """An event that is set by SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop
