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
        self._later: dict[S, None] = {}  # in this order
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._on_their_way) + len(self._later)

    def __iter__(self) -> Iterator[S]:
        yield from self._on_their_way
        yield from self._later

    def __contains__(self, stream: S) -> bool:
        return stream in self._later or stream in self._on_their_way

    def able(self, stream: S) -> bool:
        """See `OnTheirWay.able`."""
        return stream not in self._later and self._on_their_way.able(stream)

    def begin(self, streams: Iterable[S]) -> None:
        """These are to go. Their time begins now."""
        for stream in streams:
            self._on_their_way.begin(stream)
        self._changed()

    def line_up(self, streams: Iterable[S]) -> None:
        """These are to go, one after the other. The time of each begins when it is its turn."""
        self._later.update(dict.fromkeys(streams))
        self._changed()

    def next(self) -> S | None:
        """The one whose turn it is now. None: nobody is in line."""
        stream = next(iter(self._later), None)
        if stream is not None:
            del self._later[stream]
            self.begin((stream,))
        return stream

    def ended(self, stream: S, *, released: bool) -> None:
        """The work on a stream has ended. If it was to go, and was released, it is given."""
        if stream in self._on_their_way or stream in self._later:
            self._counters.streams_given += released
        self._on_their_way.ended(stream)
        self._later.pop(stream, None)
        self._changed()

    def clear(self) -> None:
        """Nothing goes to others any more."""
        self._on_their_way = OnTheirWay()
        self._later.clear()
        self._changed()

    def _changed(self) -> None:
        self._counters.streams_going = len(self)
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
