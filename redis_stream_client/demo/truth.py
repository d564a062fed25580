"""Who owns what, according to Redis: what is pending for whom, and whose lock exists.

This is the one place where the demo looks behind the public interface, to check on it.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from redis_stream_client.demo.book import keys_of
from redis_stream_client.keys import Keys


@dataclass(frozen=True, slots=True)
class Pending:
    """An announcement that was delivered and not finished."""

    consumer: str
    deliveries: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment.

    Attributes:
        at: the ``time.time()`` at which the answer was there.
        pending: by LBS id.
        locks: for the consumers asked for, whether the lock exists.
        announced: announcements on the load balancer stream, delivered or not.
        dead_letters: announcements that could not be processed.
    """

    at: float
    pending: dict[str, Pending]
    locks: dict[str, bool]
    announced: int
    dead_letters: int


class Truth:
    """Looks it up."""

    def __init__(self, redis: Redis, service: str, most: int) -> None:
        self._redis = redis
        self._keys = Keys(service)
        self._most = most

    async def look(self, consumers: Iterable[str]) -> Snapshot:
        """All of it in one transaction.

        Looking at a lock makes Redis notice that it has expired. So that the demo does not speed up what it
        measures, it does not ask for the lock of a consumer that is to be recovered from.
        """
        asked = list(consumers)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.xpending_range(self._keys.lbs, self._keys.group, "-", "+", self._most)
            pipeline.xlen(self._keys.lbs)
            pipeline.xlen(self._keys.dead)
            for consumer in asked:
                pipeline.exists(self._keys.lock(consumer))
            replies: list[Any] = await pipeline.execute()
        pending, announced, dead_letters, *locks = replies
        return Snapshot(
            at=time.time(),
            pending={
                entry["message_id"]: Pending(entry["consumer"], entry["times_delivered"]) for entry in pending
            },
            locks={consumer: bool(lock) for consumer, lock in zip(asked, locks, strict=True)},
            announced=announced,
            dead_letters=dead_letters,
        )

    async def erase(self, consumers: Iterable[str], streams: Iterable[str]) -> None:
        """Delete every key of the demo, also those that would expire."""
        keys = [self._keys.lbs, self._keys.dead, self._keys.sweep]
        keys += [self._keys.lock(consumer) for consumer in consumers]
        for stream in streams:
            keys += [stream, *keys_of(stream)]
        await self._redis.delete(*keys)
