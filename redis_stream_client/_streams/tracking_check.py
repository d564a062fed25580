"""Whether changes of what one connection reads are heard of on another, and whether that can be believed."""

from collections.abc import Callable, Iterable

from redis_stream_client._concurrency import clock
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import log
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.server import ServerIdentity
from redis_stream_client._streams.intervals import REASSURANCE, UNPROVEN
from redis_stream_client._streams.tracking import Tracking

WARN_AFTER = 2.0
"""Seconds without wake-ups, while reading works, after which a warning says so."""

DEAF = 1.0
"""Seconds after which the message about an entry that was found by looking is not to be expected any more."""

SOUND = 10.0
"""Seconds without a contradiction after which wake-ups that could not be proven count as working."""


class TrackingCheck:
    """The reading connection, and the one that its wake-ups come on.

    What proves them is our own lock, where it lies on this server: each beat changes it, so who has read it must
    hear of that. Elsewhere it is any message. What refutes them is an entry that was found by looking, and not
    heard of.

    Attributes:
        token: another object for each time that the two were paired; None while nothing is heard of.
    """

    def __init__(
        self,
        connection: SharedConnection,
        tracking: Tracking,
        identity: ServerIdentity,
        quiet: float,
        on_paired: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._tracking = tracking
        self._identity = identity
        self._quiet = quiet
        self._on_paired = on_paired
        self.token: object | None = None
        self._paired_at = 0.0
        self._proven = False
        self._distrusted = False
        self._lock: bytes | None = None
        self._rung: tuple[float, float] | None = (
            None  # the lock's remaining time when it was read, and when that was
        )
        self._unheard = 0  # beats in a row that nothing was heard of
        self._found: dict[bytes, float] = {}
        self._trouble: float | None = None
        self._warned = False

    # What happens.

    def lost(self) -> None:
        """One of the two connections is gone."""
        self.token = None
        self._proven = False
        self._rung = None
        self._unheard = 0
        self._found.clear()

    def heard(self, keys: Iterable[bytes]) -> None:
        """These have changed."""
        if self.token is None:
            return
        for key in keys:
            self._found.pop(key, None)
            if self._lock in (None, key):
                self._prove()

    def _prove(self) -> None:
        self._proven = True
        self._distrusted = False
        self._rung = None
        self._unheard = 0
        self._tracking.works()

    def found(self, key: bytes) -> None:
        """An entry was found by looking."""
        self._found.setdefault(key, clock.now())

    def rang(self, lock: bytes, remaining: float) -> None:
        """Our own lock was read, which has so many milliseconds left."""
        now = clock.now()
        self._lock = lock
        if self._rung is not None and self.token is not None:
            before, at = self._rung
            if remaining > before - (now - at) * 1000 + 50:  # it was renewed meanwhile, and we have not heard
                self._unheard += 1
                if self._unheard > 1:
                    self._deaf("a change of our own lock was not heard of")
        self._rung = (remaining, now)

    # What follows.

    @property
    def unproven(self) -> bool:
        """Whether it is not known yet that the wake-ups work."""
        return self.token is not None and not self._proven

    @property
    def period(self) -> float:
        """Seconds between two looks at all streams that are waited for."""
        if self._proven:
            return REASSURANCE
        if self._lock is not None or self._distrusted:
            return UNPROVEN
        return max(UNPROVEN, min(REASSURANCE, clock.now() - self._paired_at))

    async def tend(self, answered_at: float) -> None:
        """Pair the two, doubt, warn. `answered_at`: when a read was last answered."""
        now = clock.now()
        if self._found and min(self._found.values()) < now - DEAF:
            self._deaf("an entry was found that nothing was heard of")
        if self.token is None and self._tracking.id is not None:
            await self._pair(self._tracking.id)
        elif self.token is not None and not self._distrusted and now - self._paired_at > SOUND:
            self._tracking.works()
        self._report(answered_at)

    async def _pair(self, bell: int) -> None:
        losses = self._connection.losses
        try:
            await self._connection.request(
                "CLIENT", "TRACKING", "ON", "REDIRECT", bell, timeout=max(0.5, min(self._quiet, UNPROVEN))
            )
        except RedisRejected as error:
            gone = "does not exist" in str(error)  # the bell was lost just now, or belongs to another server
            self._tracking.failed(Unanswered(str(error), maybe_executed=False) if gone else error)
            return
        except (Unanswered, GroupMissing) as error:
            self._tracking.failed(error)
            return
        if losses != self._connection.losses or bell != self._tracking.id:
            return
        here, there = self._identity.history, self._tracking.history
        if here and there and here != there:
            self._part("the entries come from another server than the wake-ups")
            return
        self.token = object()
        self._paired_at = clock.now()
        self._on_paired()

    def _deaf(self, why: str) -> None:
        self._distrusted = True
        self._part(why)

    def _part(self, why: str) -> None:
        """Open both connections anew."""
        self.lost()
        error = Unanswered(why, maybe_executed=True)
        self._tracking.failed(error)
        self._connection.drop(error)

    def _report(self, answered_at: float) -> None:
        """One warning for each time that there are none; when reading does not work either, others say so."""
        now = clock.now()
        if self.token is not None and not self._distrusted:
            if self._warned:
                log.info("wake-ups from %s work again", self._tracking.where)
            self._warned = False
            self._trouble = None
            return
        if self._trouble is None:
            self._trouble = now
        lasts = now - self._trouble > WARN_AFTER or self._tracking.refused
        if self._warned or not lasts or answered_at < self._trouble or self._tracking.failure is None:
            return
        self._warned = True
        log.warning(
            "%s: idle data streams are looked at from time to time, which takes up to a second longer and costs "
            "more; it is tried again (%s)",
            "CLIENT TRACKING is not permitted"
            if self._tracking.refused
            else f"no wake-ups from {self._tracking.where}",
            self._tracking.failure,
        )
