"""Departures: what this member gives up, with the timer and the counts, for `run()` and ``events()``."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Generic

from redis_stream_client._concurrency import clock
from redis_stream_client._consumer.on_their_way import OnTheirWay, S
from redis_stream_client._model.statistics import Counters


class Departures(Generic[S]):
    """Streams that are to go, and those that are left alone since they did not.

    Args:
        counters: how many go, and how many have gone, is counted here.
        stays: called with each that has not gone in time.
    """

    def __init__(self, counters: Counters, stays: Callable[[S], None]) -> None:
        self._counters = counters
        self._stays = stays
        self._on_their_way = OnTheirWay[S]()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._on_their_way)

    def __iter__(self) -> Iterator[S]:
        return iter(self._on_their_way)

    def able(self, stream: S) -> bool:
        """See `OnTheirWay.able`."""
        return self._on_their_way.able(stream)

    def begin(self, streams: Iterable[S]) -> None:
        """These are to go."""
        for stream in streams:
            self._on_their_way.begin(stream)
        self._changed()

    def ended(self, stream: S, *, released: bool) -> None:
        """The work on a stream has ended. If it was to go, and was released, it is given."""
        if stream in self._on_their_way:
            self._counters.streams_given += released
        self._on_their_way.ended(stream)
        self._changed()

    def clear(self) -> None:
        """Nothing goes to others any more."""
        self._on_their_way = OnTheirWay()
        self._changed()

    def _changed(self) -> None:
        self._counters.streams_going = len(self._on_their_way)
        due = self._on_their_way.next_overdue
        if self._timer is None and due < float("inf"):
            delay = max(0.0, due - clock.now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)
        elif self._timer is not None and due == float("inf"):
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        for stream in self._on_their_way.overdue():
            self._stays(stream)
        self._changed()
