"""Who owns what, according to Redis: what is pending for whom, and whose lock exists.

This is the one place where the demo looks behind the public interface, to check on it. It takes nothing from the
library for that, not even the names of its keys, which reference/keys in the documentation tells operators.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError


@dataclass(frozen=True, slots=True)
class Keys:
    """The library's keys of one service, whose name has neither braces nor colons in it."""

    service: str

    @property
    def lbs(self) -> str:
        """The load balancer stream."""
        return f"{self.service}-input"

    @property
    def group(self) -> str:
        """The consumer group on it."""
        return f"{self.service}-group"

    @property
    def dead(self) -> str:
        """The stream of dead letters."""
        return f"{{{self.lbs}}}:dead"

    def lock(self, consumer: str) -> str:
        """A consumer's lock."""
        return f"{{{self.lbs}}}:lock:{consumer}"

    def progress(self, stream: str) -> str:
        """The record of a data stream's progress."""
        return f"{{{stream}}}:{self.service}:progress"

    @property
    def announced(self) -> str:
        """The newest announcement of each data stream that is not finished."""
        return f"{{{self.lbs}}}:announced"

    @property
    def turns(self) -> list[str]:
        """The keys that say whose turn it is to do something for all; they expire soon."""
        return [f"{{{self.lbs}}}:{what}" for what in ("sweep", "tidy", "rescue", "rescue-now")]

    @property
    def present(self) -> str:
        """Who has declared its presence."""
        return f"{{{self.lbs}}}:present"

    @property
    def watch(self) -> str:
        """Who watches those that are present; it expires soon."""
        return f"{{{self.lbs}}}:watch"


@dataclass(frozen=True, slots=True)
class Pending:
    """An announcement that was delivered and not finished."""

    consumer: str
    deliveries: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment.

    Attributes:
        at: when, in seconds by the server's clock.
        consumers: all that have joined, and are not forgotten.
        pending: by LBS id.
        locks: for the consumers that were looked at, whether the lock exists.
        announced: announcements on the load balancer stream, delivered or not.
        dead_letters: announcements that could not be processed.
        newest: the LBS id of the newest announcement of each data stream that is not finished or asleep.
    """

    at: float = 0.0
    consumers: Sequence[str] = ()
    pending: dict[str, Pending] = field(default_factory=dict[str, Pending])
    locks: dict[str, bool] = field(default_factory=dict[str, bool])
    announced: int = 0
    dead_letters: int = 0
    newest: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def finished(self) -> bool:
        """Whether nothing is announced, and nothing pending."""
        return not self.announced and not self.pending

    def owner(self, lbs_id: str) -> str | None:
        """The consumer that owns a stream now: pending for it, and its lock was not seen to be gone."""
        pending = self.pending.get(lbs_id)
        if pending is None or not self.locks.get(pending.consumer, True):
            return None
        return pending.consumer

    def owned_by(self, consumer: str) -> int:
        """How many streams are pending for a consumer."""
        return sum(pending.consumer == consumer for pending in self.pending.values())


class Truth:
    """Looks it up."""

    def __init__(self, redis: Redis, service: str, most: int) -> None:
        self._redis = redis
        self._keys = Keys(service)
        self._most = most

    async def look(self, but: Collection[str]) -> Snapshot:
        """All of it in one transaction.

        Looking at a lock makes Redis notice that it has expired. So that the demo does not speed up what it
        measures, it does not look at the locks of the consumers `but`, which are to be recovered from.
        """
        consumers = await self._consumers()
        if consumers is None:
            return Snapshot()
        asked = [consumer for consumer in consumers if consumer not in but]
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.time()
            pipeline.xpending_range(self._keys.lbs, self._keys.group, "-", "+", self._most)
            pipeline.xlen(self._keys.lbs)
            pipeline.xlen(self._keys.dead)
            pipeline.hgetall(self._keys.announced)
            for consumer in asked:
                pipeline.exists(self._keys.lock(consumer))
            replies: list[Any] = await pipeline.execute()
        (seconds, microseconds), pending, announced, dead_letters, newest, *locks = replies
        return Snapshot(
            at=seconds + microseconds / 1e6,
            consumers=consumers,
            pending={
                entry["message_id"]: Pending(entry["consumer"], entry["times_delivered"]) for entry in pending
            },
            locks={consumer: bool(lock) for consumer, lock in zip(asked, locks, strict=True)},
            announced=announced,
            dead_letters=dead_letters,
            newest=newest,
        )

    async def lock_lives(self, consumer: str) -> float:
        """How many seconds a consumer's lock lives, unless it is renewed."""
        return max(0, await self._redis.pttl(self._keys.lock(consumer))) / 1000

    async def _consumers(self) -> list[str] | None:
        """None before the first one joins."""
        try:
            consumers: list[Any] = await self._redis.xinfo_consumers(self._keys.lbs, self._keys.group)
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return None
        return [consumer["name"] for consumer in consumers]

    async def erase(self, streams: Iterable[str], others: Iterable[str]) -> None:
        """Delete every key of the demo, also those that would expire: the library's, the data streams, and
        `others`."""
        keys = [self._keys.lbs, self._keys.announced, self._keys.dead, *self._keys.turns]
        keys += [self._keys.present, self._keys.watch, *others]
        keys += [self._keys.lock(consumer) for consumer in await self._consumers() or ()]
        for stream in streams:
            keys += [stream, self._keys.progress(stream)]
        await self._redis.delete(*keys)
