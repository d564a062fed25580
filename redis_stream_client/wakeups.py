"""How Redis tells that a data stream has news: client-side caching, used as a bell.

A connection with ``CLIENT TRACKING`` remembers on the server which keys it read, and the server sends one message
for each of them that changes. Reading again asks for the next message. So a stream that is idle costs nothing,
whatever number of them one process follows, and one that gets an entry costs one message and one read.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from redis_stream_client import clock, endpoint, faults
from redis_stream_client.endpoint import Endpoint
from redis_stream_client.errors import RedisRejected
from redis_stream_client.faults import GroupMissing, Unanswered
from redis_stream_client.logs import log
from redis_stream_client.pacing import Backoff

CHANNEL = "__redis__:invalidate"


class Wakeups:
    """The connection that the messages come on.

    Args:
        where: the server.
        quiet: seconds without a message after which the connection is asked whether it lives.
        on_change: called with the keys that changed, or None when all may have.
        on_gap: called when messages may have been lost; the connections that read must be opened anew.

    Attributes:
        possible: false when the server does not permit it: the streams must be looked at from time to time.
    """

    def __init__(
        self,
        where: Endpoint,
        quiet: float,
        on_change: Callable[[Sequence[bytes] | None], None],
        on_gap: Callable[[], None],
    ) -> None:
        self._where = where
        self._quiet = quiet
        self._on_change = on_change
        self._on_gap = on_gap
        self._id: int | None = None
        self._ready = asyncio.Event()
        self.possible = True

    async def run(self) -> None:
        """Until cancelled, or refused."""
        backoff = Backoff(0.01, max(0.1, self._quiet / 2))
        while self.possible:
            started = clock.now()
            try:
                await self._listen()
            except RedisRejected as error:
                self.refused(error)
            except (Unanswered, GroupMissing) as error:
                log.debug("wake-ups: %s", error)
            if clock.now() - started > self._quiet:
                backoff.reset()
            await asyncio.sleep(backoff.pause())

    def refused(self, error: RedisRejected) -> None:
        """Redis does not permit it."""
        if self.possible:
            self.possible = False
            log.warning(
                "CLIENT TRACKING is not permitted: idle data streams are looked at from time to time, which takes "
                "longer and costs more (%s)",
                error,
            )
        self._ready.set()

    async def track(self, connection: AbstractConnection, timeout: float) -> None:
        """Have the keys that are read on this connection watched. Raises `Unanswered`."""
        try:
            async with asyncio.timeout(timeout):
                await self._ready.wait()
        except TimeoutError:
            raise Unanswered("no connection for wake-ups in time", maybe_executed=False) from None
        if not self.possible:
            return
        bell = self._id
        try:
            if bell is not None:
                await endpoint.roundtrip(connection, timeout, "CLIENT", "TRACKING", "ON", "REDIRECT", bell)
        except RedisRejected as error:
            if "does not exist" in str(error):  # the bell was lost just now
                raise Unanswered(str(error), maybe_executed=False) from error
            self.refused(error)
            return
        if bell is None or bell != self._id:
            raise Unanswered("the connection for wake-ups was lost meanwhile", maybe_executed=False)

    async def _listen(self) -> None:
        connection = await self._where.open(max(1.0, self._quiet))
        try:
            client_id = await endpoint.roundtrip(connection, self._quiet, "CLIENT", "ID")
            await endpoint.roundtrip(connection, self._quiet, "SUBSCRIBE", CHANNEL)
            self._id = int(client_id)
            self._ready.set()
            while True:
                self._hear(await endpoint.next_message(connection, self._quiet))
        except (RedisError, OSError, TimeoutError) as error:
            raise faults.of(error) from error
        finally:
            endpoint.abort(connection)
            if self._id is not None:
                self._id = None
                self._ready.clear()
                self._on_gap()

    def _hear(self, message: Any) -> None:
        match message:
            case [b"message", _, None | list() as keys]:  # None: after a FLUSHALL. Others may publish here, too
                self._on_change(keys)
