"""The task queue streaq: a stream is a task that runs for as long as the stream lives.

After its documentation: `concurrency` is how many tasks a worker runs at one time, `prefetch` how many more it
reserves (none would be useful here), and a task whose worker has not renewed it for `idle_timeout` is run again by
another. That is 60 s by default; here it is 2 s, like the lock of the others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
from streaq import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.member import Report

IDLE_TIMEOUT = 2.0
CONCURRENCY = 2_000
TASK = "hold"


def _worker(url: str, service: str) -> Worker[None]:
    return Worker(
        redis_url=url, queue_name=service, concurrency=CONCURRENCY, prefetch=1, idle_timeout=IDLE_TIMEOUT
    )


async def hold(url: str, service: str, report: Report) -> None:
    """Run tasks that never end."""
    worker = _worker(url, service)

    @worker.task(name=TASK, max_tries=None)
    async def hold(stream: str) -> None:
        report.own(stream)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            report.lose(stream)

    async with anyio.create_task_group() as group:
        await group.start(worker.run_async)
        report.ready()


async def announce(url: str, service: str, streams: Sequence[str]) -> None:
    """Put a task for every stream into the queue."""
    worker = _worker(url, service)

    @worker.task(name=TASK, max_tries=None)
    async def hold(stream: str) -> None:
        """For its name."""

    async with worker:
        await worker.enqueue_many([hold.enqueue(stream) for stream in streams])
