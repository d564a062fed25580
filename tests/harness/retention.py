"""Handlers of streams that are trimmed or deleted, and what has become of these."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tests.harness.runs import END, Running
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    import pytest

    from redis_stream_client import Lease
    from tests.harness.connection import Connection


class Reader:
    """A handler that checkpoints all entries but the end marker, and returns there; with `idle` it sleeps."""

    def __init__(self, idle: float | None = None) -> None:
        self._idle = idle
        self.read: list[str] = []
        self.leases: list[Lease] = []

    async def __call__(self, lease: Lease) -> None:
        """Handle a stream."""
        self.leases.append(lease)
        async for entry in lease.entries(idle=self._idle):
            self.read.append(entry.id)
            if END in entry.fields:
                return
            await lease.checkpoint(entry.id)


async def ids(redis: Connection, stream: str) -> list[str]:
    """Ids of the entries that are in a stream."""
    return [id.decode() for id, _ in await redis.xrange(stream)]


async def done(running: Running, streams: int = 1) -> None:
    """Wait until so many streams are done."""
    await wait_until(lambda: running.client.statistics().streams_done == streams, "it is done")


async def settled(running: Running) -> None:
    """Wait until nothing is left to do for what is done."""
    await wait_until(lambda: running.client.statistics().records_unsettled == 0, "nothing is left to do")


class Slow:
    """A handler that checkpoints some way behind what it reads, and stops when it is told to."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self.read: list[str] = []
        self.lease: Lease | None = None

    async def __call__(self, lease: Lease) -> None:
        """Handle a stream."""
        self.lease = lease
        async for entry in lease.entries():
            self.read.append(entry.id)
            if len(self.read) > self._behind and len(self.read) % 50 == 0:
                await lease.checkpoint(self.read[-1 - self._behind])
            if END in entry.fields:
                return


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said about trimmed and deleted streams, and not about lines that do not answer, or lapses."""
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    return [message for message in said if "trimmed" in message or "deleted" in message]
