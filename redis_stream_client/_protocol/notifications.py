"""Notifications: the hints of peers, and keyspace events when Redis removes a lock."""

import asyncio
from dataclasses import dataclass

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import hints
from redis_stream_client._protocol.hints import Hint
from redis_stream_client._redis import wire
from redis_stream_client._redis.connection import SharedConnection


@dataclass(frozen=True, slots=True)
class LockGone:
    """The lock of a consumer has expired, or was deleted."""

    consumer: str
    expired: bool = True


async def subscribe(
    connection: AbstractConnection, keys: Keys, db: int, timeout: float, *, present: str | None = None
) -> bool:
    """Subscribe to the control channel, and to the keyspace events of the locks in database `db`.

    With `present`, subscribe also to the channel of this consumer's own lock, by name: the peers see by it that we
    live, and ``PUBSUB NUMSUB`` does not count patterns. It is the first of the commands, which travel together.

    Returns whether Redis has accepted that one.
    """
    commands = [("PSUBSCRIBE", keys.lock_events(db)), ("SUBSCRIBE", keys.control)]
    accepted = present is not None
    if present is not None:
        commands.insert(0, ("SUBSCRIBE", keys.presence_channel(present, db)))
    async with asyncio.timeout(timeout):
        await wire.send(connection, *commands)
        for _, channel in commands:
            try:
                await connection.read_response(disable_decoding=True, disconnect_on_error=False)
            except ResponseError:
                if present is None or channel != commands[0][1]:
                    raise
                accepted = False
    return accepted


def decode(message: list[bytes], keys: Keys, db: int) -> Hint | LockGone | None:
    """Decode a message; None if it means nothing to us."""
    match message:
        case [b"pmessage", _, bytes(channel), (b"expired" | b"del") as event]:
            consumer = keys.consumer_of(channel, db)
            return LockGone(consumer, expired=event == b"expired") if consumer else None
        case [b"message", bytes(channel), bytes(hint)] if channel == keys.control.encode():
            return hints.decode(hint)
    return None


class KeyspaceEvents:
    """The setting ``notify-keyspace-events`` of the server: which keyspace events it announces."""

    def __init__(self, *, commands: SharedConnection) -> None:
        self._commands = commands

    async def flags(self, timeout: float) -> str:
        """The flags that are set."""
        reply = await self._commands.request("CONFIG", "GET", "notify-keyspace-events", timeout=timeout)
        return reply[1].decode() if len(reply) == 2 else ""

    async def set_flags(self, flags: str, timeout: float) -> None:
        """Set the flags."""
        await self._commands.request("CONFIG", "SET", "notify-keyspace-events", flags, timeout=timeout)


def missing_flags(flags: str) -> str:
    """The flags that ``notify-keyspace-events`` lacks to announce that a key has expired."""
    missing = "" if "K" in flags else "K"
    return missing if "x" in flags or "A" in flags else missing + "x"
