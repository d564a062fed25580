"""The producer's side: announcing data streams."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from redis_stream_client import endpoint as endpoints
from redis_stream_client import faults
from redis_stream_client.announcement import FIELD, Info, encode
from redis_stream_client.errors import RedisRejected, RedisUnavailable
from redis_stream_client.keys import Keys, require_name

CHUNK = 500  # announcements that travel in one pipeline
REPLY_TIMEOUT = 5.0  # seconds for one pipeline, where the user's connection has no time-out


class LoadBalancerStream:
    """Announces data streams to the consumers of a service.

    Args:
        redis: a ``redis.asyncio.Redis`` or ``RedisCluster``. Connections are taken from the pool of a
            ``Redis`` and given back; a cluster is only a source of settings.
        service: name of the service.

    The wire format is that of the Go library `redis-stream-client-go`, whose producers may be mixed in.
    """

    def __init__(self, redis: "Redis | RedisCluster", service: str) -> None:
        self._keys = Keys(require_name(service, "service"))
        self._endpoint = endpoints.of(redis, self._keys.lbs)
        self._redis = redis

    async def add(self, stream: str, info: Info | None = None) -> str:
        """Announce a data stream; one live consumer will own it.

        Args:
            stream: name of the data stream; its entries may be written before or after.
            info: what the consumer should know, a mapping that can be JSON. Small: an announcement has at
                most 256 KiB.

        Returns:
            The announcement's id.

        Raises:
            TypeError, ValueError: for what no consumer would accept.
            RedisUnavailable: no answer. It may have been announced; announcing it again makes a second
                announcement of the same stream. Nothing is retried here.
            RedisRejected: Redis refuses.
        """
        return (await self.add_many([(stream, info)]))[0]

    async def add_many(self, streams: "Iterable[str | tuple[str, Info | None]]") -> list[str]:
        """Announce many data streams in few round trips.

        Args:
            streams: names, or pairs of name and info. All are checked before the first is sent.

        Returns:
            The announcements' ids, in the same order.

        Raises as `add`. After `RedisUnavailable`, some may have been announced.
        """
        if isinstance(streams, str):
            raise TypeError("streams must be an iterable of names, not one str; use add()")
        payloads = [encode(stream) if isinstance(stream, str) else encode(*_pair(stream)) for stream in streams]
        ids: list[str] = []
        if not payloads:
            return ids
        async with self._connection() as connection:
            for start in range(0, len(payloads), CHUNK):
                chunk = payloads[start : start + CHUNK]
                ids += [reply.decode() for reply in await self._send(connection, chunk)]
        return ids

    async def _send(self, connection: AbstractConnection, payloads: list[bytes]) -> list[bytes]:
        commands = [("XADD", self._keys.lbs, "*", FIELD, payload) for payload in payloads]
        replies: list[Any] = []
        failure: Exception | None = None
        # A deadline of our own: redis-py's may swallow a cancellation.
        configured, connection.socket_timeout = connection.socket_timeout, None
        try:
            async with asyncio.timeout(configured or REPLY_TIMEOUT):
                await endpoints.send(connection, *connection.pack_commands(commands))
                for _ in commands:
                    try:
                        replies.append(await connection.read_response(disable_decoding=True))
                    except ResponseError as error:
                        failure = failure or error
        finally:
            connection.socket_timeout = configured
        if failure is not None:
            raise failure
        return replies

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[AbstractConnection]:
        """A connection, with what goes wrong on it translated."""
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
            raise _unavailable(fault) from error
        except faults.Unanswered as fault:
            raise _unavailable(fault) from fault


def _pair(stream: object) -> tuple[str, Info | None]:
    if not isinstance(stream, tuple) or len(stream) != 2:
        raise TypeError(f"streams must hold names or (name, info) pairs, not {stream!r}")
    return stream


def _unavailable(fault: Exception) -> RedisUnavailable:
    return RedisUnavailable(
        f"could not announce: {fault}", hint="it may have been announced; announcing again adds another"
    )
