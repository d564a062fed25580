"""What Redis says about announcements, looked at from outside all the time, and written down."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from tests.proof.chaos.checker import LOOKS
from tests.proof.chaos.link import ERRORS
from tests.proof.chaos.servers import NotNow

if TYPE_CHECKING:
    from redis_stream_client._model.keys import Keys
    from tests.proof.chaos.history import Writer
    from tests.proof.chaos.servers import Servers

TIMEOUT = 1.0
"""Seconds after which an answer would come too late to say anything."""
PAGE = 1_000


class Watch:
    """Looks who owns what, and what nobody has read, wherever the load balancer stream is."""

    def __init__(self, servers: Servers, keys: Keys, history: Writer) -> None:
        self._servers = servers
        self._keys = keys
        self._history = history
        self._owners: dict[str, str] = {}

    async def look_on(self) -> None:
        """Look until cancelled. What gets no answer is looked at the next time."""
        while True:
            with contextlib.suppress(*ERRORS, OSError, TimeoutError, NotNow):
                async with asyncio.timeout(TIMEOUT), Redis.from_url((await self._servers.lbs()).url) as redis:
                    owners, unread = await pending(redis, self._keys), await oldest_unread(redis, self._keys)
                self._note(owners, unread)
            await asyncio.sleep(LOOKS)

    def _note(self, owners: dict[str, str], unread: str) -> None:
        changed = [(id, owner) for id, owner in owners.items() if self._owners.get(id) != owner]
        changed += [(id, "") for id in self._owners.keys() - owners.keys()]
        self._owners = owners
        if changed:
            self._history.write("owners", changed)
        self._history.write("unread", unread)


async def pending(redis: Any, keys: Keys) -> dict[str, str]:
    """All announcements that are pending, and for whom."""
    owners: dict[str, str] = {}
    first = "-"
    while True:
        page = await redis.xpending_range(keys.lbs, keys.group, first, "+", PAGE)
        owners |= {entry["message_id"].decode(): entry["consumer"].decode() for entry in page}
        if len(page) < PAGE:
            return owners
        first = f"({page[-1]['message_id'].decode()}"


async def oldest_unread(redis: Any, keys: Keys) -> str:
    """LBS id of the oldest announcement that was delivered to nobody, or ""."""
    for group in await redis.xinfo_groups(keys.lbs):
        if group["name"].decode() == keys.group:
            last = group["last-delivered-id"].decode()
            for id, _ in await redis.xrange(keys.lbs, f"({last}", "+", count=1):
                return str(id.decode())
    return ""
