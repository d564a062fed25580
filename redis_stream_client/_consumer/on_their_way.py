"""Streams that are on their way to others: what a member is giving up, and what it could not give up lately. Pure
state.

Whoever gives up a stream asks its handler to stop at a checkpoint, as a drain does. Most reach one soon. A handler
that does not is left alone: it goes on, and keeps its stream for a while.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from redis_stream_client._concurrency import clock

S = TypeVar("S", bound=Hashable)

UNWILLING = 10.0
"""Seconds that a handler has to reach a checkpoint."""

ALONE = 60.0
"""Seconds for which a handler is left alone that has reached none."""


class OnTheirWay(Generic[S]):
    """The streams, or whatever stands for them, that one member gives up."""

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self._now = now
        self._going: dict[S, float] = {}  # until when they must have gone; in this order
        self._unwilling: dict[S, float] = {}  # until when they are left alone; in this order

    def __len__(self) -> int:
        return len(self._going)

    def __iter__(self) -> Iterator[S]:
        return iter(self._going)

    def __contains__(self, stream: S) -> bool:
        return stream in self._going

    def able(self, stream: S) -> bool:
        """Whether this stream could be given up: it is not on its way, and need not be left alone."""
        return stream not in self._going and self._unwilling.get(stream, float("-inf")) <= self._now()

    def begin(self, stream: S) -> None:
        """The handler of this stream is asked to stop."""
        now = self._now()
        while self._unwilling and next(iter(self._unwilling.values())) <= now:  # others have ended since
            del self._unwilling[next(iter(self._unwilling))]
        self._unwilling.pop(stream, None)
        self._going[stream] = now + UNWILLING

    def ended(self, stream: S) -> None:
        """The stream has gone: it was released, or is finished or lost."""
        self._going.pop(stream, None)
        self._unwilling.pop(stream, None)

    @property
    def next_overdue(self) -> float:
        """When the next one is overdue; infinity if none is on its way."""
        return next(iter(self._going.values()), float("inf"))

    def overdue(self) -> list[S]:
        """Those that were to go, and have not. They stay: whoever calls this lets their handlers go on."""
        now = self._now()
        late = [stream for stream, until in self._going.items() if until <= now]
        for stream in late:
            del self._going[stream]
            self._unwilling[stream] = now + ALONE
        return late
