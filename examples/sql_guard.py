"""A worker that guards its own database with `lease.fence`: every entry takes effect once, and in order.

    REDIS_URL=redis://localhost SERVICE=orders DATABASE=effects.db python examples/sql_guard.py

A lock cannot stop an owner that was frozen, and wakes when a peer has taken over. The database can: it knows the
newest fence of each stream, and refuses whoever comes with an older one. And since the effect of an entry and the
position behind it are committed together, the next owner repeats nothing and skips nothing.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from functools import partial

from redis_stream_client import Fence, Lease, RedisStreamClient

log = logging.getLogger("sql_guard")

SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (stream TEXT PRIMARY KEY, fence TEXT NOT NULL, position TEXT);
CREATE TABLE IF NOT EXISTS effects (
    stream TEXT, entry_id TEXT, effect TEXT NOT NULL, fence TEXT NOT NULL, PRIMARY KEY (stream, entry_id)
);
"""

# str(fence) sorts as fences do, so any database can compare it. Nothing is changed where a newer one is stored. No
# two owners have the same fence, not even when Redis forgot one of them in a failover: an equal one is one's own.
BEGIN = """
INSERT INTO streams (stream, fence) VALUES (:stream, :fence)
ON CONFLICT (stream) DO UPDATE SET fence = :fence WHERE fence <= :fence
"""
ADVANCE = "UPDATE streams SET fence = :fence, position = :id WHERE stream = :stream AND fence <= :fence"
WRITE = "INSERT INTO effects VALUES (:stream, :id, :effect, :fence)"


class StaleFence(Exception):
    """A newer owner has begun: what this one wanted to write was not written."""


class Ledger:
    """The effects, and how far each stream has come. Blocks: to be called in threads."""

    def __init__(self, path: str) -> None:
        self._path = path
        with self._transaction() as database:
            database.executescript(SCHEMA)

    def begin(self, stream: str, fence: Fence) -> str | None:
        """Make this the newest owner, and return the position, which no older owner can change from now on."""
        with self._transaction() as database:
            values = {"stream": stream, "fence": str(fence)}
            if database.execute(BEGIN, values).rowcount == 0:
                raise StaleFence(stream)
            [position] = database.execute("SELECT position FROM streams WHERE stream = :stream", values).fetchone()
        return position  # type: ignore[no-any-return]

    def write(self, stream: str, fence: Fence, entry_id: str, effect: str) -> None:
        """Commit an effect and the position together, or neither."""
        with self._transaction() as database:
            values = {"stream": stream, "fence": str(fence), "id": entry_id, "effect": effect}
            if database.execute(ADVANCE, values).rowcount == 0:
                raise StaleFence(stream)
            database.execute(WRITE, values)

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection, None, None]:
        with closing(sqlite3.connect(self._path)) as database, database:
            yield database


async def handle(ledger: Ledger, lease: Lease) -> None:
    """Process one data stream, from where the database says."""
    position = await asyncio.to_thread(ledger.begin, lease.stream, lease.fence)
    log.info("%s: owned with fence %s, position %s", lease.stream, lease.fence, position)
    if position is not None:
        await lease.checkpoint(position)  # Redis does not know it if the last owner died just after its commit
    async for entry in lease.entries():
        fields = entry.text()
        if fields.get("type") == "end":
            return
        # A thread cannot be cancelled. If the lease is lost meanwhile, this one still commits or is refused.
        await asyncio.to_thread(ledger.write, lease.stream, lease.fence, entry.id, fields["text"].upper())
        await lease.checkpoint(entry.id)


def main() -> None:
    """Work until a signal comes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    client = RedisStreamClient.from_url(
        os.environ.get("REDIS_URL", "redis://localhost"),
        os.environ.get("SERVICE", "orders"),
        lock_ttl=float(os.environ.get("LOCK_TTL", "2")),
    )
    ledger = Ledger(os.environ.get("DATABASE", "effects.db"))
    asyncio.run(client.run(partial(handle, ledger), handle_signals=True))


if __name__ == "__main__":
    main()
