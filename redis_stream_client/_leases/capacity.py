"""Capacity: how many more streams a client can take. Pure state; the reader and the sweeper wait for a change."""

import contextlib
from collections.abc import Generator

from redis_stream_client._concurrency.notifier import Notifier
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.table import LeaseTable

UNLIMITED = 1 << 30
"""More streams than any process holds."""


class Capacity:
    """How many streams a client may take: `max_streams` in all, and `prefetch` whose event is unread.

    Args:
        table: the leases that the client holds.
        event_queue: the events that the user has not read.
        max_streams: the most streams to own; None: no limit.
        prefetch: the most streams whose event is unread.
        at_once: the same, while every stream gets a handler at once.

    Attributes:
        draining: the client takes no new streams.
        handled_at_once: `run()` gives every stream a handler at once, so its event does not stay unread.
        changed: notified when the user has read an event, when a stream has ended, and when a request that could
            have brought streams is over.
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
        self._probes: int | None = None
        self.draining = False
        self.handled_at_once = False
        self.changed = Notifier[[]]()

    @property
    def free(self) -> int:
        """How many more streams this client may own."""
        if self.draining:
            return 0
        free = UNLIMITED
        if self._max_streams is not None:
            free = self._max_streams - len(self._table) - self._occupied - self._expected
        if self._probes is not None:
            free = min(free, self._probes - self._event_queue.unread_added - self._expected)
        return max(0, free)

    @property
    def to_read(self) -> int:
        """How many more announcements this client may read."""
        unread = self._at_once if self.handled_at_once else self._prefetch
        return max(0, min(unread - self._event_queue.unread_added, self.free))

    def freed(self) -> None:
        """A stream was taken from the event queue, or has ended."""
        self.changed.notify()

    def slow_down(self, probes: int | None) -> None:
        """Take so many streams and no more, until the next call; None: as many as there is room for."""
        if probes != self._probes:
            self._probes = probes
            self.changed.notify()

    @contextlib.contextmanager
    def expecting(self, streams: int) -> Generator[None]:
        """Reserve room for `streams` while a request is under way that may bring so many."""
        self._expected += streams
        try:
            yield
        finally:
            self._expected -= streams
            self.changed.notify()

    def keep_place(self, by: int) -> None:
        """One handler more (1) or less (-1) goes on without its lease; it still takes up room."""
        self._occupied += by
        self.changed.notify()
