"""The ledger: a user's own database, on a server that suffers no faults, so that what it accepted is the truth.

It is guarded by the fence, and skips the effect of an entry that is there already. What that promises, also when a
fail-over forgets claims: an older owner is refused from the moment that a newer one has written. Forgotten claims
may make Redis hand out fences anew; an owner with such a fence is refused although the stream is its own, its
handler raises, and each hand-over adds one, until the fence is greater than the one that the ledger has.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from tests.chaos.history import Writer, now

if TYPE_CHECKING:
    from tests.connection import Connection

LEDGER = "ledger"
FIELDS = (b"member", b"lease", b"stream", b"fence", b"id", b"outcome")
PAGE = 5_000


class Refused(Exception):
    """An effect came too late: a newer owner has written."""


def connect(url: str) -> Any:
    """A connection whose member may be frozen for a while."""
    return Redis.from_url(url, socket_timeout=60.0)


class Ledger:
    """Writes effects."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis
        self._write: Any = redis.register_script(Path(__file__).with_name("write.lua").read_text())

    async def write(
        self, member: str, lease: int, stream: str, fence: str, consumer: str, entry_id: str, *, end: bool
    ) -> str:
        """Write the effect of an entry, if it is not there. Returns the outcome."""
        outcome: bytes = await self._write(
            keys=[_last(stream), LEDGER], args=[member, lease, stream, fence, consumer, entry_id, int(end)]
        )
        return outcome.decode()

    async def last(self, stream: str) -> str:
        """Id of the last entry whose effect was accepted, or ""."""
        return ((await self._redis.hget(_last(stream), "id")) or b"").decode()


class Scribe:
    """Moves what the ledger noted into a history."""

    def __init__(self, redis: Connection, history: Writer) -> None:
        self._redis = redis
        self._history = history
        self.effects = 0
        self.finished = 0

    async def move(self) -> None:
        """Move what is there now."""
        ahead = now() - time.time()  # of the server's clock
        while noted := await self._redis.xrange(LEDGER, count=PAGE):
            for id, fields in noted:
                member, lease, *rest = (fields[name].decode() for name in FIELDS)
                at = int(id.partition(b"-")[0]) / 1000 + ahead
                self._history.write("wrote", member, int(lease), *rest, time=at)
                if rest[-1] == "accepted":
                    self.effects += 1
                    self.finished += fields[b"end"] == b"1"
            await self._redis.xtrim(LEDGER, minid=_after(noted[-1][0].decode()), approximate=False)


def _after(id: str) -> str:
    milliseconds, _, sequence = id.partition("-")
    return f"{milliseconds}-{int(sequence) + 1}"


def _last(stream: str) -> str:
    return f"last:{stream}"
