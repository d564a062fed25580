"""The ledger: a user's own database, on a server that suffers no faults, so that what it accepted is the truth.

It is guarded by the fence, and skips the effect of an entry that is there already. What that promises, also when a
failover forgets claims: an older owner is refused from the moment that a newer one has written. Forgotten claims
make Redis count anew; an owner whose fence is smaller by that is refused although the stream is its own, its
handler raises, and each hand-over adds one, until the fence is greater than the one that the ledger has.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool, Redis

from tests.proof.chaos.history import Writer, now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.harness.connection import Connection

LEDGER = "ledger"
FIELDS = (b"member", b"lease", b"stream", b"fence", b"id", b"outcome")
PAGE = 5_000
CONNECTIONS = 16
TIMEOUT = 60.0


AWAY = "away"
"""A key that is there while the ledger refuses everything, as a database that is away does."""


class Away(Exception):
    """The ledger is away."""


class Refused(Exception):
    """An effect came too late: a newer owner has written."""


def connect(url: str) -> Any:
    """Connections whose member may be frozen for a while, a few for hundreds of handlers."""
    pool: Any = BlockingConnectionPool.from_url(
        url, max_connections=CONNECTIONS, timeout=TIMEOUT, socket_timeout=TIMEOUT
    )
    return Redis.from_pool(pool)


class Ledger:
    """Writes effects."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis
        self._write: Any = redis.register_script(Path(__file__).with_name("write.lua").read_text())

    async def write(self, member: str, lease: int, stream: str, fence: str, entry_id: str, *, end: bool) -> str:
        """Write the effect of an entry, if it is not there. Returns the outcome. Raises `Away`."""
        outcome: bytes = await self._write(
            keys=[_last(stream), LEDGER, AWAY], args=[member, lease, stream, fence, entry_id, int(end)]
        )
        if outcome == b"away":
            raise Away
        return outcome.decode()

    async def look(self) -> None:
        """Raise `Away` if it is."""
        if await self._redis.exists(AWAY):
            raise Away

    async def go_away(self, seconds: float) -> None:
        """Refuse everything for so long."""
        await self._redis.set(AWAY, 1, px=round(seconds * 1000))

    async def last_of(self, streams: Sequence[str]) -> list[str]:
        """Ids of the last entries whose effects were accepted, or ""."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for stream in streams:
                pipe.hget(_last(stream), "id")
            return [(id or b"").decode() for id in await pipe.execute()] if streams else []


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
