"""Pooled connections: producers and others outside of a fleet borrow one for a few commands."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn

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
"""Seconds of silence that end an exchange, if the user's connection has no timeout."""

CONNECT_TIMEOUT = 10.0
"""Seconds that a pool has to give a connection, or more where connecting once may take more than half of that."""

SLOWEST_LINE = 32 * 1024
"""The slowest line that we support, in bytes per second. A request of n bytes gets n / SLOWEST_LINE extra
seconds."""

_READ_SIZE = 65_536
_PUSHED = getattr(hiredis, "PushNotification", ())
_TOO_MANY = "Too many connections"
_POOL_IS_EMPTY = (_TOO_MANY, "No connection available")


class Loan:
    """A borrowed connection, and what happened to the last requests on it.

    Attributes:
        replies: the replies that came, as bytes; a refusal is an exception of redis-py.
        unanswered: how many requests may have been written and were not answered.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self.replies: list[Any] = []
        self.unanswered = 0

    async def exchange(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands in one pipeline, and return their replies as bytes.

        The timeout counts silence: it starts again with every byte that arrives, so a large reply may take as long
        as the line needs. This module reads the replies itself, and not redis-py. So they have one shape, whatever
        parser, decoding and protocol the connection has.

        Raises errors of redis-py: for refused commands the first refusal, after all are answered; and what
        `together` raises.
        """
        for reply in await self.together(*commands):
            if isinstance(reply, Exception):
                self.refuse(reply)
        return self.replies

    async def together(self, *commands: tuple[Any, ...]) -> list[Any]:
        """As `exchange`; a refused command has its refusal as its reply.

        Raises errors of redis-py. After a failure or a cancellation the connection is closed, so that a late reply
        cannot answer another request.
        """
        self.replies = []
        connection = self._connection
        if not wire.is_open(connection):
            raise RedisConnectionError("the connection was closed")
        size = sum(len(word) for command in commands for word in command if isinstance(word, str | bytes))
        # Our own deadline: that of redis-py may swallow a cancellation.
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
        return self.replies

    def refuse(self, refused: Exception) -> NoReturn:
        """Raise an error reply of the server, be it one that a script has passed on."""
        fault = error_mapping.map_error(refused)
        if isinstance(fault, error_mapping.Unanswered) and fault.elsewhere:
            wire.abort(self._connection)  # the pool connects anew, to where the master is now
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
        """Run a script; send its text only if the server does not know it yet. Raises what `exchange` raises."""
        words = (len(keys), *keys, *args)
        try:
            [reply] = await self.exchange(("EVALSHA", script.sha, *words))
        except NoScriptError:
            [reply] = await self.exchange(("EVAL", script.text, *words))
        return reply


_MORE = object()


