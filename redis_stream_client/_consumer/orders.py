"""The orders of operators, as this member knows them. Pure state.

They stand in Redis, and whoever renews the lock reads them with it, about once in half the pace. A hint makes that
faster. So nothing that comes on the control channel is obeyed by itself, but for the question for a stream, which
moves it at a checkpoint at worst.
"""

import time
from collections.abc import Callable

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.notifier import Notifier
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import Log
from redis_stream_client._model.orders import Pause
from redis_stream_client._protocol.lock_value import Says
from redis_stream_client._redis.outage import OutageLog
from redis_stream_client._redis.wordings import Wording

REFUSED = 60.0
"""Seconds after which this member tries again to read what Redis does not permit it to read."""

UNKNOWN = 10.0
"""Seconds for which a member that is new, or has its lock back, asks whether there is a pause, before it takes new
streams all the same. While the slot of its service moves to another node of a Cluster, Redis may not say so,
although it answers beats: then the member goes on as if nothing was ordered since."""

HINTS = 20
"""Hints have the orders read at most so many times in a period."""

PAUSE = Wording(
    "pause",
    "this member takes no new streams, by order of an operator",
    "what has an owner goes on; redis-stream-client resume ends it",
    "the pause is over",
)


class Orders:
    """What operators want of this member, and what it says about it.

    Args:
        log: the log of the client.
        outage: the log of the pause, which lasts.
        period: seconds between two times that the orders are read.

    Attributes:
        pause: why and since when nobody takes new streams; None: that is not so.
        known: whether the orders were read, or cannot be read, since the lock was taken: before, nobody knows
            whether there is a pause.
        draining: whether this member drains.
        changed: notified when a pause begins or ends, and when the orders become known.
        drain: notified when this member is to drain, whenever that is read.
        give: notified when an operator wants a stream to go elsewhere, with the id and the delivery count of its
            announcement.
        pressing: notified when the orders should be read, or the lock should say something else, sooner than the
            next beat.
    """

    def __init__(self, log: Log, outage: OutageLog, period: float, now: Callable[[], float] = clock.now) -> None:
        self._log = log
        self._outage = outage
        self._period = period
        self._now = now
        self._due_at = float("-inf")
        self._read_at = float("-inf")
        self._asked_at = float("inf")  # when they were first read, while they are not known
        self._refused = False
        self._rests = False
        self._pressed = False  # by a hint, since they were read last
        self.pause: Pause | None = None
        self.known = False
        self.draining = False
        self.changed = Notifier[[]]()
        self.drain = Notifier[[]]()
        self.give = Notifier[[str, int]]()
        self.pressing = Notifier[[]]()

    @property
    def new_streams(self) -> bool:
        """Whether this member may take new streams, as far as orders are concerned."""
        return self.known and self.pause is None

    @property
    def overdue_at(self) -> float:
        """When the heartbeat has to read them: as a rule the sweeper does so sooner, but it may rest."""
        return self._due_at if self._pressed else self._due_at + self._period

    @property
    def says(self) -> Says:
        """What the lock is to say."""
        return Says(self.draining, round(self.pause.since * 1000) if self.pause and self._rests else None)

    # What others learn.

    def heard(self) -> None:
        """A hint: there are new orders. If they were read only just now, they are read again a little later."""
        self._due_at = min(self._due_at, max(self._now(), self._read_at + self._period / HINTS))
        if not self._pressed:
            self._pressed = True
            self.pressing.notify()

    def drains(self) -> None:
        """This member drains, whoever has ordered it."""
        if not self.draining:
            self.draining = True
            self.pressing.notify()

    def rests(self) -> None:
        """No request of this member can bring new streams any more, and there is a pause."""
        if not self._rests:
            self._rests = True
            self.pressing.notify()

    def forget(self) -> None:
        """The lock has lapsed. An operator waits only for members that live, so there may be a pause of which this
        one has not heard. The first beat with the lock back reads the orders; a known pause lasts until then."""
        self.known = False
        self._asked_at = float("inf")
        self._due_at = float("-inf")

    # Reading.

    def reading(self) -> bool:
        """Whether to read the orders now. If so, whoever asks does."""
        now = self._now()
        if now < self._due_at:
            return False
        self._read_at = now
        self._pressed = False
        self._asked_at = min(self._asked_at, now)
        self._due_at = now + (REFUSED if self._refused else self._period)
        return True

    def unread(self) -> None:
        """There was no usable answer."""
        self._due_at = min(self._due_at, self._read_at + self._period / HINTS)
        if not self.known and self._now() - self._asked_at > UNKNOWN:
            self._know(self.pause)

    def refused(self, error: RedisRejected) -> None:
        """Redis does not permit it. All goes on as without operators, which is said once."""
        if not self._refused:
            self._refused = True
            self._due_at = self._read_at + REFUSED
            self._log.warning("cannot read the orders of operators: pauses and drains are not obeyed (%s)", error)
        self._know(None)

    def read(self, pause: Pause | None, *, drain: bool) -> None:
        """These are the orders."""
        if self._refused:
            self._refused = False
            self._due_at = self._read_at + self._period
        self._know(pause)
        if drain and not self.draining:
            self._log.info("an operator has ordered this member to drain")
            self.drain.notify()

    def _know(self, pause: Pause | None) -> None:
        before, anew = self.pause, not self.known
        self.pause, self.known = pause, True
        if pause is not None and (before is None or before.since != pause.since):
            self._rests = False
            lasts = max(0.0, time.time() - pause.since)
            self._outage.began(pause.reason, clock.now() - lasts)
        elif pause is not None and before is not None and before.reason != pause.reason:
            self._log.warning("the pause goes on, for another reason: %s", pause.reason)
        elif pause is None and before is not None:
            self._outage.ended()
        if anew or before != pause:
            self.changed.notify()
