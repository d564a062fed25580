"""One redis-py `Lock` per stream, extended by a task per stream; peers hear of its expiry, and claim in two steps.

The design of the library for Go whose announcements this library understands, in Python, after the documentation
of `redis.asyncio.lock.Lock` and of keyspace notifications: lock lifetime 2 s, extended every second. The first
step of a claim is the lock, the second `XCLAIM`: so one peer wins, and one that dies in between is noticed by its
lock. There is no other way to hear of a lost stream than the notification. A consumer that leaves lets its locks
expire at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.lock import Lock
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import LockError, RedisError

from benchmarks.contenders.by_hand import Announcements, follow, insist, stop_at_sigterm

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from benchmarks.member import Report
    from tests.harness.connection import Connection

LOCK_TTL = 2.0
CONNECTIONS = 16
"""Of each consumer; who finds none free waits."""

RETRIES = 3
"""Of each command. `Redis()` has 10 by default, which is too late for a lock."""


class Consumer:
    """One consumer of the group. `data` reads the data streams, with a connection for each; None: nobody does."""

    def __init__(self, redis: Connection, data: Connection | None, service: str, report: Report) -> None:
        self.redis = redis
        self.data = data
        self.announcements = Announcements(redis, service)
        self.report = report
        self.stop = asyncio.Event()
        self.prefix = f"{service}:lock:"
        self.work: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Read and listen until `stop` is set; then let the others have what is left."""
        await self.announcements.create_group()
        await self.redis.config_set("notify-keyspace-events", "Kx")
        async with self.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.psubscribe(f"__keyspace@*__:{self.prefix}*")
            tasks = [asyncio.create_task(insist(step)) for step in (self._read, partial(self._listen, pubsub))]
            self.report.ready()
            stopped = asyncio.create_task(self.stop.wait())
            await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
                task.cancel()
            await asyncio.gather(*self.work)

    async def _read(self) -> None:
        await asyncio.gather(*(self._take(*new) for new in await self.announcements.read()))

    async def _listen(self, pubsub: Connection) -> None:
        async for message in pubsub.listen():
            if message["data"] == "expired":
                _, _, key = message["channel"].partition(self.prefix)
                lbs_id, _, stream = key.partition(":")
                self._start(self._claim(lbs_id, stream))

    async def _claim(self, lbs_id: str, stream: str) -> None:
        with contextlib.suppress(RedisError, LockError):
            await self._try_to_claim(lbs_id, stream)

    async def _try_to_claim(self, lbs_id: str, stream: str) -> None:
        lock = self._lock(lbs_id, stream)
        if not await lock.acquire(blocking=False):
            return  # a peer was first
        where = self.announcements
        if await self.redis.xclaim(where.key, where.group, where.consumer, 0, [lbs_id]):
            self._start(self._keep(lbs_id, stream, lock))
        else:
            await lock.release()  # it was finished meanwhile

    async def _take(self, lbs_id: str, stream: str) -> None:
        lock = self._lock(lbs_id, stream)
        with contextlib.suppress(RedisError):
            if await lock.acquire(blocking=False):
                self._start(self._keep(lbs_id, stream, lock))

    def _lock(self, lbs_id: str, stream: str) -> Lock:
        return Lock(self.redis, f"{self.prefix}{lbs_id}:{stream}", timeout=LOCK_TTL, thread_local=False)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.work.add(task)
        task.add_done_callback(self.work.discard)

    async def _keep(self, lbs_id: str, stream: str, lock: Lock) -> None:
        """Work on a stream for as long as its lock can be extended."""
        self.report.own(stream)
        try:
            if self.data is None:
                while True:
                    await asyncio.sleep(LOCK_TTL / 2)
                    await lock.reacquire()
            await self._follow(self.data, lbs_id, stream, lock)
        except (LockError, RedisError):
            pass  # it is another's, or will be
        finally:
            self.report.lose(stream)

    async def _follow(self, data: Connection, lbs_id: str, stream: str, lock: Lock) -> None:
        following = asyncio.create_task(follow(data, self.announcements.service, stream, self.report, self.stop))
        try:
            while not (await asyncio.wait([following], timeout=LOCK_TTL / 2))[0]:
                await lock.reacquire()
            if following.result():
                await self.announcements.finish(lbs_id)
                self.report.finish(stream)
                await lock.release()
            else:
                self.report.lose(stream)
                await self.redis.pexpire(lock.name, 1)
        finally:
            following.cancel()


async def consume(url: str, service: str, report: Report) -> None:
    """Follow every stream to its end."""
    async with _redis(url) as redis, Redis.from_url(url, decode_responses=True, max_connections=10_000) as data:
        consumer = Consumer(redis, data, service, report)
        consumer.stop = stop_at_sigterm()
        await consumer.run()


async def hold(url: str, service: str, report: Report) -> None:
    """Own streams, and leave them unread."""
    async with _redis(url) as redis:
        await Consumer(redis, None, service, report).run()


def _redis(url: str) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=None,
        retry=Retry(ExponentialWithJitterBackoff(), RETRIES),
        decode_responses=True,
    )
    return Redis.from_pool(pool)
