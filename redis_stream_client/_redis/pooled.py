"""Connections that are borrowed for a few commands, by those who are no members of a fleet."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import hiredis
from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError

from redis_stream_client._model.errors import RedisRejected, RedisStreamClientError, RedisUnavailable
from redis_stream_client._redis import error_mapping, redis_py, wire
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.script import Script

REPLY_TIMEOUT = 5.0
"""Seconds of silence that end an exchange, where the user's connection has no time-out."""

CONNECT_TIMEOUT = 10.0
"""Seconds that a pool has to give a connection, or more where connecting once may take more than half of that."""

SLOWEST_LINE = 32 * 1024
"""Bytes per second that a line carries at the least: a request of n bytes gets n / SLOWEST_LINE seconds more."""

_READ_SIZE = 65_536
_PUSHED = getattr(hiredis, "PushNotification", ())
_POOL_IS_EMPTY = ("Too many connections", "No connection available")


class Loan:
    """A connection on loan, and what became of the last requests that were written to it.

    Attributes:
        replies: those that came, as bytes; what Redis refused is there as redis-py's exception.
        unanswered: how many requests were written, or may have been in part, and not answered.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self.replies: list[Any] = []
        self.unanswered = 0

    async def exchange(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands in one pipeline, and return their replies as bytes.

        The time-out counts silence: it begins anew with every byte that arrives, so that a large reply may take
        as long as the line needs. The replies are read here, not by redis-py: they have one shape, whatever parser
        the connection has, whether it decodes, and whichever protocol it speaks.

        Raises redis-py's errors; that of the first command that was refused, after all have been answered. Whoever
        fails or is cancelled closes the connection: a reply that was given up answers nobody else.
        """
        self.replies = []
        connection = self._connection
        if not wire.is_open(connection):
            raise RedisConnectionError("the connection was closed")
        size = sum(len(word) for command in commands for word in command if isinstance(word, str | bytes))
        # A deadline of our own: redis-py's may swallow a cancellation.
        configured, connection.socket_timeout = connection.socket_timeout, None
        patience = (configured or REPLY_TIMEOUT) + size / SLOWEST_LINE
        self.unanswered = len(commands)
        try:
            async with asyncio.timeout(patience) as deadline:
                await wire.send(connection, *commands)
                await self._read(patience, deadline)
        finally:
            connection.socket_timeout = configured
            if self.unanswered:
                wire.abort(connection)
        refused = next((reply for reply in self.replies if isinstance(reply, Exception)), None)
        if refused is None:
            return self.replies
        fault = error_mapping.map_error(refused)
        if isinstance(fault, error_mapping.Unanswered) and fault.elsewhere:
            wire.abort(connection)  # the pool connects anew, to where the master is now
        raise refused

    async def _read(self, patience: float, deadline: asyncio.Timeout) -> None:
        stream = redis_py.reader(self._connection)
        parser = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=redis_py.parse_error,
            notEnoughData=_MORE,
        )
        while self.unanswered:
            reply = parser.gets()
            if reply is _MORE:
                data = await stream.read(_READ_SIZE) if stream is not None else b""
                if not data:
                    raise RedisConnectionError("the server closed the connection")
                parser.feed(data)
                deadline.reschedule(asyncio.get_running_loop().time() + patience)
            elif not isinstance(reply, _PUSHED):
                self.unanswered -= 1
                self.replies.append(reply)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes]) -> Any:
        """Run a script, sending its text only when the server does not know it yet. Raises as `exchange`."""
        words = (len(keys), *keys, *args)
        try:
            [reply] = await self.exchange(("EVALSHA", script.sha, *words))
        except NoScriptError:
            [reply] = await self.exchange(("EVAL", script.text, *words))
        return reply


_MORE = object()


