"""What Redis says about announcements and sessions, looked at from outside all the time, and written down."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.asyncio import Redis

from redis_stream_client._model.entry import order
from tests.proof.chaos import sessions
from tests.proof.chaos.checker import LOOKS
from tests.proof.chaos.link import ERRORS, link
from tests.proof.chaos.servers import NotNow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis_stream_client._model.keys import Keys
    from tests.proof.chaos.history import Writer
    from tests.proof.chaos.servers import Servers

ANNOUNCED = Path(__file__).with_name("announced.lua").read_text()
TIMEOUT = 1.0
"""Seconds after which an answer would come too late to say anything."""
PAGE = 1_000
SESSIONS = 0.5
"""Seconds between two looks at the sessions."""


class Watch:
    """Looks who owns what, and what nobody has read, wherever the load balancer stream is."""

    def __init__(self, servers: Servers, keys: Keys, history: Writer, *, cluster: bool) -> None:
        self._servers = servers
        self._cluster = cluster
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

    async def look_on_sessions(self) -> None:
        """Look until cancelled whether one has an unread entry, and no announcement: then no owner will come.

        At no time may that be so. What is found was so between two looks at the data streams.
        """
        names = sessions.names(self._keys.lbs)
        while True:
            redis: Any = None
            with contextlib.suppress(*ERRORS, OSError, TimeoutError, NotNow):
                async with asyncio.timeout(TIMEOUT):
                    setup = {"cluster": self._cluster, "proxies": {port: port for port in self._servers.ports}}
                    redis = link(setup, timeout=TIMEOUT)
                    before = await self._unread(redis, names)
                    announced = await redis.eval(ANNOUNCED, 1, self._keys.lbs, *before) if before else []
                    suspects = before.keys() - {name.decode() for name in announced}
                    after = await self._unread(redis, sorted(suspects))
                    for stream, (checkpoint, entry) in after.items():
                        if order(checkpoint) < order(before[stream].entry):
                            self._history.write("unannounced", stream, before[stream].entry, entry)
            if redis is not None:
                with contextlib.suppress(*ERRORS, OSError):
                    await redis.aclose()
            await asyncio.sleep(SESSIONS)

    async def _unread(self, redis: Any, streams: Sequence[str]) -> dict[str, Unread]:
        """Of those that have an entry after the checkpoint, both."""
        if not streams:
            return {}
        async with redis.pipeline(transaction=False) as pipe:
            for stream in streams:
                pipe.hget(self._keys.progress(stream), "checkpoint")
                pipe.xrevrange(stream, count=1)
            answers = await pipe.execute()
        unread: dict[str, Unread] = {}
        for stream, checkpoint, last in zip(streams, answers[::2], answers[1::2], strict=True):
            if last:
                found = Unread((checkpoint or b"0-0").decode(), last[0][0].decode())
                if order(found.checkpoint) < order(found.entry):
                    unread[stream] = found
        return unread


class Unread(NamedTuple):
    """The checkpoint of a session, and its last entry."""

    checkpoint: str
    entry: str


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
