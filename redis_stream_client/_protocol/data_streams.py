"""Looking at data streams without changing them. The server bounds each reply in bytes.

The streams of one call must be in one slot. These stubs are functions, because they need nothing but a connection.
"""

from collections.abc import Sequence
from typing import Any, Literal

from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.gaps import Look
from redis_stream_client._protocol import scripts
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.error_mapping import WrongType

PEEKED_BYTES = 1 << 17  # bytes of entries in one reply
PEEKED = 250  # the most streams in one call
TOUCHED_BYTES = 1 << 20  # bytes of entries in one look: with each stream Redis returns its first and last entry
LOOKED_AT = 100  # the most streams in one look; each takes 10 µs of Redis

UNCOUNTED: Literal["uncounted"] = "uncounted"
"""The server does not count the entries that were ever added (Redis 6.2), or asking is not permitted."""


async def peek(
    connection: SharedConnection, streams: Sequence[str], positions: Sequence[str], timeout: float
) -> list[list[Any]]:
    """The next few entries of each stream after its position, as Redis sends them.

    If the reply has no room for all streams, the last ones are left out.
    """
    args = (PEEKED_BYTES, *positions)
    entries: list[list[Any]] = await connection.run(scripts.load("peek"), streams, args, timeout=timeout)
    return entries


async def gaps(
    connection: SharedConnection, streams: Sequence[str], timeout: float
) -> list[Look | Literal["uncounted"] | None]:
    """What Redis knows about the entries of each stream; None if it cannot tell.

    If the entries are large, the last streams are left out.
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


def unreadable(stream: str, error: RedisRejected) -> RedisRejected:
    """The error of one data stream that cannot be read."""
    if isinstance(error, WrongType):
        rejected: RedisRejected = WrongType(
            f"the key {stream!r} holds another type of value than a stream",
            hint="a data stream must be written with XADD; delete or rename that key",
            stream=stream,
        )
    else:
        rejected = type(error)(f"the data stream {stream!r} cannot be read: {error.args[0]}", stream=stream)
    rejected.__cause__ = error.__cause__
    return rejected
