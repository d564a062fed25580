"""What this client may believe about its own consumer lock, by the local clock. No I/O."""

import enum
from collections.abc import Callable
from typing import Literal

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.notifier import Notifier

LapseCause = Literal["silent", "stalled", "missing"]
"""Why a lock lapsed.

- ``silent``: Redis did not answer before the local deadline;
- ``stalled``: this process or its event loop stood still: it noticed the deadline late, or sent no beat after the
  last one that was answered;
- ``missing``: Redis says that the lock or the consumer group does not exist.
"""


class State(enum.Enum):
    """What the client believes about its lock."""

    ABSENT = "absent"  # not joined yet, or lapsed and every lease lost
    SUSPECT = "suspect"  # lapsed; the next resume finds out which leases peers have taken
    HELD = "held"
    CLOSED = "closed"


class LockState:
    """The local deadline of the consumer lock.

    A renewal counts from the moment *before* it was sent. So this client stops believing in its lock no later than
    the lock expires in Redis. Each lapse starts a new *epoch*: a reply to a request of an earlier epoch does not
    count.

    Args:
        lock_ttl: lifetime of the lock in Redis, in seconds.
        heartbeat_interval: seconds between two renewals.
        on_lapse: called in the same step as a lapse, to deal with the leases.

    Attributes:
        changed: notified when the lock lapses, is held again, or is doubted.
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
        """Whether the lock is held, by the local clock. May be read from any thread."""
        return self.state is State.HELD and self._now() < self._deadline

    @property
    def deadline(self) -> float:
        """When the lock lapses if no beat is answered; after a lapse, when the client gives up its leases."""
        return self._deadline if self.state is State.HELD else self._answer_by

    @property
    def quiet(self) -> bool:
        """Whether this client must not take over streams yet. After a restart of Redis all locks are gone, and
        every member must get the chance to resume before others take its streams."""
        return self._now() < self.quiet_until

    def check(self) -> None:
        """Notice a deadline that has passed. Called by a timer, and before every decision that needs the lock."""
        now = self._now()
        if self.state is State.HELD and now >= self._deadline:
            late = now - self._deadline
            # Silence is Redis's only if it was asked: a loop that stood still sent no beat.
            self.lapse("silent" if self._asking and late <= self._interval else "stalled")
        elif self.state is State.SUSPECT and now >= self._answer_by:
            self.state = State.ABSENT
            self._lapsed("silent")

    def believed(self, epoch: int) -> bool:
        """Whether the lock was held without a break since `epoch` was read. Only then does a reply count."""
        self.check()
        return self.state is State.HELD and self.epoch == epoch

    def lapse(self, cause: LapseCause) -> None:
        """The lock is lost, or this client must assume so."""
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
        """Something hints that the lock is gone: have the heartbeat ask Redis now."""
        self.changed.notify()

    def asking(self) -> None:
        """A beat is being sent."""
        self._asking = True

    def renewed(self, sent: float, epoch: int) -> None:
        """Redis has answered a beat that was sent at `sent`: the lock is there."""
        if self.believed(epoch):
            self._deadline = max(self._deadline, sent + self._ttl)
            self._asking = False
            self.beat_at = sent

    def answered(self, sent: float) -> None:
        """A resume that was sent at `sent` has put the lock back. Until the lock expires no peer can take a
        stream, so there is that much time to compare the leases. Only the first answer counts."""
        self.check()
        if self.state is State.SUSPECT and not self._answered:
            self._answered = True
            self._answer_by = sent + self._ttl

    def held_since(self, sent: float) -> bool:
        """A join or resume that was sent at `sent` is complete. Returns False if it took too long."""
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
