"""When the next audit is due. Pure state: whoever loses a reply asks for an audit, and the reader waits for it."""

import contextlib
from collections.abc import Callable, Generator

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.notifier import Notifier

PERIOD = 5
"""An audit is due so many lock lifetimes after the one before, if nobody asks for one earlier."""


class AuditSchedule:
    """Written by everything that may have missed something; awaited by the reader.

    Args:
        lock_ttl: lifetime of the lock, in seconds.
        late: seconds after which Redis cannot serve a read any more that was given up.

    Attributes:
        changed: an audit was asked for.
    """

    def __init__(self, lock_ttl: float, late: float, now: Callable[[], float] = clock.now) -> None:
        self._period = PERIOD * lock_ttl
        self._late = late
        self._now = now
        self._due = now() + self._period
        self._also_due: float | None = None
        self.changed = Notifier[[]]()

    def request(self) -> None:
        """Something may have happened that never reached us: audit before the next read."""
        self._due = min(self._due, self._now())
        self.changed.notify()

    def read_lost(self) -> None:
        """A read was given up: audit now, and again when Redis cannot serve it any more."""
        self._also_due = self._now() + self._late
        self.request()

    @property
    def due(self) -> bool:
        """Whether to audit now."""
        return self.delay <= 0

    @property
    def delay(self) -> float:
        """Seconds until an audit is due."""
        due = self._due if self._also_due is None else min(self._due, self._also_due)
        return due - self._now()

    @contextlib.contextmanager
    def under_way(self) -> Generator[None]:
        """The audit. One that fails, or is cancelled, is due again at once."""
        started = self._now()
        self._due = float("inf")
        try:
            yield
        except BaseException:
            self.request()
            raise
        # What was requested meanwhile may be about something that came too late for this one.
        self._due = min(self._due, self._now() + self._period)
        if self._also_due is not None and self._also_due <= started:
            self._also_due = None
