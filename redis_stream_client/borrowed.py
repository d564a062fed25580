"""Connections that are borrowed for a few commands, by those who are no members of a fleet."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from redis_stream_client import endpoint as endpoints
from redis_stream_client import faults
from redis_stream_client.errors import RedisRejected, RedisUnavailable
from redis_stream_client.scripts import Script

REPLY_TIMEOUT = 5.0  # seconds for one exchange, where the user's connection has no time-out


class Borrowed:
    """Where a user's commands about one key go.

    Args:
        redis: a ``redis.asyncio.Redis``, whose pool lends a connection and gets it back; or a ``RedisCluster``,
            which is only a source of settings: each time a connection to the node that has the key is opened.
            Anything else is a ``TypeError``.
        key: any key of the slot.
    """

    def __init__(self, redis: Redis | RedisCluster, key: str) -> None:
        self._endpoint = endpoints.of(redis, key)
        self._redis = redis

    @asynccontextmanager
    async def connection(self, doing: str, hint: str | None = None) -> AsyncGenerator[AbstractConnection]:
        """A connection, with what goes wrong on it translated.

        Args:
            doing: what cannot be done then, for the message of `RedisUnavailable`: "could not …".
            hint: what its caller should know about the outcome.
        """
        try:
            if isinstance(self._redis, Redis):
                connection = await self._redis.connection_pool.get_connection()  # type: ignore[no-untyped-call]
                try:
                    yield connection
                finally:
                    await self._redis.connection_pool.release(connection)
            else:
                connection = await self._endpoint.open(REPLY_TIMEOUT)
                try:
                    yield connection
                finally:
                    await endpoints.close(connection)
        except (RedisError, OSError, TimeoutError) as error:
            fault = faults.of(error)
            if isinstance(fault, RedisRejected):
                raise fault from error
            raise RedisUnavailable(f"could not {doing}: {fault}", hint=hint) from error
        except faults.Unanswered as fault:
            raise RedisUnavailable(f"could not {doing}: {fault}", hint=hint) from fault


async def exchange(connection: AbstractConnection, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Send commands in one pipeline, and return their replies as bytes.

    Raises redis-py's errors; that of the first command that was refused, after all have been answered. A
    cancellation closes the connection: a reply that was given up answers nobody else.
    """
    replies: list[Any] = []
    refused: ResponseError | None = None
    # A deadline of our own: redis-py's may swallow a cancellation.
    configured, connection.socket_timeout = connection.socket_timeout, None
    try:
        async with asyncio.timeout(configured or REPLY_TIMEOUT):
            await endpoints.send(connection, *commands)
            for _ in commands:
                try:
                    replies.append(await connection.read_response(disable_decoding=True))
                except ResponseError as error:
                    refused = refused or error
    finally:
        connection.socket_timeout = configured
    if refused is not None:
        raise refused
    return replies


async def run(
    connection: AbstractConnection, script: Script, keys: Sequence[str], args: Sequence[str | bytes]
) -> Any:
    """Run a script, sending its text only when the server does not know it yet. Raises as `exchange`."""
    words = (len(keys), *keys, *args)
    try:
        [reply] = await exchange(connection, [("EVALSHA", script.sha, *words)])
    except NoScriptError:
        [reply] = await exchange(connection, [("EVAL", script.text, *words)])
    return reply
