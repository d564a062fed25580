"""`XREADGROUP` and `XAUTOCLAIM` polling with an idle time of one second: the usual way by hand.

Written after the documentation of these commands and of `XCLAIM`. An announcement is pending for as long as its
stream lives, so a consumer must reset the idle time of all that is pending for it, or others take it: with
`XCLAIM … JUSTID`, three times in that second. Before that it looks at what is still pending for it, for `XCLAIM`
asks for no owner. A consumer that leaves sets the idle time forward, so that the others need not wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from benchmarks.contenders.by_hand import BATCH, Announcements, follow, insist, stop_at_sigterm, stream_of

if TYPE_CHECKING:
    from benchmarks.member import Report
    from tests.harness.connection import Connection

IDLE = 1.0
"""Seconds after which a pending announcement is anybody's."""

BEAT = IDLE / 3
POLL = IDLE / 2
CHUNK = 1_000  # announcements that one command refreshes
EVERYTHING = 1_000_000  # more than are ever pending


class Consumer:
    """One consumer of the group."""

    def __init__(self, redis: Connection, service: str, report: Report, *, follows: bool) -> None:
        self.redis = redis
        self.announcements = Announcements(redis, service)
        self.report = report
        self.follows = follows
        self.owned: dict[str, str] = {}
        """LBS id: data stream."""
        self.work: dict[str, asyncio.Task[None]] = {}
        self.stop = asyncio.Event()

    async def run(self) -> None:
        """Read, reclaim and refresh until `stop` is set; then let the others have what is left."""
        await self.announcements.create_group()
        tasks = [asyncio.create_task(insist(step)) for step in (self._read, self._reclaim, self._refresh)]
        self.report.ready()
        stopped = asyncio.create_task(self.stop.wait())
        await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*self.work.values())

    async def _read(self) -> None:
        for lbs_id, stream in await self.announcements.read():
            self._own(lbs_id, stream)

    async def _reclaim(self) -> None:
        await asyncio.sleep(POLL)
        where = self.announcements
        cursor = "0-0"
        while True:
            reply: Any = await self.redis.xautoclaim(
                where.key, where.group, where.consumer, round(1000 * IDLE), cursor, count=BATCH
            )
            cursor, entries = reply[0], reply[1]
            for lbs_id, fields in entries:
                self._own(lbs_id, stream_of(fields))
            if cursor == "0-0":
                break

    async def _refresh(self) -> None:
        await asyncio.sleep(BEAT)
        where = self.announcements
        believed = set(self.owned)
        pending: Any = await self.redis.xpending_range(
            where.key, where.group, "-", "+", EVERYTHING, consumername=where.consumer
        )
        mine = {entry["message_id"] for entry in pending}
        for lbs_id in believed - mine:
            self._lose(lbs_id)
        await self._claim([lbs_id for lbs_id in self.owned if lbs_id in mine], idle=0)

    async def _claim(self, lbs_ids: list[str], *, idle: int) -> None:
        where = self.announcements
        async with self.redis.pipeline(transaction=False) as pipe:
            for start in range(0, len(lbs_ids), CHUNK):
                ids = lbs_ids[start : start + CHUNK]
                pipe.xclaim(where.key, where.group, where.consumer, 0, ids, idle=idle, justid=True)
            await pipe.execute()

    def _own(self, lbs_id: str, stream: str) -> None:
        if lbs_id in self.owned:  # ours, and we were slow to refresh it
            return
        self.owned[lbs_id] = stream
        self.report.own(stream)
        if self.follows:
            self.work[lbs_id] = asyncio.create_task(self._follow(lbs_id, stream))

    def _lose(self, lbs_id: str) -> None:
        stream = self.owned.pop(lbs_id, None)
        if lbs_id in self.work:
            self.work[lbs_id].cancel()
        elif stream is not None:
            self.report.lose(stream)

    async def _follow(self, lbs_id: str, stream: str) -> None:
        try:
            if await follow(self.redis, self.announcements.service, stream, self.report, self.stop):
                await self.announcements.finish(lbs_id)
                self.owned.pop(lbs_id, None)
                self.report.finish(stream)
            else:
                self.report.lose(stream)
                await self._claim([lbs_id], idle=round(1000 * IDLE))
        except (asyncio.CancelledError, RedisError):
            pass  # it is another's, or will be
        finally:
            self.work.pop(lbs_id, None)
            self.report.lose(stream)


async def consume(url: str, service: str, report: Report) -> None:
    """Follow every stream to its end."""
    async with Redis.from_url(url, decode_responses=True, max_connections=10_000) as redis:
        consumer = Consumer(redis, service, report, follows=True)
        consumer.stop = stop_at_sigterm()
        await consumer.run()


async def hold(url: str, service: str, report: Report) -> None:
    """Own streams, and leave them unread."""
    async with Redis.from_url(url, decode_responses=True) as redis:
        await Consumer(redis, service, report, follows=False).run()
