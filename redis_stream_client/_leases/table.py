"""The table of the leases that this client holds. Pure state."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping

from redis_stream_client._concurrency.chunks import PacedCalls
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.lease import Lease, lease_of
from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.errors import LossReason
from redis_stream_client._model.observer import EndedBy

REMEMBERED = 10_000  # leases that have ended

_LOST_BY: dict[EndedBy, LossReason] = {
    "done": "done",
    "slept": "done",
    "released": "released",
    "given": "released",
    "buried": "dead",
}


class LeaseTable:
    """The leases by LBS id, and what is remembered about ended ones. Every change is one synchronous step.

    Args:
        event_queue: gets the events about losses.
        observation: is told of every end of a lease.
    """

    def __init__(self, event_queue: EventQueue, observation: Observation | None = None) -> None:
        self._event_queue = event_queue
        self._observation = observation
        self._leases: dict[str, LeaseState] = {}
        self._parting: set[str] = set()
        self._paced = PacedCalls()
        # Delivery counts of ended leases: those lost since the last audit, and the newest REMEMBERED of all.
        self._lost_counts: dict[str, int] = {}
        self._ended_counts: OrderedDict[str, int] = OrderedDict()
        self._lived_since: dict[str, int] = {}  # of leases that were lost since the last audit
        self.history: str | None = None  # of the server, when the leases were last compared with what it knows
        self.view: Mapping[str, Lease] = _Faces(self._leases)

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[LeaseState]:
        return iter(list(self._leases.values()))

    def get(self, lbs_id: str) -> LeaseState | None:
        """The lease of an announcement; None if this client does not hold it."""
        return self._leases.get(lbs_id)

    def state_of(self, lease: Lease) -> LeaseState | None:
        """The state of this lease of the user; None if it has ended."""
        state = self._leases.get(lease.lbs_id)
        return state if state is not None and state.face is lease else None

    def holds(self, lease: LeaseState) -> bool:
        """Whether this client holds this very lease, and not an older or newer one of the same announcement."""
        return self._leases.get(lease.lbs_id) is lease

    def add(self, lease: LeaseState) -> None:
        """Add a lease that was won. An older lease of the same announcement is lost."""
        older = self._leases.get(lease.lbs_id)
        if older is not None:
            self.lose(older, "claimed")
        self._leases[lease.lbs_id] = lease

    def end(self, lease: LeaseState, how: EndedBy) -> None:
        """End a lease on behalf of its holder. There is no event about it."""
        self._end(lease, _LOST_BY[how])
        if self._observation is not None:
            self._observation.ended(lease, how)
        lease.face = None  # else the two are a cycle, for the garbage collector to find

    def _end(self, lease: LeaseState, reason: LossReason) -> None:
        if self.holds(lease):
            del self._leases[lease.lbs_id]
        self._ended_counts[lease.lbs_id] = lease.deliveries
        if len(self._ended_counts) > REMEMBERED:
            self._ended_counts.popitem(last=False)
        self._event_queue.unadd(lease)
        if lease.end(reason):
            self._paced.call(lease.tell_of_the_end)  # thousands may be lost at once: the loop turns in between

    def handed_out(self, lbs_id: str) -> int:
        """The greatest delivery count of all leases of this announcement that are held or remembered."""
        lease = self._leases.get(lbs_id)
        held = lease.deliveries if lease is not None else 0
        return max(held, self._lost_counts.get(lbs_id, 0), self._ended_counts.get(lbs_id, 0))

    def lived_since(self, lbs_id: str) -> int | None:
        """See `LeaseState.lived_since`, for the next lease of this announcement. Known if one was lost since the
        last audit: each audit takes back what is still ours."""
        return self._lived_since.get(lbs_id)

    @property
    def parting(self) -> frozenset[str]:
        """The LBS ids of leases that are being released."""
        return frozenset(self._parting)

    def part(self, lease: LeaseState) -> None:
        """Start the release of a lease: it has ended here, though Redis may still say that we own it."""
        self._parting.add(lease.lbs_id)
        self.end(lease, "given" if lease.given else "released")

    def parted(self, lease: LeaseState) -> None:
        """The release of a lease has succeeded or failed."""
        self._parting.discard(lease.lbs_id)

    def lose(self, lease: LeaseState, reason: LossReason, to: str | None = None) -> None:
        """End a lease that was lost, and tell the user. `to`: the owner of the stream now, if it is known."""
        if self.holds(lease):
            self._lost_counts[lease.lbs_id] = lease.deliveries
            if lease.lived_since is not None:
                self._lived_since[lease.lbs_id] = lease.lived_since
            else:
                self._lived_since.pop(lease.lbs_id, None)
            self._end(lease, reason)
            self._event_queue.lost(lease, reason)
            lease.face = None
            if self._observation is not None:
                self._observation.lost(lease, reason, to)

    def lose_all(self, reason: LossReason) -> None:
        """End all leases, because all are lost."""
        for lease in self:
            self.lose(lease, reason)

    def behind(self, pending: Mapping[str, int]) -> list[tuple[str, int, int]]:
        """Announcements whose delivery count in Redis is below that of a lost lease of ours: Redis has lost
        writes.

        Returns triples of LBS id, count in Redis, and our count.
        """
        return [
            (lbs_id, pending[lbs_id], count)
            for lbs_id, count in self._lost_counts.items()
            if lbs_id in pending and lbs_id not in self._leases and pending[lbs_id] < count
        ]

    def audited(self, history: str | None) -> None:
        """An audit is complete: forget the leases that were lost before it."""
        self._lost_counts.clear()
        self._lived_since.clear()
        self.history = history

    def disagreeing(self, pending: Mapping[str, int]) -> list[LeaseState]:
        """The leases for which Redis has no pending entry of ours with the same delivery count."""
        return [lease for lease in self if pending.get(lease.lbs_id) != lease.deliveries]

    def unknown(self, pending: Mapping[str, int]) -> Iterable[tuple[str, int]]:
        """Announcements that are pending for us although we hold no lease of them and are not releasing one."""
        known = self._leases.keys() | self._parting
        return [(lbs_id, count) for lbs_id, count in pending.items() if lbs_id not in known]


class _Faces(Mapping[str, Lease]):
    """The leases as users see them: a live, read-only view."""

    def __init__(self, leases: Mapping[str, LeaseState]) -> None:
        self._leases = leases

    def __getitem__(self, lbs_id: str) -> Lease:
        return lease_of(self._leases[lbs_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._leases)

    def __len__(self) -> int:
        return len(self._leases)

    def __repr__(self) -> str:
        return repr(dict(self))
