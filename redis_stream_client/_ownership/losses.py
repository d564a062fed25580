"""Losses: takes lost leases out of the table, in one synchronous step, and logs them."""

from collections.abc import Iterable

from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.lock_state import LapseCause
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.errors import LossReason
from redis_stream_client._model.logs import Log
from redis_stream_client._model.statistics import Counters

LOGGED = 10
"""The most losses that are logged one by one, when many happen at once."""


class Losses:
    """Takes lost leases out of the table, and logs them."""

    def __init__(self, *, log: Log, table: LeaseTable, capacity: Capacity, counters: Counters) -> None:
        self._log = log
        self._table = table
        self._capacity = capacity
        self._counters = counters

    def lapsed(self, cause: LapseCause) -> None:
        """The consumer lock has lapsed. After silence all leases are lost; otherwise a resume finds out which."""
        self._log.warning("the consumer lock lapsed (%s)", cause)
        if cause == "stalled":  # a handler that blocks the event loop does this, and others must know
            for lease in self._table:
                lease.stood_still()
        if cause == "silent":
            self.lose(self._table, "expired")

    def lose(self, leases: Iterable[LeaseState], reason: LossReason) -> None:
        """These leases are lost."""
        lost = [lease for lease in leases if self._table.holds(lease)]
        for lease in lost:
            self._table.lose(lease, reason)
        self._counters.streams_disowned += len(lost)
        for lease in lost[:LOGGED]:
            self._log.warning("lost %s: %s", lease.stream, reason, about=lease)
        if len(lost) > LOGGED:
            self._log.warning("lost %d more streams: %s", len(lost) - LOGGED, reason)
        if lost:
            self._capacity.freed()

    def lose_to(self, owners: Iterable[tuple[LeaseState, str]]) -> None:
        """These leases are lost; each comes with the owner of the stream now, or '' if it is gone."""
        moved = list(owners)
        self.lose([lease for lease, owner in moved if owner], "claimed")
        self.lose([lease for lease, owner in moved if not owner], "gone")