class Pooled:
    """Lends connections for commands about one key.

    Args:
        redis: a ``redis.asyncio.Redis``, whose pool lends the connections; or a ``RedisCluster``, which is only a
            source of settings: each loan opens a connection to the node that has the key. Anything else is a
            ``TypeError``.
        key: any key of the slot.
    """

    def __init__(self, redis: Redis | RedisCluster, key: str) -> None:
        self._endpoint = endpoint_for(redis, key, pooled=True)
        self._redis = redis
        self._key = key
        self._lent = 0  # or about to be
        self._waiting: deque[asyncio.Future[None]] = deque()  # for a connection that we have lent

    @property
    def patience(self) -> float:
        """Seconds of silence that end an exchange."""
        settings = self._redis.connection_pool.connection_kwargs if isinstance(self._redis, Redis) else {}
        return settings.get("socket_timeout") or REPLY_TIMEOUT

    @asynccontextmanager
    async def connection(
        self, doing: str, hint: str | None = None, *, undone: str | None = None
    ) -> AsyncGenerator[Loan]:
        """Borrow a connection for a block. Errors in the block become errors of this package.

        Args:
            doing: what the block does, for the message of `RedisUnavailable`: "could not …".
            hint: the hint if a request was written and not answered.
            undone: the hint if no request was written, so that Redis has certainly done nothing.
        """
        loan: Loan | None = None
        try:
            async with self.lent() as connection:
                loan = Loan(connection)
                yield loan
        except RedisStreamClientError as rejected:
            raise rejected from rejected.__cause__
        except Exception as error:
            if loan is not None and not isinstance(error, RedisError | OSError | error_mapping.Unanswered):
                raise  # anything else may come from a credential provider
            translated = self.translated(error, doing, hint if loan is not None and loan.unanswered else undone)
            raise translated from translated.__cause__

    @asynccontextmanager
    async def lent(self) -> AsyncGenerator[AbstractConnection]:
        """Borrow a connection for a block. Raises errors of redis-py or of the system, or `Unanswered`."""
        if isinstance(self._redis, Redis):
            connection = await self._from_pool(self._redis.connection_pool)
            try:
                yield connection
            finally:
                await self._give_back(self._redis.connection_pool, connection)
        else:
            connection = await self._endpoint.open(REPLY_TIMEOUT)
            try:
                yield connection
            finally:
                await wire.close(connection)

    async def _from_pool(self, pool: ConnectionPool) -> AbstractConnection:
        """A connection of the pool, within a time limit. redis-py tries ten times, or for ever without a
        timeout."""
        connect = pool.connection_kwargs.get("socket_connect_timeout") or self.patience
        waiting: float | None = getattr(pool, "timeout", 0)  # of a pool that blocks; None: as long as it takes
        bound = None if waiting is None else max(CONNECT_TIMEOUT, 2 * connect) + waiting
        deadline = asyncio.timeout(bound)
        try:
            async with deadline:
                connection = await self._borrowed(pool)
                try:
                    if wire.is_ended(connection):  # pools do not always look
                        wire.abort(connection)
                        await connection.connect()  # type: ignore[no-untyped-call]
                except BaseException:
                    await self._give_back(pool, connection)
                    raise
        except TimeoutError:
            if not deadline.expired():
                raise
            raise error_mapping.Unanswered(
                f"no connection to {self._endpoint.where} within {bound:g} s", maybe_executed=False
            ) from None
        return connection

    async def _borrowed(self, pool: ConnectionPool) -> AbstractConnection:
        """A connection of the pool. If it has none because others here have them, wait until one is given back."""
        our_turn = not self._waiting
        while True:
            if our_turn:
                self._lent += 1
                try:
                    return await redis_py.borrow(pool)
                except BaseException as error:
                    self._lent -= 1
                    if not self._lent or not str(error).startswith(_TOO_MANY):
                        self._wake()
                        raise
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.cancelled():
                    with suppress(ValueError):  # others were woken meanwhile, and it was left out
                        self._waiting.remove(turn)
                else:
                    self._wake()  # it was our turn, and we pass it on
                raise
            our_turn = True

    async def _give_back(self, pool: ConnectionPool, connection: AbstractConnection) -> None:
        self._lent -= 1
        try:
            await pool.release(connection)
        finally:
            self._wake()

    def _wake(self) -> None:
        """Have the next one who waits try again. One that was cancelled in this turn of the event loop may not
        know it yet."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def translated(self, error: Exception, doing: str, hint: str | None) -> RedisStreamClientError:
        """The error of this package for an error of redis-py or of the system, which is its cause.

        Args:
            error: it, or what `error_mapping` has made of it.
            doing: what failed: "could not …".
            hint: what is known about the outcome.
        """
        where = self._endpoint.where
        known = isinstance(error, error_mapping.Unanswered | RedisRejected)
        fault = error if known else error_mapping.map_error(error, where)
        cause = error_mapping.origin(fault)
        translated: RedisStreamClientError
        if isinstance(fault, RedisRejected):
            translated = fault
        elif isinstance(self._redis, Redis) and isinstance(cause, ResponseError) and _moved(cause):
            translated = RedisRejected(
                f"could not {doing}: {where} is a node of a Redis Cluster, and another node has {self._key!r}",
                hint="give a redis.asyncio.RedisCluster instead of a Redis",
            )
        else:
            if cause is not None and str(cause).startswith(_POOL_IS_EMPTY):
                full = "all connections of the given client's pool are in use: see its max_connections"
                hint = f"{hint}; {full}" if hint else full
            translated = RedisUnavailable(f"could not {doing}: {fault}", hint=hint)
        translated.__cause__ = cause
        return translated


def _moved(error: ResponseError) -> bool:
    return error_mapping.read(error)[0] in ("MOVED", "ASK")
