"""How far a service is behind: a sum over its streams, that takes no more memory the more there are."""

import heapq
from collections.abc import Iterator

from redis_stream_client import Lag, StreamStatus

WORST = 20
"""Streams that are kept by name: of those that are far behind, and of those that could not be read."""


class Tally:
    """Counts streams as they come.

    Args:
        limit: seconds; streams that are at least so far behind are `late`. None: no stream is.

    Attributes:
        limit: as given.
        streams, waiting, entries, more: as `redis_stream_client.Lag` has them.
        late: how many streams are at least `limit` behind.
        unread: how many could not be read.
        unreadable: the first of them.
        members: of each owner, how many seconds its streams are behind at most.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit: float | None = limit
        self.streams: int = 0
        self.waiting: int = 0
        self.entries: int = 0
        self.late: int = 0
        self.unread: int = 0
        self.more: bool = False
        self.unreadable: list[StreamStatus] = []
        self.members: dict[str, float] = {}
        self._worst: list[tuple[float, int, StreamStatus]] = []  # a heap

    def add(self, status: StreamStatus) -> None:
        """Count one more stream."""
        self.streams += 1
        self.waiting += status.deliveries == 0
        self.entries += status.entries or 0
        self.more = self.more or status.more or status.unread is not None
        if status.unread is not None:
            self.unread += 1
            if len(self.unreadable) < WORST:
                self.unreadable.append(status)
        if status.behind is None:
            return
        self.late += self._is_late(status)
        if status.behind == 0:
            return
        worst = (status.behind, -self.streams, status)
        if len(self._worst) < WORST:
            heapq.heappush(self._worst, worst)
        elif worst > self._worst[0]:
            heapq.heapreplace(self._worst, worst)
        if status.owner is not None:
            self.members[status.owner] = max(self.members.get(status.owner, 0.0), status.behind)

    def worst(self) -> Iterator[StreamStatus]:
        """The streams that are furthest behind, at most `WORST`, the worst first."""
        return (status for _, _, status in sorted(self._worst, reverse=True))

    def worst_late(self) -> list[StreamStatus]:
        """Those of them that are late."""
        return [status for status in self.worst() if self._is_late(status)]

    def _is_late(self, status: StreamStatus) -> bool:
        return self.limit is not None and status.behind is not None and status.behind >= self.limit

    def lag(self) -> Lag:
        """What `Fleet.lag` would say."""
        worst = next(self.worst(), None)
        return Lag(
            entries=self.entries,
            more=self.more,
            behind=0.0 if worst is None or worst.behind is None else worst.behind,
            stream=None if worst is None else worst.stream,
            waiting=self.waiting,
            streams=self.streams,
            unread=self.unread,
        )
