"""How Redis tells that a data stream has news: client-side caching, used as a bell.

A connection with ``CLIENT TRACKING`` remembers on the server which keys it read, and the server sends one message
for each of them that changes. Reading again asks for the next message. So a stream that is idle costs nothing,
whatever number of them one process follows, and one that gets an entry costs one message and one read.

It is an accelerator, and may fail in any way: what is not heard of is found by looking.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import log
from redis_stream_client._redis import error_mapping, wire
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.opener import Opener
from redis_stream_client._redis.server import ServerIdentity

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection


CHANNEL = "__redis__:invalidate"
LONGEST_PAUSE = 15.0
"""Seconds between two tries to have wake-ups, at the most."""


class Tracking:
    """The connection that the messages come on.

    Args:
        where: the server.
        quiet: seconds without a message after which the connection is asked whether it lives.
        on_change: called with the keys that changed, or None when all may have.
        on_state: called when `id` has changed.

    Attributes:
        id: of the connection, by which others redirect their messages to it; None while there is none.
        history: of the server that it is connected to; None where ``INFO`` is not permitted.
        failure: why there is none, or why there was none the last time.
        refused: whether Redis does not permit it.
    """

    def __init__(
        self,
        where: Endpoint,
        quiet: float,
        on_change: Callable[[Sequence[bytes] | None], None],
        on_state: Callable[[], None],
    ) -> None:
        self._where = where
        self._opener = Opener(where, "wake-ups", max(1.0, quiet))
        self._quiet = quiet
        self._on_change = on_change
        self._on_state = on_state
        self._identity = ServerIdentity()
        self._backoff = Backoff(0.01, LONGEST_PAUSE)
        self._connection: AbstractConnection | None = None
        self._dropped = False
        self.id: int | None = None
        self.failure: Exception | None = None
        self.refused = False

    @property
    def where(self) -> str:
        """The server's address, for messages."""
        return self._where.where

    @property
    def history(self) -> str | None:
        """See above."""
        return self._identity.history

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._listen()
            except (RedisRejected, Unanswered, GroupMissing) as error:
                if not self._dropped:  # else it is known why
                    self.failed(error)
            self._dropped = False
            await asyncio.sleep(self._backoff.pause())

    def failed(self, error: Exception) -> None:
        """It does not work for now: open another connection after a pause."""
        log.debug("wake-ups from %s: %s", self._where.where, error)
        self.failure = error
        self.refused = isinstance(error, RedisRejected)
        self.drop()

    def works(self) -> None:
        """It works: try again soon should it fail."""
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
        try:
            await self._identity(connection, patience)
            client_id = await wire.roundtrip(connection, patience, "CLIENT", "ID")
            await wire.roundtrip(connection, patience, "SUBSCRIBE", CHANNEL)
            self.id = int(client_id)
            self._on_state()
            since = clock.now()
            while True:
                self._hear(await wire.next_message(connection, self._quiet))
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
