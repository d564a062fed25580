"""The bypass reader: reads a little of many streams while one large reply blocks the usual connection."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import Log
from redis_stream_client._protocol import data_streams
from redis_stream_client._redis.connection import Greeting, SharedConnection
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.placement import Placement, by_slot
from redis_stream_client._streams.cursor import Cursor

AFTER = 1.0  # seconds after which a slow read is bypassed
LATE = 0.2  # seconds more, to be sure that it is not this process that was slow
UNUSED = 5.0  # seconds without use after which the connection is closed
PAUSE = (0.2, 1.0)  # first and longest pause between two reads here, in seconds


class BypassReader:
    """Its own connection to one server, opened when needed.

    The server bounds each reply here by bytes, so no reply is slow. Nothing is tracked on this connection: the
    usual connection reads the streams again, from where they are by then.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        placement: Placement,
        greet: Greeting,
        is_fresh: Callable[[Cursor], bool],
        log: Log,
    ) -> None:
        self._log = log
        self._is_fresh = is_fresh
        self._placement = placement
        self._connection = SharedConnection(endpoint, greet=greet, role="more entries")
        self._possible = True
        self._turn = 0
        self._used_at = float("inf")

    @contextlib.asynccontextmanager
    async def reading(self, waiting: Callable[[], Sequence[Cursor]], patience: float) -> AsyncGenerator[None]:
        """While the block takes long, read the `waiting` streams from time to time."""
        loop = asyncio.get_running_loop()
        task: asyncio.Task[None] | None = None

        def start() -> None:
            nonlocal task
            task = start_task(self._read_on(waiting, patience), "redis_stream_client bypassing")

        timer = loop.call_later(AFTER, start)
        try:
            yield
        finally:
            timer.cancel()
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
            elif clock.now() - self._used_at > UNUSED:
                self._used_at = float("inf")
                self._connection.drop(Unanswered("it is not needed any more", maybe_executed=False))

    async def _read_on(self, waiting: Callable[[], Sequence[Cursor]], patience: float) -> None:
        """Read until cancelled."""
        await asyncio.sleep(LATE)  # this process may be what is slow
        pause = PAUSE[0]
        while self._possible:
            if cursors := waiting():
                self._used_at = clock.now()
                await self._read(self._next(cursors), patience)
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, PAUSE[1])

    def _next(self, cursors: Sequence[Cursor]) -> list[Cursor]:
        """The next cursors, in turn; only one for each stream."""
        start = self._turn % len(cursors)
        self._turn += data_streams.PEEKED
        chosen = {cursor.stream: cursor for cursor in [*cursors[start:], *cursors[:start]][: data_streams.PEEKED]}
        return list(chosen.values())

    async def _read(self, cursors: Sequence[Cursor], patience: float) -> None:
        for together in by_slot(self._placement, cursors, lambda cursor: cursor.stream):
            positions = [cursor.position for cursor in together]
            streams = [cursor.stream for cursor in together]
            try:
                replies = await data_streams.peek(self._connection, streams, positions, patience)
            except (Unanswered, GroupMissing) as error:
                self._log.debug("bypassing a slow read: %s", error)
                return
            except RedisRejected as error:
                self._log.debug("bypassing slow reads is not possible: %s", error)
                self._possible = False
                return
            for cursor, position, raw in zip(together, positions, replies, strict=False):
                if raw and cursor.position == position and not cursor.closed and self._is_fresh(cursor):
                    cursor.arrived_by_bypass(raw)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()
