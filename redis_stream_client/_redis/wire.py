"""Bytes to and from one connection that is open: write commands, read replies, close."""

import asyncio
import contextlib
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from redis_stream_client._redis import error_mapping, redis_py


def is_open(connection: AbstractConnection) -> bool:
    """Whether commands can be written to a connection."""
    writer = redis_py.writer(connection)
    return writer is not None and not writer.is_closing()


def is_ended(connection: AbstractConnection) -> bool:
    """Whether the peer has closed a connection, as far as is known."""
    reader = redis_py.reader(connection)
    return reader is None or reader.at_eof() or not is_open(connection)


async def send(connection: AbstractConnection, *commands: tuple[Any, ...]) -> None:
    """Write commands to a connection. Everything is handed to the transport before the first suspension.

    hiredis packs a command of 250 words in a tenth of the time that redis-py takes.

    A transport that the peer has closed is refused here: on Python 3.12 and 3.13 ``writelines()`` on it raises an
    ``AttributeError``.
    """
    if not is_open(connection):
        raise RedisConnectionError("the connection was closed")
    await connection.send_packed_command(list(map(hiredis.pack_command, commands)), check_health=False)


async def close(connection: AbstractConnection) -> None:
    """Close a connection without waiting for the peer."""
    with contextlib.suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)


def abort(connection: AbstractConnection) -> None:
    """Close a connection at once: nothing that is still buffered is sent, nothing that arrives is read.

    redis-py closes only in a coroutine, and lets the buffer drain first. Early releases of Python 3.11 raise an
    ``AttributeError`` for a TLS transport that has been closed twice, by the peer and by us.
    """
    writer = redis_py.writer(connection)
    if writer is not None:
        with contextlib.suppress(AttributeError):
            writer.transport.abort()
    redis_py.close(connection)


async def next_message(connection: AbstractConnection, quiet: float) -> list[Any]:
    """The next message of a subscription; empty for one that means nothing.

    A connection that is silent for `quiet` seconds is asked whether it lives: a half-open one never says anything,
    and raises nothing. Raises redis-py's errors, ``OSError`` and ``TimeoutError``.
    """
    message = await connection.read_response(disable_decoding=True, timeout=quiet, disconnect_on_error=False)
    if message is None:
        async with asyncio.timeout(quiet / 2):
            await send(connection, ("PING", "still there?"))
            message = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
    return message if isinstance(message, list) else []


async def roundtrip(connection: AbstractConnection, timeout: float | None, *command: Any) -> Any:
    """One command on a connection that nobody else uses now.

    Raises `Unanswered`, `GroupMissing` or `RedisRejected`; the connection is to be closed then.
    """
    try:
        async with asyncio.timeout(timeout):
            await send(connection, command)
            return await connection.read_response(disable_decoding=True)
    except (RedisError, OSError, TimeoutError) as error:
        raise error_mapping.map_error(error) from error
