"""Tracking: Redis announces that a data stream has changed, by its client-side caching.

With ``CLIENT TRACKING`` the server remembers which keys a connection has read, and sends one message (a *wake-up*)
when one of them changes. Reading the key again asks for the next message. So an idle stream costs nothing, however
many a process follows, and a stream that gets an entry costs one message and one read.

It only makes things faster, and may fail in any way: without a wake-up the client finds new entries by looking.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.waiting import wait_for
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import Log
from redis_stream_client._redis import error_mapping, wire
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.opener import Opener
from redis_stream_client._redis.server import ServerIdentity

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection


CHANNEL = "__redis__:invalidate"
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 15.0
"""The shortest and the longest pause in seconds between two attempts to get wake-ups."""


class Tracking:
    """The connection on which wake-ups come.

    Args:
        where: the server.
        quiet: seconds of silence after which the connection is checked.
        on_change: called with the keys that have changed; with None if all may have changed.
        on_state: called when `id` has changed.

    Attributes:
        id: id of the connection, to which others redirect their wake-ups; None while there is no connection.
        history: history of the server; None if ``INFO`` is not permitted.
        failure: why there is no connection, or why the last one ended.
        refused: whether Redis does not permit wake-ups.
    """

    def __init__(
        self,
        where: Endpoint,
        quiet: float,
        on_change: Callable[[Sequence[bytes] | None], None],
        on_state: Callable[[], None],
        log: Log,
    ) -> None:
        self._log = log
        self._where = where
        self._opener = Opener(where, "wake-ups", max(1.0, quiet))
        self._quiet = quiet
        self._on_change = on_change
        self._on_state = on_state
        self._identity = ServerIdentity()
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._connection: AbstractConnection | None = None
        self._dropped = False
        self._unreachable = False  # why there is no connection: the server did not answer, or has closed it
        self._again = asyncio.Event()
        self.id: int | None = None
        self.failure: Exception | None = None
        self.refused = False

    @property
    def where(self) -> str:
        """The address of the server, for messages."""
        return self._where.where

    @property
    def history(self) -> str | None:
        """See above."""
        return self._identity.history

    async def run(self) -> None:
        """Keep the connection open until cancelled."""
        while True:
            self._unreachable = False
            self._again.clear()
            try:
                await self._listen()
            except (RedisRejected, Unanswered, GroupMissing) as error:
                if not self._dropped:  # otherwise the reason is known
                    self.failed(error)
                    self._unreachable = isinstance(error, Unanswered)
            self._dropped = False
            await wait_for(self._again, self._backoff.pause())

    def answers(self) -> None:
        """Another connection to the server is open: if it was out of reach, try again now. A pause that has grown
        during an outage would leave streams without wake-ups after it."""
        if self._unreachable:
            self._backoff.reset()
            self._again.set()

    def failed(self, error: Exception) -> None:
        """Wake-ups do not work at the moment: open another connection after a pause."""
        self._log.debug("wake-ups from %s: %s", self._where.where, error)
        self.failure = error
        self.refused = isinstance(error, RedisRejected)
        self.drop()

    def works(self) -> None:
        """Wake-ups work: if they fail, try again soon."""
        self._backoff.reset()
        self.refused = False

    def drop(self) -> None:
        """Close the connection; another one is opened after a pause."""
        if self._connection is not None:
            self._dropped = True
            wire.abort(self._connection)

    async def _listen(self) -> None:
        patience = max(1.0, self._quiet)
        connection = self._connection = await self._opener.open()
        patience = max(patience, self._opener.seconds)
        try:
            await self._identity(connection, patience)
            client_id = await wire.roundtrip(connection, patience, "CLIENT", "ID")
            await wire.roundtrip(connection, patience, "SUBSCRIBE", CHANNEL)
            self.id = int(client_id)
            self._on_state()
            since, pong = clock.now(), max(self._quiet / 2, self._opener.took)
            while True:
                self._hear(await wire.next_message(connection, self._quiet, pong))
                if clock.now() - since > LONGEST_PAUSE:
                    self._backoff.reset()
        except (RedisError, OSError, TimeoutError) as error:
            raise error_mapping.map_error(error) from error
        finally:
            self._connection = None
            wire.abort(connection)
            if self.id is not None:
                self.id = None
                self._on_state()

    def _hear(self, message: Any) -> None:
        match message:
            case [b"message", _, None | list() as keys]:  # None: after a FLUSHALL. Others may publish here, too
                self._on_change(keys)
