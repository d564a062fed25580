"""Wanted streams: asks the user of ``events()`` to give up streams for a peer that has fewer."""

import asyncio
import random

from redis_stream_client._concurrency import clock
from redis_stream_client._consumer.on_their_way import OnTheirWay
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.statistics import Counters


class WantedStreams:
    """Gives streams away, when the balancer says how many, as far as the user agrees: it releases the lease, or
    keeps it."""

    def __init__(
        self, *, table: LeaseTable, event_queue: EventQueue, capacity: Capacity, counters: Counters
    ) -> None:
        self._table = table
        self._event_queue = event_queue
        self._counters = counters
        self._going = OnTheirWay[LeaseState]()
        self._wanted: set[LeaseState] = set()  # those of them that may still be released
        self._timer: asyncio.TimerHandle | None = None
        capacity.changed.add(self._see_what_ended)

    @property
    def going(self) -> int:
        """For how many streams the user was asked, and may still release them."""
        self._see_what_ended()
        return len(self._going)

    def give(self, count: int) -> int:
        """Ask the user for up to `count` streams. Returns for how many."""
        able = [lease for lease in self._table if self._may_be_given(lease)]
        random.shuffle(able)
        able.sort(key=lambda lease: (not lease.at_rest, not lease.settled))
        for lease in able[:count]:
            self._going.begin(lease)
            self._wanted.add(lease)
            self._event_queue.want(lease)
        self._changed()
        return len(able[:count])

    def stop(self) -> None:
        """Ask no more, and withdraw what was not read."""
        for lease in self._wanted:
            self._event_queue.unwant(lease)
        self._wanted.clear()
        self._going = OnTheirWay()
        self._changed()

    def _may_be_given(self, lease: LeaseState) -> bool:
        """Whether the user has the lease, and it is neither pinned nor on its way nor in trouble."""
        free = lease.handed_out and not lease.pinned and self._going.able(lease)
        return free and not (lease.deaths or lease.failures)

    def _see_what_ended(self) -> None:
        ended = [lease for lease in self._wanted if lease.lost is not None]
        for lease in ended:
            self._wanted.discard(lease)
            self._going.ended(lease)
            self._counters.streams_given += lease.lost == "released"
        if ended:
            self._changed()

    def _changed(self) -> None:
        self._counters.streams_going = len(self._going)
        due = self._going.next_overdue
        if self._timer is None and due < float("inf"):
            delay = max(0.0, due - clock.now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._leave_alone)
        elif self._timer is not None and due == float("inf"):
            self._timer.cancel()
            self._timer = None

    def _leave_alone(self) -> None:
        """The user has had its time: the balancer asks others. A question that was not read is withdrawn."""
        self._timer = None
        for lease in self._going.overdue():
            self._wanted.discard(lease)
            self._event_queue.unwant(lease)
        self._changed()
