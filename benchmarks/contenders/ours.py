"""This library as most users use it: one handler, and `run()`."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import TYPE_CHECKING

from benchmarks.contenders.sweepless import stop_sweeping
from redis_stream_client import Lease, Rebalance, RedisStreamClient
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from benchmarks.member import Report

LOCK_TTL = 2.0
"""The default."""

BEATS = 4
"""In the lifetime of a lock: the default. Members that wait beat somewhat sooner or later each, as asking for the
turn to sweep has them do: beats in step would cost the server less for each, also when the sweeps have stopped."""


async def consume(url: str, service: str, report: Report, *, settle: float | None = 10.0) -> None:
    """Follow every stream to its end. `settle`: of `Rebalance`; None: no rebalancing."""
    client = RedisStreamClient.from_url(url, service)
    rebalance = None if settle is None else Rebalance(settle)

    async def handle(lease: Lease) -> None:
        report.own(lease.stream)
        try:
            async for entry in lease.entries():
                if entry.fields.get(b"type") == b"end":
                    break
                report.entry(lease.stream, entry.id)
                await lease.checkpoint(entry.id)
        except BaseException:
            report.lose(lease.stream)
            raise
        report.finish(lease.stream)

    running = asyncio.create_task(client.run(handle, handle_signals=True, rebalance=rebalance))
    await wait_until(lambda: client.alive, "it has joined", 30)
    report.ready()
    await running


async def hold(
    url: str, service: str, report: Report, *, lock_ttl: float = LOCK_TTL, presence: bool = True
) -> None:
    """A handler for every stream, which waits. On SIGUSR1 it stops sweeping."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop_sweeping)

    async def handle(lease: Lease) -> None:
        report.own(lease.stream)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            report.lose(lease.stream)

    client = RedisStreamClient.from_url(
        url,
        service,
        lock_ttl=lock_ttl,
        heartbeat_interval=lock_ttl / BEATS * random.uniform(0.8, 1.2),
        presence=presence,
    )
    async with client.running(handle):
        report.ready()
        await asyncio.get_running_loop().create_future()
