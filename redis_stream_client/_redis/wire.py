"""The wire: write commands to an open connection, read replies from it, close it."""

import asyncio
import contextlib
import os
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
    """Whether the server has closed the connection, as far as we know."""
    reader = redis_py.reader(connection)
    return reader is None or reader.at_eof() or not is_open(connection)


async def send(connection: AbstractConnection, *commands: tuple[Any, ...]) -> None:
    """Write commands to a connection. The transport has everything before the first suspension.

    hiredis packs a command of 250 words in a tenth of the time that redis-py takes.

    Raises an error for a transport that the server has closed: on Python 3.12 and 3.13 ``writelines()`` would
        raise an
    ``AttributeError``.
    """
    if not is_open(connection):
        raise RedisConnectionError("the connection was closed")
    await connection.send_packed_command(list(map(hiredis.pack_command, commands)), check_health=False)


def write(connection: AbstractConnection, command: tuple[Any, ...]) -> None:
    """Write one small command to a connection, without waiting for the buffer to drain."""
    writer = redis_py.writer(connection)
    if writer is None or writer.is_closing():
        raise RedisConnectionError("the connection was closed")
    writer.write(hiredis.pack_command(command))


async def close(connection: AbstractConnection) -> None:
    """Close a connection without waiting for the server."""
    with contextlib.suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)


def abort(connection: AbstractConnection) -> None:
    """Close a connection at once: send nothing that is still buffered, and read nothing more.

    redis-py closes only in a coroutine, and lets the buffer drain first. Early releases of Python 3.11 raise an
    ``AttributeError`` for a TLS transport that the server and we have both closed.
    """
    writer = redis_py.writer(connection)
    if writer is not None:
        with contextlib.suppress(AttributeError):
            writer.transport.abort()
    redis_py.close(connection)


def disown(connection: AbstractConnection) -> None:
    """Give up the copy of a connection in a forked child. With it, the server would not see the end of the parent.

    To close the copy would also remove the socket from the selector that the child shares with its parent, so
    another file takes its place.
    """
    writer = redis_py.writer(connection)
    socket = None if writer is None else writer.get_extra_info("socket")
    if socket is None or socket.fileno() < 0:
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, socket.fileno(), inheritable=False)
    os.close(nothing)


async def next_message(connection: AbstractConnection, quiet: float, patience: float) -> list[Any]:
    """The next message of a subscription; empty for one without meaning.

    After `quiet` seconds of silence it sends a ``PING``, because a half-open connection stays silent for ever, and
    waits `patience` seconds for the answer. Raises errors of redis-py, ``OSError`` and ``TimeoutError``.
    """
    message = await connection.read_response(disable_decoding=True, timeout=quiet, disconnect_on_error=False)
    if message is None:
        async with asyncio.timeout(patience):
            await send(connection, ("PING", "still there?"))
            message = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
    return message if isinstance(message, list) else []


async def roundtrip(connection: AbstractConnection, timeout: float | None, *command: Any) -> Any:
    """Send one command on a connection that nobody else uses, and return the reply.

    Raises `Unanswered`, `GroupMissing` or `RedisRejected`; then close the connection.
    """
    try:
        async with asyncio.timeout(timeout):
            await send(connection, command)
            return await connection.read_response(disable_decoding=True)
    except (RedisError, OSError, TimeoutError) as error:
        raise error_mapping.map_error(error) from error
