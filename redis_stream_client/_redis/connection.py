"""A shared connection: many tasks send requests over one connection; replies come in the order of the requests."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._redis import error_mapping, redis_py, wire
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.opener import FIRST_ATTEMPT, LONGEST_ATTEMPT, AttemptTime
from redis_stream_client._redis.script import Script
from redis_stream_client._redis.slowness import Slowness

GRACE = 0.02
"""Extra seconds for a reply that may have arrived already: after a standstill the event loop sees the timer
first."""

Greeting = Callable[[AbstractConnection, float], Awaitable[None]]


class SharedConnection:
    """A connection that opens when it is needed, and closes when a request is not answered in time.

    A late reply must not arrive after the client has already acted on its absence. So a request without an answer
    takes the connection with it. All requests under way on it end in `Unanswered`, which says whether Redis may
    have executed them.

    Args:
        endpoint: the server.
        greet: called with each new connection, before anybody else may use it.
        on_loss: called when a connection is lost.
        longest_attempt: the longest time for one attempt to connect, in seconds.
        longest_patience: on a slow line, shorter timeouts of requests grow up to this, in seconds.
        role: what the connection is for.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        greet: Greeting | None = None,
        on_loss: Callable[[Exception], None] | None = None,
        longest_attempt: float = LONGEST_ATTEMPT,
        longest_patience: float = 0.0,
        role: str = "",
    ) -> None:
        self._endpoint = endpoint
        self._greet = greet
        self._on_loss = on_loss
        self._role = role
        self._failure: Exception | None = None  # of the last attempt to connect
        self._attempt = AttemptTime(FIRST_ATTEMPT, longest_attempt)
        self._slowness = Slowness(longest_patience)
        self._heard: _Heard | None = None
        self._opening: asyncio.Task[AbstractConnection] | None = None
        self._connection: AbstractConnection | None = None
        self._waiting: deque[asyncio.Future[Any] | _Listener] = deque()
        self._scripts: set[str] = set()  # that the server knows, by name
        self._reader: asyncio.Task[None] | None = None
        self._closed = False
        self.losses = 0
        self.connections = 0

    async def request(self, *command: Any, timeout: float) -> Any:
        """Send one command and return its reply.

        Args:
            command: the words of the command.
            timeout: seconds to wait for a connection, and again for the reply. While a large reply arrives, the
                timeout counts only silence.

        Raises:
            Unanswered: no usable reply.
            GroupMissing: the stream or its group does not exist.
            RedisRejected: Redis refuses for good.

        If the caller is cancelled, the request goes on.
        """
        [reply] = await self._exchange((command,), timeout)
        return self._accepted(reply)

    async def together(self, *commands: tuple[Any, ...], timeout: float) -> list[Any]:
        """Send commands in one write. That saves most of the cost of small commands in Redis: reading and
        answering.

        Returns the replies. A refused command has as its reply the exception that `request` would raise.

        Raises:
            Unanswered: no usable reply to any command.
        """
        replies = await self._exchange(commands, timeout)
        return [self._refused(reply) if isinstance(reply, ResponseError) else reply for reply in replies]

    async def run(
        self, script: Script, keys: Sequence[str | bytes], args: Sequence[Any], *, timeout: float
    ) -> Any:
        """Run a script; send its text only if the server does not know it yet. Raises what `request` raises."""
        words = (len(keys), *keys, *args)
        [reply] = await self._exchange((("EVALSHA", script.sha, *words),), timeout)
        if isinstance(reply, NoScriptError):
            reply = await self.request("EVAL", script.text, *words, timeout=timeout)
        self._scripts.add(script.sha)
        return self._accepted(reply)

    def run_at_once(
        self,
        script: Script,
        keys: Sequence[str | bytes],
        args: Sequence[Any],
        *,
        timeout: float,
        heard: Callable[[Any], None],
    ) -> bool:
        """Run a small script that the server knows, on a connection that is open, without a task.

        `heard` is called as soon as the reply arrives, or is given up: with the reply, or with what `run` would
        raise. It must not raise. Returns False, and sends nothing, if the script must go the long way, by `run`.
        """
        connection = self._connection
        if connection is None or script.sha not in self._scripts:
            return False
        try:
            wire.write(connection, ("EVALSHA", script.sha, len(keys), *keys, *args))
        except (RedisError, OSError):
            return False
        self._waiting.append(_Listener(self, script, heard, self._patience(connection, timeout)))
        return True

    def answer_of(self, script: Script, reply: Any) -> Any:
        """What a reply to `run_at_once` means for its caller."""
        if isinstance(reply, NoScriptError):
            self._scripts.discard(script.sha)
            return Unanswered("the server does not know the script", maybe_executed=False)
        return self._refused(reply) if isinstance(reply, ResponseError) else reply

    def _accepted(self, reply: Any) -> Any:
        if isinstance(reply, ResponseError):
            raise self._refused(reply) from reply
        return reply

    def _refused(self, error: ResponseError) -> Exception:
        fault = error_mapping.map_reply(error)
        if isinstance(fault, Unanswered) and fault.elsewhere:
            self.drop(fault)
        return fault

    async def _exchange(self, commands: Sequence[tuple[Any, ...]], timeout: float) -> list[Any]:
        """Write commands together, and return their replies. A refusal is a reply, too."""
        loop = asyncio.get_running_loop()
        connection = self._connection or await self._connect(timeout)
        # One that was lost before we woke answers nothing: among the next one's requests ours would take a reply.
        if connection is not self._connection:
            raise Unanswered("the connection was lost as it opened", maybe_executed=False)
        replies: list[asyncio.Future[Any]] = [loop.create_future() for _ in commands]
        # Counted from here: a connection that took long to open is not given up for that.
        patience = self._patience(connection, timeout)
        self._waiting.extend(replies)
        try:
            # Written to the transport before the first suspension, so in the order of `_waiting`.
            await wire.send(connection, *commands)
            return [await reply for reply in replies]
        except (RedisError, OSError) as error:  # the connection broke while these were written
            fault = error_mapping.map_error(error)
            if connection is self._connection:
                self.drop(fault)
            raise fault from error
        finally:
            patience.end()

    def _patience(self, connection: AbstractConnection, timeout: float) -> "_Patience":
        return _Patience(self, connection, self._slowness.timeout(timeout), self._slowness.took)

    async def _connect(self, timeout: float) -> AbstractConnection:
        """Wait for the connection. The attempt goes on if the caller gives up."""
        if self._closed:
            raise Unanswered("the connection is closed", maybe_executed=False)
        if self._opening is None:
            self._opening = start_task(self._open(), "redis_stream_client connecting")
            self._opening.add_done_callback(lambda opening: opening.cancelled() or opening.exception())
        opening = self._opening
        await asyncio.wait((opening,), timeout=timeout)
        if not opening.done():
            why = f": {self._failure}" if self._failure is not None else ""
            message = f"no connection to {self._endpoint.where} in time{why}"
            raise Unanswered(message, maybe_executed=False) from self._failure
        if opening.cancelled():
            raise Unanswered("the connection was closed", maybe_executed=False)
        return opening.result()

    async def _open(self) -> AbstractConnection:
        connection: AbstractConnection | None = None
        attempt, started = self._attempt.seconds, clock.now()
        try:
            connection = await self._endpoint.open(attempt, self._role)
            if self._greet is not None:
                await self._greet(connection, attempt)
        except BaseException as error:
            if isinstance(error, Unanswered | GroupMissing):
                self._failure = error
                if connection is not None:
                    self._endpoint.doubt()
            if connection is not None:
                wire.abort(connection)
            self._attempt.failed(clock.now() - started)
            raise
        finally:
            self._opening = None
        self._attempt.succeeded(clock.now() - started)
        self._slowness.took(started)  # several round trips: a line that is slow from the start is not cut at all
        self._failure = None
        self._connection = connection
        self._scripts.clear()
        self._heard = redis_py.wrap_stream(connection, _Heard)
        self.connections += 1
        self._reader = start_task(self._read(connection), "redis_stream_client replies")
        return connection

    async def _read(self, connection: AbstractConnection) -> None:
        """Give each reply to the oldest request."""
        while True:
            reply: Any
            try:
                reply = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
            except ResponseError as error:
                reply = error
            except (RedisError, OSError) as error:
                if connection is self._connection:
                    self.drop(error_mapping.map_error(error))
                return
            except asyncio.CancelledError:  # by others: the loop is shutting down
                if connection is self._connection:
                    self.drop(Unanswered("the event loop is shutting down", maybe_executed=True))
                raise
            if not self._waiting:
                if connection is self._connection:
                    self.drop(Unanswered("a reply that nobody asked for", maybe_executed=True))
                return
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(reply)
            del reply, waiter  # an idle connection must not keep its last reply, which may have megabytes
            if connection is not self._connection:  # the reply said that it is of no use any more
                return

    def silent_since(self, connection: AbstractConnection) -> float:
        """When the connection last read a byte; infinite for one that is no longer used."""
        if connection is not self._connection or self._heard is None:
            return float("inf")
        return self._heard.at

    def give_up(self, connection: AbstractConnection, timeout: float) -> None:
        """Close this connection, because a request on it was not answered in time."""
        if connection is self._connection:
            self.drop(
                Unanswered(f"no answer from {self._endpoint.where} within {timeout:.3g} s", maybe_executed=True)
            )

    def drop(self, reason: Exception) -> None:
        """Close the connection; the next request opens a new one."""
        connection, self._connection = self._connection, None
        self._heard = None
        reader, self._reader = self._reader, None
        waiting, self._waiting = self._waiting, deque()
        if connection is None:
            return
        self.losses += 1
        if not self._closed:
            self._endpoint.doubt()
        wire.abort(connection)
        if reader is not None and reader is not asyncio.current_task():
            reader.cancel()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(_copy(reason))
                waiter.exception()  # marks it as retrieved, even if its caller is gone
        if self._on_loss is not None and not self._closed:
            self._on_loss(reason)

    async def close(self) -> None:
        """Close for good. All requests under way end in `Unanswered`."""
        self._closed = True
        tasks = [task for task in (self._opening, self._reader) if task is not None]
        if self._opening is not None:
            self._opening.cancel()
        self.drop(Unanswered("the connection was closed", maybe_executed=True))
        if tasks:
            await asyncio.wait(tasks)
        self.drop(Unanswered("the connection was closed", maybe_executed=True))


