"""The tracking check: whether the wake-ups of a reading connection really arrive on the other one."""

from collections.abc import Callable, Iterable

from redis_stream_client._concurrency import clock
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import Log
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.outage import OutageLog
from redis_stream_client._redis.server import ServerIdentity
from redis_stream_client._streams.intervals import REASSURANCE, UNPROVEN
from redis_stream_client._streams.tracking import Tracking

WARN_AFTER = 2.0
"""Seconds without wake-ups, while reading works, after which the client logs a warning."""

DEAF = 1.0
"""Seconds to wait for the wake-up of an entry that was found by looking; after that it counts as missing."""

SOUND = 10.0
"""Seconds without a missing wake-up after which unproven wake-ups count as working."""


class TrackingCheck:
    """Pairs the reading connection with the connection for wake-ups, and checks that they work.

    If our own lock is on this server, it proves the wake-ups: each beat changes it, so after reading it we must
    get one. On other servers any wake-up is a proof. An entry that was found by looking, and not announced, shows
    that they do not work.

    Attributes:
        token: a new object for each time that the two were paired; None while there are no wake-ups.
    """

    def __init__(
        self,
        connection: SharedConnection,
        tracking: Tracking,
        identity: ServerIdentity,
        quiet: float,
        on_paired: Callable[[], None],
        outage: OutageLog,
        log: Log,
    ) -> None:
        self._log = log
        self._outage = outage
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
        self._unheard = 0  # beats in a row without a wake-up
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
        """A wake-up says that these keys have changed."""
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
        """Our own lock was read; it has `remaining` milliseconds left."""
        now = clock.now()
        self._lock = lock
        if self._rung is not None and self.token is not None:
            before, at = self._rung
            if remaining > before - (now - at) * 1000 + 50:  # it was renewed, without a wake-up
                self._unheard += 1
                if self._unheard > 1:
                    self._deaf("no wake-up came for a change of our own lock")
        self._rung = (remaining, now)

    # What follows.

    @property
    def unproven(self) -> bool:
        """Whether the wake-ups have not been proven to work yet."""
        return self.token is not None and not self._proven

    @property
    def period(self) -> float:
        """Seconds between two looks at all streams that somebody waits for."""
        if self._proven:
            return REASSURANCE
        if self._lock is not None or self._distrusted:
            return UNPROVEN
        return max(UNPROVEN, min(REASSURANCE, clock.now() - self._paired_at))

    async def tend(self, answered_at: float) -> None:
        """Pair the connections, check the wake-ups, and warn. `answered_at`: when a read was last answered."""
        now = clock.now()
        if self._found and min(self._found.values()) < now - DEAF:
            self._deaf("an entry came without a wake-up")
        if self.token is None and self._tracking.id is not None:
            await self._pair(self._tracking.id)
        elif self.token is not None and not self._distrusted and now - self._paired_at > SOUND:
            self._tracking.works()
        self._report(answered_at)

    async def _pair(self, wakeups_to: int) -> None:
        losses = self._connection.losses
        try:
            await self._connection.request(
                "CLIENT", "TRACKING", "ON", "REDIRECT", wakeups_to, timeout=max(0.5, min(self._quiet, UNPROVEN))
            )
        except RedisRejected as error:
            gone = "does not exist" in str(error)  # that connection was lost, or belongs to another server
            self._tracking.failed(Unanswered(str(error), maybe_executed=False) if gone else error)
            return
        except (Unanswered, GroupMissing) as error:
            self._tracking.failed(error)
            return
        if losses != self._connection.losses or wakeups_to != self._tracking.id:
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
        """Reopen both connections."""
        self.lost()
        error = Unanswered(why, maybe_executed=True)
        self._tracking.failed(error)
        self._connection.drop(error)

    def close(self) -> None:
        """Nobody reads from this server any more."""
        self._outage.forget()

    def _report(self, answered_at: float) -> None:
        """Warn if there are no wake-ups. If reading does not work either, others log that."""
        now = clock.now()
        if self.token is not None and not self._distrusted:
            self._outage.answered()
            self._trouble = None
            return
        if self._trouble is None or answered_at < self._trouble:
            self._trouble = now  # reading does not work either, or nobody reads: its time has not begun
        failure = self._tracking.failure
        if failure is None:
            return
        if self._tracking.refused:  # that does not pass by itself
            if not self._warned:
                self._log.warning(
                    "CLIENT TRACKING is not permitted at %s: idle data streams are looked at from time to time, "
                    "which takes up to a second longer and costs more; permit it, or leave it at that (%s)",
                    self._tracking.where,
                    failure,
                    extra={"address": self._tracking.where, "error": str(failure)},
                )
            self._warned = True
        elif now - self._trouble > WARN_AFTER:
            self._outage.began(str(failure), self._trouble)
