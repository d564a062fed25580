"""Looking at data streams. Nothing is changed, and each reply is bounded in bytes on the server.

The streams of one call must be in one slot. What needs nothing but a connection is a function here, not a class.
"""

from collections.abc import Sequence
from typing import Any, Literal

from redis_stream_client._model.gaps import Look
from redis_stream_client._protocol import scripts
from redis_stream_client._redis.connection import SharedConnection

PEEKED_BYTES = 1 << 17  # of entries in one reply
PEEKED = 250  # streams that one call reads
TOUCHED_BYTES = 1 << 20  # of entries that a look may touch: Redis tells of a stream with its first and last entry
LOOKED_AT = 100  # streams in one look, which takes 10 µs of Redis for each

UNCOUNTED: Literal["uncounted"] = "uncounted"
"""The server does not count the entries that were ever added (Redis 6.2), or may not be asked."""


async def peek(
    connection: SharedConnection, streams: Sequence[str], positions: Sequence[str], timeout: float
) -> list[list[Any]]:
    """The next few entries of each stream behind its position, as Redis sends them.

    Those of the first streams only, when there was no room for the others.
    """
    args = (PEEKED_BYTES, *positions)
    entries: list[list[Any]] = await connection.run(scripts.load("peek"), streams, args, timeout=timeout)
    return entries


async def gaps(
    connection: SharedConnection, streams: Sequence[str], timeout: float
) -> list[Look | Literal["uncounted"] | None]:
    """What Redis knows of each stream's entries; None where it cannot tell.

    Those of the first streams only, when their entries were large.
    """
    replies = await connection.run(scripts.load("gaps"), streams, (TOUCHED_BYTES,), timeout=timeout)
    return [_look(reply) for reply in replies]


def _look(reply: Any) -> Look | Literal["uncounted"] | None:
    match reply:
        case [int(added), int(length), bytes(first), bytes(last), bytes(deleted)]:
            return Look(added, length, first.decode(), last.decode(), deleted.decode())
        case [0]:
            return UNCOUNTED
    return None