class _Listener:
    """In the place of a future, for a reply that no task waits for."""

    __slots__ = ("_connection", "_heard", "_patience", "_script")

    def __init__(
        self,
        connection: SharedConnection,
        script: Script,
        heard: Callable[[Any], None],
        patience: "_Patience",
    ) -> None:
        self._connection = connection
        self._script = script
        self._heard = heard
        self._patience = patience

    def done(self) -> bool:
        """Nobody can cancel it."""
        return False

    def set_result(self, reply: Any) -> None:
        """The reply has arrived."""
        self._patience.end()
        self._heard(self._connection.answer_of(self._script, reply))

    def set_exception(self, error: Exception) -> None:
        """The connection is lost."""
        self._patience.end()
        self._heard(error)

    def exception(self) -> None:
        """As of a future."""


class _Patience:
    """The timeout of one exchange: after too long a silence the shared connection closes."""

    __slots__ = ("_connection", "_handle", "_last_chance", "_shared", "_since", "_timeout", "_took")

    def __init__(
        self,
        shared: SharedConnection,
        connection: AbstractConnection,
        timeout: float,
        took: Callable[[float], None],
    ) -> None:
        self._shared = shared
        self._connection = connection
        self._timeout = timeout
        self._took = took
        self._since = clock.now()
        self._last_chance = False
        self._handle = asyncio.get_running_loop().call_later(timeout, self._look)

    def _look(self) -> None:
        heard_at = self._shared.silent_since(self._connection)
        if heard_at == float("inf"):
            return
        left = max(self._since, heard_at) + self._timeout - clock.now()
        if left > 0:
            self._last_chance = False
        elif not self._last_chance:
            self._last_chance = True
            left = GRACE
        else:
            self._shared.give_up(self._connection, self._timeout)
            return
        self._handle = asyncio.get_running_loop().call_later(left, self._look)

    def end(self) -> None:
        """Stop the timeout: there was an answer, or nobody waits for one."""
        self._handle.cancel()
        self._took(self._since)


class _Heard:
    """A stream reader that notes when the last byte came, which redis-py does not tell."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self.at = clock.now()

    async def read(self, most: int) -> bytes:
        """As ``StreamReader.read``."""
        data = await self._stream.read(most)
        self.at = clock.now()
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _copy(reason: Exception) -> Exception:
    """The error of a lost connection, copied for each request that was under way on it."""
    if isinstance(reason, RedisRejected):
        return reason
    copy = Unanswered(str(reason), maybe_executed=True)
    copy.__cause__ = reason.__cause__
    return copy
