"""The gap detector: finds entries that were removed from data streams before they were read."""

from collections.abc import Callable, Iterable

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._model import gaps
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import Log
from redis_stream_client._protocol import data_streams
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.error_mapping import GroupMissing, KeyRejected, Unanswered
from redis_stream_client._redis.placement import Placement, by_slot
from redis_stream_client._streams.cursor import Cursor


class GapDetector:
    """Checks the streams of one server: before the first read, and once a second while entries come.

    Args:
        connection: the connection that reads, so that a check before a read sees what the read will find.
        placement: tells which streams one command may check together.
        is_fresh: whether a cursor still fits the history of the server.
    """

    def __init__(
        self,
        connection: SharedConnection,
        placement: Placement,
        is_fresh: Callable[[Cursor], bool],
        log: Log,
    ) -> None:
        self._log = log
        self._connection = connection
        self._placement = placement
        self._is_fresh = is_fresh
        self._pending: dict[Cursor, None] = {}
        self._counts = True  # whether the server tells how many entries were ever added

    def changed(self, cursor: Cursor) -> None:
        """Note that a stream has changed: its new entries may be gone again before they are read.

        A careful cursor is checked before each read, others once a second.
        """
        if cursor.added.due is None and self._counts:
            cursor.added.due = clock.now() + (0.0 if cursor.careful else gaps.PAUSE)
            self._pending[cursor] = None

    def forget(self, cursor: Cursor) -> None:
        """Forget a cursor that nobody needs any more."""
        self._pending.pop(cursor, None)

    @property
    def due(self) -> float:
        """When the next check is due; infinite if none is."""
        return min((cursor.added.due or 0.0 for cursor in self._pending), default=float("inf"))

    async def look_at_due(self, patience: float) -> None:
        """Check the streams that are due and not being read. A check that fails is repeated later."""
        late = self._due_of(cursor for cursor in self._pending if not cursor.reading)
        try:
            await self._look(late, patience)
        except (Unanswered, GroupMissing):
            for cursor in late:
                cursor.added.due = clock.now() + gaps.PAUSE

    async def look_before_reading(self, cursors: Iterable[Cursor], patience: float) -> None:
        """Check the streams that may have a gap. Raises `Unanswered` or `GroupMissing`."""
        await self._look(self._due_of(cursors), patience)

    def _due_of(self, cursors: Iterable[Cursor]) -> list[Cursor]:
        now = clock.now()
        return [cursor for cursor in cursors if cursor.added.due is not None and cursor.added.due <= now]

    async def _look(self, cursors: Iterable[Cursor], patience: float) -> None:
        looks = [
            self._look_together(together[start : start + data_streams.LOOKED_AT], patience)
            for together in by_slot(self._placement, cursors, lambda cursor: cursor.stream)
            for start in range(0, len(together), data_streams.LOOKED_AT)
        ]
        if len(looks) == 1:
            await looks[0]
        elif looks:  # together: one after the other, they would take one round trip for each slot
            await gather(*looks, name="redis_stream_client looks for gaps")

    async def _look_together(self, cursors: list[Cursor], patience: float) -> None:
        """Check by one script call. It may leave out the last streams, which stay due."""
        if not self._counts:
            for cursor in cursors:
                self._looked_at(cursor)
            return
        streams = [cursor.stream for cursor in cursors]
        positions = [cursor.position for cursor in cursors]
        try:
            looks = await data_streams.gaps(self._connection, streams, patience)
        except RedisRejected as error:
            self._counts = isinstance(error, KeyRejected)  # the fault of a single stream
            self._log.debug("cannot detect gaps: %s", error)
            looks = [None] * len(cursors)
        if data_streams.UNCOUNTED in looks:
            self._counts = False
        for cursor, position, look in zip(cursors, positions, looks, strict=False):
            self._looked_at(cursor)
            if not isinstance(look, gaps.Look) or cursor.position != position:
                continue
            if cursor.closed or not self._is_fresh(cursor):
                continue
            if cursor.added.began_anew(position, look):
                self._log.warning(
                    "%s was deleted and written anew, up to %s: entries with ids up to %s are never read",
                    cursor.stream,
                    look.last,
                    position,
                    extra={"stream": cursor.stream},
                )
            gap = cursor.added.compare(position, look)
            if gap is not None:
                cursor.skipped(gap)

    def _looked_at(self, cursor: Cursor) -> None:
        cursor.added.due = None
        self._pending.pop(cursor, None)
