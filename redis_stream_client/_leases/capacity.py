"""How many more streams a client has room for. Pure state: the reader and the sweeper wait for a change."""

import contextlib
from collections.abc import Generator

from redis_stream_client._concurrency.notifier import Notifier
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.table import LeaseTable

UNLIMITED = 1 << 30
"""Streams; no process holds as many."""


class Capacity:
    """What a client may take: within `max_streams` in all, and within `prefetch` of what nobody has read.

    Args:
        table: the leases that are held.
        event_queue: the events that nobody has read.
        max_streams: streams to own at the most; None: any number.
        prefetch: streams that may lie unread.
        at_once: streams that may lie unread where whatever arrives gets a handler at once.

    Attributes:
        draining: nothing new is wanted.
        handled_at_once: whatever arrives gets a handler, and does not lie unread.
        changed: a stream was taken from the event queue, or ended, or a request that might bring some is over.
    """

    def __init__(
        self,
        table: LeaseTable,
        event_queue: EventQueue,
        *,
        max_streams: int | None,
        prefetch: int,
        at_once: int,
    ) -> None:
        self._table = table
        self._event_queue = event_queue
        self._max_streams = max_streams
        self._prefetch = prefetch
        self._at_once = max(at_once, prefetch)
        self._occupied = 0
        self._expected = 0
        self.draining = False
        self.handled_at_once = False
        self.changed = Notifier[[]]()

    @property
    def free(self) -> int:
        """How many more streams this client wants to own at all."""
        if self.draining:
            return 0
        if self._max_streams is None:
            return UNLIMITED
        return max(0, self._max_streams - len(self._table) - self._occupied - self._expected)

    @property
    def to_read(self) -> int:
        """How many more announcements this client will read."""
        unread = self._at_once if self.handled_at_once else self._prefetch
        return max(0, min(unread - self._event_queue.unread_added, self.free))

    def freed(self) -> None:
        """A stream was taken from the event queue, or has ended."""
        self.changed.notify()

    @contextlib.contextmanager
    def expecting(self, streams: int) -> Generator[None]:
        """A request under way may bring so many streams: their room is not given to another one."""
        self._expected += streams
        try:
            yield
        finally:
            self._expected -= streams
            self.changed.notify()

    def keep_place(self, by: int) -> None:
        """One handler more (1) or less (-1) goes on without its lease, and takes up its place."""
        self._occupied += by
        self.changed.notify()
