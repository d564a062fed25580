"""Two watches on the handlers of `run()`: which show no progress, and which have nothing left to do."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.standstill import LATE, Standstill
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._run.handler_task import HandlerTask
from redis_stream_client._run.outcome import Rules

SHORTEST_LOOK = 0.005  # seconds between two looks for idle handlers, whatever the patience is


def start_watches(
    jobs: Collection[HandlerTask], rules: Rules, acquit: Callable[[Sequence[LeaseState]], Awaitable[None]]
) -> "list[asyncio.Task[None]]":
    """Look after the jobs from time to time, in tasks that go on until they are cancelled."""
    return [
        start_task(watch, "redis_stream_client progress")
        for watch in (_watch_progress(jobs, rules.progress_timeout), _watch_idle(jobs, rules.patience, acquit))
    ]


async def _watch_progress(jobs: Collection[HandlerTask], timeout: float | None) -> None:
    """Stop those of the jobs that show no progress for `timeout` seconds, until cancelled."""
    if timeout is None:
        return
    standstill, looked_at = Standstill(timeout), clock.now()
    while True:
        late = await standstill.pass_by()
        if late > standstill.tick:
            await asyncio.sleep(0)  # who waited for a turn as well has it first
        now = clock.now()
        if now - looked_at < min(1.0, timeout / 4):
            continue
        looked_at = now
        for job in [job for job in jobs if job.stalled(now, standstill)]:
            job.stop("stalled")


async def _watch_idle(
    jobs: Collection[HandlerTask], after: float, acquit: Callable[[Sequence[LeaseState]], Awaitable[None]]
) -> None:
    """Acquit the owners that have nothing left to do for `after` seconds, until cancelled.

    Such a one is not what its stream's owners die of. Else a stream that is idle for months would end in the dead
    letters after so many outages.
    """
    while True:
        due = clock.now() + max(after, SHORTEST_LOOK)
        await asyncio.sleep(max(after, SHORTEST_LOOK))
        now = clock.now()
        if now - due > max(LATE, after / 10):  # nobody had a turn, so nobody has waited
            continue
        idle = [job.lease for job in jobs if job.idle_for(now) > after]
        if idle:
            await acquit(idle)
