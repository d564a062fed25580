"""One consumer's stubs, without a client around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from redis_stream_client._model.announcement import FIELD, encode
from redis_stream_client._protocol.announcements import Announcements
from redis_stream_client._protocol.base import ReplySizes
from redis_stream_client._protocol.deliveries import Deliveries
from redis_stream_client._protocol.group import Group
from redis_stream_client._protocol.hints import Hints
from redis_stream_client._protocol.lock import Lock
from redis_stream_client._protocol.pending import Pending
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import endpoint_for
from tests.harness.logs import LOG
from tests.harness.options import checked

if TYPE_CHECKING:
    from tests.harness.connection import Connection


SOON = 5.0
"""The timeout of every request here."""


class Consumer:
    """One consumer's stubs, without a client around them; `async with` takes its lock."""

    def __init__(
        self,
        redis: Connection,
        service: str,
        name: str,
        lock_ttl: float = 60.0,
        *,
        weight: float = 1.0,
        max_streams: int | None = None,
    ) -> None:
        self.options = checked(
            service, consumer_name=name, lock_ttl=lock_ttl, max_streams=max_streams, weight=weight
        )
        self.redis = redis
        self.id = self.options.consumer
        self.keys = self.options.keys
        self.lock_key = self.keys.lock(self.id)
        self.links = [SharedConnection(endpoint_for(redis, self.keys.lbs)) for _ in range(3)]
        beats, commands, reads = self.links
        self.sizes = ReplySizes(self.options.patience, LOG)
        self.lock = Lock(self.options, beats=beats, commands=commands)
        self.deliveries = Deliveries(self.options, commands=commands, sizes=self.sizes)
        self.announcements = Announcements(
            self.options, reads=reads, beats=beats, deliveries=self.deliveries, sizes=self.sizes
        )
        self.pending = Pending(self.options, commands=commands, sizes=self.sizes)
        self.group = Group(self.options, commands=commands)
        self.hints = Hints(self.keys, commands=commands)

    async def __aenter__(self) -> Self:
        await self.lock.join(SOON)
        return self

    async def __aexit__(self, *_: object) -> None:
        for link in self.links:
            await link.close()

    async def announce(self, count: int = 1) -> list[str]:
        """Announce `call-0`, `call-1`, …; returns the announcements' ids."""
        added = [await self.redis.xadd(self.keys.lbs, {FIELD: encode(f"call-{n}")}) for n in range(count)]
        return [lbs_id.decode() for lbs_id in added]

    async def take(self, count: int = 1) -> list[str]:
        """Announce and have delivered; returns the announcements' ids."""
        lbs_ids = await self.announce(count)
        share = await self.announcements.share(count, False, [], SOON)
        assert share is not None
        assert [entry.lbs_id for entry in share.entries] == lbs_ids
        return lbs_ids

    async def die(self) -> None:
        """The lock expires."""
        await self.redis.delete(self.lock_key)

    async def trim(self, *lbs_ids: str) -> None:
        """Delete announcements without acknowledging them."""
        assert await self.redis.xdel(self.keys.lbs, *lbs_ids) == len(lbs_ids)

    async def all_pending(self) -> dict[str, tuple[str, int]]:
        """Owner and delivery count of everything that is pending."""
        found = await self.redis.xpending_range(self.keys.lbs, self.keys.group, "-", "+", 1000)
        return {one["message_id"].decode(): (one["consumer"].decode(), one["times_delivered"]) for one in found}

    async def snapshot(self) -> Any:
        """Everything that a request may change."""
        entries = await self.redis.xrange(self.keys.lbs)
        return entries, await self.all_pending(), await self.redis.xrange(self.keys.dead)
