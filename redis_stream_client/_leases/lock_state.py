"""What this client may believe about its own consumer lock, by the local clock. No I/O."""

import enum
from collections.abc import Callable
from typing import Literal

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.notifier import Notifier

NEVER = float("inf")

UNANSWERED = 0.5
"""Seconds after which a question without an answer, or a beat that was due and not sent, means doubt; half the
grace if that is more, since connecting took long. Redis and event loops stand still for shorter times all the
while."""

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

    A client that has declared its presence may lose its lock earlier: peers delete it when Redis does not see the
    client's subscription any more. So such a client is in *doubt* from the moment when they may have done so, and
    until Redis has answered. In doubt the lock is not `held`, but nothing is lost yet: the state is `State.HELD`,
    and if Redis says that the lock is there, all is as before. Doubt begins by the clock alone, without a timer:

    - half the grace after the subscription was lost (`unseen`), until the declaration is taken back (`withdrawn`);
    - when a beat is overdue, or when Redis was asked whether the lock is there, and has not answered in time,
      until it answers: the network may have closed our connections towards the server without telling us. Redis
      may just stand still for a moment, but nobody can tell.

    Args:
        lock_ttl: lifetime of the lock in Redis, in seconds.
        heartbeat_interval: seconds between two renewals.
        on_lapse: called in the same step as a lapse, to deal with the leases.

    Attributes:
        changed: notified when the lock lapses, is held again, or a doubt ends.
        questioned: notified when Redis should be asked at once whether the lock is there.
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
        self._held_until = 0.0  # the deadline, or an earlier doubt: `held` is asked for each checkpoint
        self._grace: float | None = None
        self._last_grace: float | None = None
        self._unseen_from = NEVER
        self._answer_by = 0.0
        self._beating = False
        self._asked_at: float | None = None  # when Redis was first asked for the lock, and has not answered
        self._last_asked = 0.0
        self._answered = False
        self.changed = Notifier[[]]()
        self.questioned = Notifier[[]]()
        self.state = State.ABSENT
        self.epoch = 0
        self.lapses = 0
        self.quiet_until = 0.0
        self.beat_at: float | None = None

    @property
    def held(self) -> bool:
        """Whether the lock is held without a doubt, by the local clock. May be read from any thread."""
        return self.state is State.HELD and self._now() < self._held_until

    @property
    def alive(self) -> bool:
        """Whether the lock is held, perhaps in doubt, by the local clock. May be read from any thread."""
        return self.state is State.HELD and self._now() < self._deadline

    @property
    def deadline(self) -> float:
        """When the lock lapses if no beat is answered; after a lapse, when the client gives up its leases."""
        return self._deadline if self.state is State.HELD else self._answer_by

    @property
    def quiet(self) -> bool:
        """Whether this client must not take over streams yet. After a restart of Redis all locks are gone, and
        every member must get the chance to resume before others take its streams. It may not notice before its
        next beat, so this lasts longer where beats are rare."""
        return self._now() < self.quiet_until

    def check(self) -> None:
        """Notice a deadline that has passed. Called by a timer, and before every decision that needs the lock."""
        now = self._now()
        if self.state is State.HELD and now >= self._deadline:
            late = now - self._deadline
            # Silence is Redis's only if it was asked: a loop that stood still sent no beat.
            self.lapse("silent" if self._beating and late <= self._interval else "stalled")
        elif self.state is State.SUSPECT and now >= self._answer_by:
            self.state = State.ABSENT
            self._lapsed("silent")

    def believed(self, epoch: int) -> bool:
        """Whether the lock has not lapsed since `epoch` was read. Only then does a reply count.

        In doubt replies count, too: what Redis has answered is true as long as the lock is there, and if the lock
        is not there, the answer to the next beat leads to a lapse, and that to a comparison of all leases.
        """
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
        self.questioned.notify()

    def declared(self, grace: float) -> None:
        """A declaration of presence is about to be sent; only while the lock is held. From now on peers may delete
        the lock when Redis has not seen the subscription for `grace` seconds, even if no answer comes."""
        self._grace = self._last_grace = grace if self._grace is None else min(grace, self._grace)
        self._reckon()

    def unseen(self, at: float) -> None:
        """The subscription was lost at `at`. Without a declaration that means nothing. One that was withdrawn
        counts: Redis may execute it late, if its answer was given up."""
        if self._grace is None:
            self._grace = self._last_grace
        if self._grace is not None:
            self._unseen_from = min(self._unseen_from, at + self._grace / 2)
            self._reckon()
        self.doubt()

    def withdrawn(self) -> None:
        """Redis has answered that the declaration is taken back. From now on only the lock itself tells; if it was
        not there, it has lapsed already."""
        self._grace = None
        self._unseen_from = NEVER
        if self._reckon():
            self.changed.notify()

    def _reckon(self) -> bool:
        """Reckon anew until when the lock is held without a doubt. Returns whether a doubt has ended."""
        before = self.held
        until = min(self._deadline, self._unseen_from)
        if self._grace is not None and self.beat_at is not None:
            due = self.beat_at + self._interval
            if self._asked_at is not None:
                due = min(due, self._asked_at)
            until = min(until, due + max(UNANSWERED, self._grace / 2))
        self._held_until = until
        return self.held and not before

    def beating(self, sent: float) -> None:
        """A beat is being sent, at `sent`."""
        self._beating = True
        self.asking(sent)

    def asking(self, sent: float) -> None:
        """Redis is asked whether the lock is there, at `sent`: by a beat, or by a look at the peers' presence."""
        self._last_asked = max(self._last_asked, sent)
        if self._asked_at is None:
            self._asked_at = sent
            self._reckon()

    def there(self, sent: float, epoch: int) -> None:
        """Redis has answered what it was asked at `sent`: the lock is there, and nobody has deleted it up to then.
        That ends the doubt about what has no answer, but not that about a lost subscription."""
        if self.believed(epoch):
            self._asked_at = self._last_asked if sent < self._last_asked else None
            if self._reckon():
                self.changed.notify()

    def renewed(self, sent: float, epoch: int) -> None:
        """Redis has answered a beat that was sent at `sent`: the lock is there, and lives on."""
        if self.believed(epoch):
            self._deadline = max(self._deadline, sent + self._ttl)
            self._beating = False
            self.beat_at = sent if self.beat_at is None else max(self.beat_at, sent)
            self.there(sent, epoch)

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
        self._beating = False
        self._asked_at = None
        self.beat_at = sent
        if self._unseen_from == NEVER:
            self._grace = None  # joining takes a declaration back, but not one that Redis executed after it
        self._reckon()
        self.changed.notify()
        return True

    def close(self) -> None:
        """Believe nothing from now on."""
        self.epoch += 1
        self.state = State.CLOSED
