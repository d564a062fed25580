"""What this client may believe about its own lock, without asking Redis. No I/O here."""

import enum
from collections.abc import Callable
from typing import Literal

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.notifier import Notifier

LapseCause = Literal["silent", "stalled", "missing"]
"""Why a lock lapsed.

- ``silent``: Redis did not answer until the local deadline;
- ``stalled``: this process or its event loop stood still: the deadline was noticed late, or no beat was sent
  since the last one that was answered;
- ``missing``: Redis says that the lock, or the consumer group, does not exist.
"""


class State(enum.Enum):
    """The lock, as far as this client may believe."""

    ABSENT = "absent"  # not joined yet, or lapsed and every lease lost
    SUSPECT = "suspect"  # lapsed; one resume decides which leases were really taken
    HELD = "held"
    CLOSED = "closed"


class LockState:
    """The local deadline of the consumer lock.

    A renewal counts from the moment *before* it was sent, so this client stops believing no later than Redis
    stops holding. Each lapse starts a new *epoch*: what was asked in an earlier one is not believed.

    Args:
        lock_ttl: lifetime of the lock in Redis, in seconds.
        heartbeat_interval: seconds between two renewals.
        on_lapse: what a lapse means for the leases; called in the same step.

    Attributes:
        changed: it lapsed, or is held again, or somebody doubts it.
    """

    def __init__(
        self,
        lock_ttl: float,
        heartbeat_interval: float,
        on_lapse: Callable[[LapseCause], None],
        now: Callable[[], float] = clock.now,
    ) -> None:
        self._ttl = lock_ttl
        self._interval = heartbeat_interval
        self._on_lapse = on_lapse
        self._now = now
        self._deadline = 0.0
        self._answer_by = 0.0
        self._asking = False
        self._answered = False
        self.changed = Notifier[[]]()
        self.state = State.ABSENT
        self.epoch = 0
        self.lapses = 0
        self.quiet_until = 0.0
        self.beat_at: float | None = None

    @property
    def held(self) -> bool:
        """Whether the lock is held, by the local clock. May be asked from any thread."""
        return self.state is State.HELD and self._now() < self._deadline

    @property
    def deadline(self) -> float:
        """When the lock lapses, or the examination of a lapse ends, unless something is heard before."""
        return self._deadline if self.state is State.HELD else self._answer_by

    @property
    def quiet(self) -> bool:
        """Whether this client must leave orphans alone: after a Redis restart everybody's lock is gone, and
        all must have the chance to resume before anybody takes anything."""
        return self._now() < self.quiet_until

    def check(self) -> None:
        """Notice a deadline that has passed. Called by the deadline's own callback, and before every belief."""
        now = self._now()
        if self.state is State.HELD and now >= self._deadline:
            late = now - self._deadline
            # Silence is Redis's only if it was asked: a loop that stood still sent no beat.
            self.lapse("silent" if self._asking and late <= self._interval else "stalled")
        elif self.state is State.SUSPECT and now >= self._answer_by:
            self.state = State.ABSENT
            self._lapsed("silent")

    def believed(self, epoch: int) -> bool:
        """Whether the lock was held all the time since `epoch` was read: only then is a reply believed."""
        self.check()
        return self.state is State.HELD and self.epoch == epoch

    def lapse(self, cause: LapseCause) -> None:
        """The lock was lost, or must be taken for lost."""
        if self.state is not State.HELD:
            return
        self.epoch += 1
        self.lapses += 1
        self.state = State.ABSENT if cause == "silent" else State.SUSPECT
        self._answered = False
        self._answer_by = self._now() + self._interval
        self._lapsed(cause)

    def _lapsed(self, cause: LapseCause) -> None:
        self._on_lapse(cause)
        self.changed.notify()

    def doubt(self) -> None:
        """Something says that the lock is gone: the heartbeat is to ask Redis now."""
        self.changed.notify()

    def asking(self) -> None:
        """A beat is being sent."""
        self._asking = True

    def renewed(self, sent: float, epoch: int) -> None:
        """A beat that was sent at `sent` has been answered: the lock was there."""
        if self.believed(epoch):
            self._deadline = max(self._deadline, sent + self._ttl)
            self._asking = False
            self.beat_at = sent

    def answered(self, sent: float) -> None:
        """The lock is there again since `sent`: until it expires nobody can take anything, and there is that
        much time to look through what is pending. Answers to later attempts give no more."""
        self.check()
        if self.state is State.SUSPECT and not self._answered:
            self._answered = True
            self._answer_by = sent + self._ttl

    def held_since(self, sent: float) -> bool:
        """A join or resume that was sent at `sent` was answered and processed. False if it came too late."""
        self.check()
        if self.state is State.CLOSED or self._now() >= sent + self._ttl:
            return False
        if self.epoch > 0:
            self.quiet_until = self._now() + 2 * self._interval
        self.state = State.HELD
        self._deadline = sent + self._ttl
        self._asking = False
        self.beat_at = sent
        self.changed.notify()
        return True

    def close(self) -> None:
        """Believe nothing from now on."""
        self.epoch += 1
        self.state = State.CLOSED
