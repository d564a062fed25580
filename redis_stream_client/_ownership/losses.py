"""Losses: takes lost leases out of the table, in one synchronous step, and logs them."""

from collections.abc import Iterable

from redis_stream_client._concurrency import clock
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.lock_state import LapseCause
from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.errors import LossReason
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._model.logs import Log
from redis_stream_client._model.statistics import Counters
from redis_stream_client._redis.outage import OutageLog

LAPSES: dict[LapseCause, str] = {
    "silent": "Redis has not answered its beats in time",
    "stalled": "this process or its event loop stood still for too long: find out what blocks it",
    "missing": "Redis does not have it: it was restarted without it, a peer took this client for dead, or an "
    "operator evicted it",
}
"""What the log says of each cause of a lapse."""

LOGGED = 10
"""The most losses that are logged one by one, when many happen at once."""


class Losses:
    """Takes lost leases out of the table, and logs them: each with its fence, and the new owner if it is known.

    Of many that are lost at once, only the first `LOGGED` have a line each; another line counts the rest.
    """

    def __init__(
        self,
        *,
        log: Log,
        lapse: OutageLog,
        table: LeaseTable,
        capacity: Capacity,
        counters: Counters,
        observation: Observation | None = None,
    ) -> None:
        self._log = log
        self._lapse = lapse
        self._table = table
        self._capacity = capacity
        self._counters = counters
        self._observation = observation

    def lapsed(self, cause: LapseCause) -> None:
        """The consumer lock has lapsed. After silence all leases are lost; otherwise a resume finds out which."""
        self._lapse.began(LAPSES[cause], clock.now())
        if self._observation is not None:
            self._observation.lapsed(cause)
        if cause == "stalled":  # a handler that blocks the event loop does this, and others must know
            for lease in self._table:
                lease.stood_still()
        if cause == "silent":
            self.lose(self._table, "expired")

    def lose(self, leases: Iterable[LeaseState], reason: LossReason, to: str = "") -> None:
        """These leases are lost. `to`: the owner of the streams now, or '' if it is not known."""
        self._lose([(lease, to) for lease in leases], reason)

    def _lose(self, leases: Iterable[tuple[LeaseState, str]], reason: LossReason) -> None:
        lost = [(lease, to) for lease, to in leases if self._table.holds(lease)]
        for lease, to in lost:
            self._table.lose(lease, reason, to or None)
        self._counters.streams_disowned += len(lost)
        for lease, to in lost[:LOGGED]:
            by = f" by {to}" if to else ""
            self._log.warning(
                "lost %s: %s%s", lease.stream, reason, by, about=lease, extra={"new_owner": to} if to else None
            )
        if len(lost) > LOGGED:
            self._log.warning("lost %d more streams: %s", len(lost) - LOGGED, reason)
        if lost:
            self._capacity.freed()

    def lose_to(self, owners: Iterable[tuple[LeaseState, str]]) -> None:
        """These leases are lost; each comes with the owner of the stream now, or '' if it is gone."""
        moved = list(owners)
        self._lose([(lease, _name(owner)) for lease, owner in moved if owner], "claimed")
        self._lose([(lease, owner) for lease, owner in moved if not owner], "gone")


def _name(owner: str) -> str:
    """The name of a consumer; '' for that of nobody, as when an operator has taken a stream away."""
    return "" if owner == NOBODY else owner
