"""Trims the data streams of `run()`'s handlers while they are read."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.chunks import CHUNK, in_chunks
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._run.handler_task import HandlerTask

LOOK = 1.0
"""Seconds between two looks at the checkpoints."""

MANY = 1_000
"""Entries after which a stream is trimmed at the next look."""

LONG = 10.0
"""Seconds after which a stream with fewer entries before its checkpoint is trimmed, too. A trim is three commands
in a script call that many streams share: at most 0.004 commands per entry of a busy stream."""


class Trimmed(NamedTuple):
    """How far the stream of a lease was trimmed, by the client's own count, and when."""

    position: str | None
    handed_over: int
    at: float


async def trim_while_running(
    at_work: Collection[HandlerTask], trim: Callable[[Sequence[LeaseState]], Awaitable[None]]
) -> None:
    """Trim each stream up to its checkpoint from time to time, until cancelled."""
    trimmed: dict[LeaseState, Trimmed] = {}
    while True:
        await asyncio.sleep(LOOK)
        before, trimmed = trimmed, {}
        for leases in in_chunks([handler_task.lease for handler_task in at_work], 10 * CHUNK):
            now = clock.now()
            due = [lease for lease in leases if _look_at(lease, before, trimmed, now)]
            if due:
                await trim(due)
            await asyncio.sleep(0)


def _look_at(
    lease: LeaseState, before: dict[LeaseState, Trimmed], trimmed: dict[LeaseState, Trimmed], now: float
) -> bool:
    """Whether to trim the stream of this lease now."""
    if lease.lost is not None or not lease.begun:
        return False
    last = before.get(lease) or Trimmed(None, 0, now)
    behind = lease.handed_over - last.handed_over
    due = lease.position != last.position and (behind >= MANY or now - last.at >= LONG)
    trimmed[lease] = Trimmed(lease.position, lease.handed_over, now) if due else last
    return due
