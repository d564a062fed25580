"""`XREADGROUP` and nothing else: who reads an announcement has it, and when it dies nobody takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from benchmarks.contenders.by_hand import Announcements, stream_of

if TYPE_CHECKING:
    from benchmarks.member import Report

COUNT = 32
BLOCK = 1_000  # milliseconds


async def hold(url: str, service: str, report: Report) -> None:
    """Own streams, and leave them unread."""
    async with Redis.from_url(url, decode_responses=True) as redis:
        where = Announcements(redis, service)
        await where.create_group()
        report.ready()
        while True:
            reply: Any = await redis.xreadgroup(
                where.group, where.consumer, {where.key: ">"}, count=COUNT, block=BLOCK
            )
            for _, fields in [entry for _, entries in reply for entry in entries]:
                report.own(stream_of(fields))
