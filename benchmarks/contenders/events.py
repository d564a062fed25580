"""This library's `events()` and `claim()`: the user decides what to take over, and holds leases without tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis_stream_client import (
    AlreadyClaimed,
    ExpiredStream,
    NotJoined,
    RedisStreamClient,
    RedisUnavailable,
    StreamAdded,
    StreamDisowned,
    StreamExpired,
    StreamGone,
)

if TYPE_CHECKING:
    from benchmarks.member import Report

CLAIMS = 16
"""Claims that are under way at one time. What lies unread meanwhile is withdrawn when a peer takes it."""


async def hold(url: str, service: str, report: Report) -> None:
    """Own what arrives, and claim what expires, several at a time."""
    places = asyncio.Semaphore(CLAIMS)

    async def claim(client: RedisStreamClient, stream: ExpiredStream) -> None:
        try:
            report.own((await client.claim(stream)).stream)
        except (AlreadyClaimed, StreamGone, NotJoined, RedisUnavailable):
            pass  # a peer has it, or it is offered again
        finally:
            places.release()

    async with RedisStreamClient.from_url(url, service) as client, asyncio.TaskGroup() as group:
        report.ready()
        async for event in client.events():
            match event:
                case StreamAdded(lease):
                    report.own(lease.stream)
                case StreamExpired(stream):
                    await places.acquire()
                    group.create_task(claim(client, stream))
                case StreamDisowned(lease):
                    report.lose(lease.stream)
