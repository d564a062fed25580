"""What the listener hears goes to where others wait for it."""

from redis_stream_client._consumer.peers import Peers
from redis_stream_client._consumer.sweep_schedule import SweepSchedule
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.lock_state import LockState


class Heard:
    """The listener's `Ears`."""

    def __init__(
        self, *, lock_state: LockState, event_queue: EventQueue, peers: Peers, sweeps: SweepSchedule
    ) -> None:
        self._lock_state = lock_state
        self._event_queue = event_queue
        self._peers = peers
        self._sweeps = sweeps

    def suspect(self, owner: str) -> None:
        """This consumer's streams may be orphans."""
        self._sweeps.suspect(owner)

    def claimed(self, lbs_id: str) -> None:
        """A peer says that it took this orphan. Should that be untrue, the next look offers it again."""
        self._event_queue.withdraw(lbs_id)

    def joined(self) -> None:
        """Somebody joined."""
        self._peers.joined()

    def departing(self, consumer: str) -> None:
        """A peer is draining: it takes nothing new."""
        self._peers.departs(consumer)

    def left(self, consumer: str) -> None:
        """A peer has left."""
        self._peers.left(consumer)

    def missed_something(self) -> None:
        """There was a gap: what happened in it is unknown."""
        self._sweeps.sweep_now()

    def own_lock_gone(self) -> None:
        """Our own lock expired or was deleted."""
        self._lock_state.doubt()
