"""Two watchdogs of `run()`: they find handlers without progress, and handlers that have nothing left to do."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.standstill import Standstill, stood_still
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._run.handler_task import HandlerTask
from redis_stream_client._run.outcome import Rules

SHORTEST_LOOK = 0.005
"""The shortest interval in seconds between two looks for idle handlers."""


def start_watches(
    at_work: Collection[HandlerTask], rules: Rules, acquit: Callable[[Sequence[LeaseState]], Awaitable[None]]
) -> "list[asyncio.Task[None]]":
    """Start the watchdogs. Their tasks go on until they are cancelled."""
    watches = (
        _watch_progress(at_work, rules.progress_timeout),
        _watch_idle(at_work, rules.patience, acquit),
    )
    return [start_task(watch, "redis_stream_client progress") for watch in watches]


async def _watch_progress(at_work: Collection[HandlerTask], timeout: float | None) -> None:
    """Stop each handler that makes no progress for `timeout` seconds. Runs until cancelled."""
    if timeout is None:
        return
    standstill, looked_at = Standstill(timeout), clock.now()
    while True:
        late = await standstill.pass_by()
        if late > standstill.tick:
            await asyncio.sleep(0)  # let the other tasks run first that are ready, too
        now = clock.now()
        if now - looked_at < min(1.0, timeout / 4):
            continue
        looked_at = now
        for stalled in [each for each in at_work if each.stalled(now, standstill)]:
            stalled.stop("stalled")


async def _watch_idle(
    at_work: Collection[HandlerTask], after: float, acquit: Callable[[Sequence[LeaseState]], Awaitable[None]]
) -> None:
    """Stop counting the attempts of owners that have had nothing to do for `after` seconds. Runs until cancelled.

    Such a stream does not make its owners die. Otherwise a stream that is idle for months would end up in the dead
    letters, after enough outages.
    """
    while True:
        due = clock.now() + max(after, SHORTEST_LOOK)
        await asyncio.sleep(max(after, SHORTEST_LOOK))
        now = clock.now()
        if stood_still(now - due, after):  # no handler had a chance to work
            continue
        idle = [each.lease for each in at_work if each.idle_for(now) > after]
        if idle:
            await acquit(idle)
