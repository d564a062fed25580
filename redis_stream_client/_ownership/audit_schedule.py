"""The audit schedule: when the next audit is due. Pure state: a part that loses a reply asks for one, the reader
waits."""

import contextlib
from collections.abc import Callable, Generator

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.notifier import Notifier

PERIOD = 5
"""Paces between two audits, if nobody asks for an earlier one."""


class AuditSchedule:
    """Says when to audit. Parts that may have missed something write it, and the reader waits for it.

    Args:
        pace: `Options.pace`, in seconds.
        late: seconds after which Redis can no longer serve a read that we gave up.

    Attributes:
        changed: notified when somebody asks for an audit.
    """

    def __init__(self, pace: float, late: float, now: Callable[[], float] = clock.now) -> None:
        self._period = PERIOD * pace
        self._late = late
        self._now = now
        self._due = now() + self._period
        self._also_due: float | None = None
        self.changed = Notifier[[]]()

    def request(self) -> None:
        """Ask for an audit before the next read, because we may have missed something."""
        self._due = min(self._due, self._now())
        self.changed.notify()

    def read_lost(self) -> None:
        """Ask for an audit now, and for another one when Redis can no longer serve the read that we gave up."""
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
        """Wrap an audit. If it fails or is cancelled, the next one is due at once."""
        started = self._now()
        self._due = float("inf")
        try:
            yield
        except BaseException:
            self.request()
            raise
        # A request during the audit may be about something that this audit has missed.
        self._due = min(self._due, self._now() + self._period)
        if self._also_due is not None and self._also_due <= started:
            self._also_due = None