class Pooled:
    """Where a user's commands about one key go.

    Args:
        redis: a ``redis.asyncio.Redis``, whose pool lends a connection and gets it back; or a ``RedisCluster``,
            which is only a source of settings: each time a connection to the node that has the key is opened.
            Anything else is a ``TypeError``.
        key: any key of the slot.
    """

    def __init__(self, redis: Redis | RedisCluster, key: str) -> None:
        self._endpoint = endpoint_for(redis, key, pooled=True)
        self._redis = redis
        self._key = key

    @property
    def patience(self) -> float:
        """Seconds of silence that end an exchange."""
        settings = self._redis.connection_pool.connection_kwargs if isinstance(self._redis, Redis) else {}
        return settings.get("socket_timeout") or REPLY_TIMEOUT

    @asynccontextmanager
    async def connection(
        self, doing: str, hint: str | None = None, *, undone: str | None = None
    ) -> AsyncGenerator[Loan]:
        """A connection, with what goes wrong on it translated.

        Args:
            doing: what cannot be done then, for the message of `RedisUnavailable`: "could not …".
            hint: what its caller should know when a request was written and not answered.
            undone: and what when none was: Redis has certainly not done it.
        """
        loan: Loan | None = None
        try:
            async with self._lent() as connection:
                loan = Loan(connection)
                yield loan
        except RedisStreamClientError as rejected:
            raise rejected from rejected.__cause__
        except Exception as error:
            if loan is not None and not isinstance(error, RedisError | OSError | error_mapping.Unanswered):
                raise  # else a credential provider, perhaps, which may raise anything
            translated = self._translated(error, doing, hint if loan is not None and loan.unanswered else undone)
            raise translated from translated.__cause__

    @asynccontextmanager
    async def _lent(self) -> AsyncGenerator[AbstractConnection]:
        if isinstance(self._redis, Redis):
            connection = await self._from_pool(self._redis.connection_pool)
            try:
                yield connection
            finally:
                await self._redis.connection_pool.release(connection)
        else:
            connection = await self._endpoint.open(REPLY_TIMEOUT)
            try:
                yield connection
            finally:
                await wire.close(connection)

    async def _from_pool(self, pool: ConnectionPool) -> AbstractConnection:
        """A connection of the pool, within a bound: redis-py tries ten times, or for ever without a time-out."""
        connect = pool.connection_kwargs.get("socket_connect_timeout") or self.patience
        waiting: float | None = getattr(pool, "timeout", 0)  # of a pool that blocks; None: as long as it takes
        bound = None if waiting is None else max(CONNECT_TIMEOUT, 2 * connect) + waiting
        deadline = asyncio.timeout(bound)
        try:
            async with deadline:
                connection = await redis_py.borrow(pool)
                try:
                    if wire.is_ended(connection):  # pools do not always look
                        wire.abort(connection)
                        await connection.connect()  # type: ignore[no-untyped-call]
                except BaseException:
                    await pool.release(connection)
                    raise
        except TimeoutError:
            if not deadline.expired():
                raise
            raise error_mapping.Unanswered(
                f"no connection to {self._endpoint.where} within {bound:g} s", maybe_executed=False
            ) from None
        return connection

    def _translated(self, error: Exception, doing: str, hint: str | None) -> RedisStreamClientError:
        """What went wrong, in this package's words, with redis-py's error or the system's as its cause."""
        where = self._endpoint.where
        fault = error if isinstance(error, error_mapping.Unanswered) else error_mapping.map_error(error, where)
        translated: RedisStreamClientError
        if isinstance(fault, RedisRejected):
            translated = fault
        elif isinstance(self._redis, Redis) and isinstance(error, ResponseError) and _moved(error):
            translated = RedisRejected(
                f"could not {doing}: {where} is a node of a Redis Cluster, and another node has {self._key!r}",
                hint="give a redis.asyncio.RedisCluster instead of a Redis",
            )
        else:
            if str(error).startswith(_POOL_IS_EMPTY):
                full = "all connections of the given client's pool are in use: see its max_connections"
                hint = f"{hint}; {full}" if hint else full
            translated = RedisUnavailable(f"could not {doing}: {fault}", hint=hint)
        translated.__cause__ = error_mapping.origin(fault)
        return translated


def _moved(error: ResponseError) -> bool:
    return error_mapping.read(error)[0] in ("MOVED", "ASK")
