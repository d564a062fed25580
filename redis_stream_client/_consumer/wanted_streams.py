"""Asks the user of ``events()`` to give up streams for a peer that has fewer, or for an operator."""

import random

from redis_stream_client._consumer.departures import Departures
from redis_stream_client._consumer.orders import Orders
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.statistics import Counters


class WantedStreams:
    """Gives streams away, when the balancer says how many, as far as the user agrees: it releases the lease, or
    keeps it."""

    def __init__(
        self,
        *,
        table: LeaseTable,
        event_queue: EventQueue,
        capacity: Capacity,
        orders: Orders,
        counters: Counters,
    ) -> None:
        self._table = table
        self._event_queue = event_queue
        self._departures = Departures[LeaseState](counters, self._stays)
        self._asks = False  # whether the user knows the event
        capacity.changed.add(self._see_what_ended)
        orders.give.add(self._ordered)

    def start(self) -> None:
        """The user takes part: ask from now on."""
        self._asks = True

    @property
    def going(self) -> int:
        """For how many streams the user was asked, and may still release them."""
        self._see_what_ended()
        return len(self._departures)

    def give(self, count: int) -> int:
        """Ask the user for up to `count` streams. Returns for how many."""
        able = [lease for lease in self._table if self._may_be_given(lease)]
        random.shuffle(able)
        able.sort(key=lambda lease: (not lease.at_rest, not lease.settled))
        chosen = able[:count]
        self._departures.begin(chosen)
        for lease in chosen:
            lease.given = True
            self._event_queue.want(lease)
        return len(chosen)

    def stop(self) -> None:
        """Ask no more, and withdraw what was not read."""
        self._asks = False
        for lease in self._departures:
            self._stays(lease)
        self._departures.clear()

    def _ordered(self, lbs_id: str, deliveries: int) -> None:
        """An operator wants this stream to go elsewhere."""
        lease = self._table.get(lbs_id)
        if lease is None or lease.deliveries != deliveries or not self._asks:
            return
        if lease.handed_out and not lease.pinned and lease not in self._departures:
            self._departures.begin((lease,))
            lease.given = True
            self._event_queue.want(lease)

    def _may_be_given(self, lease: LeaseState) -> bool:
        """Whether the user has the lease, and it may move, and is not on its way already."""
        return lease.handed_out and lease.may_move and self._departures.able(lease)

    def _stays(self, lease: LeaseState) -> None:
        """It was not released in time: what its user does from now on is not for the peer."""
        lease.given = False
        self._event_queue.unwant(lease)

    def _see_what_ended(self) -> None:
        for lease in [lease for lease in self._departures if lease.lost is not None]:
            self._departures.ended(lease, released=lease.lost == "released")
