"""The window: how much to ask for at once, and how long to wait. Without an answer, the client asks for less."""

from collections.abc import Callable

from redis_stream_client._concurrency import clock
from redis_stream_client._model.logs import Log

SHRINK = 4
"""A request without an answer is repeated for 1 / SHRINK of its size."""

LONGEST_PATIENCE = 30.0
"""The longest timeout in seconds, for the smallest request: enough for 256 KiB on a line of 9 kB/s."""

FIRST_TRIAL, LONGEST_TRIAL = 60.0, 3600.0
"""Seconds before a size that failed is tried again: the first time, and at most. Doubled with each failure."""


class Window:
    """The size of one kind of request, and its timeout. Both adapt to the line and to the server.

    A reply of n bytes needs n / bandwidth seconds, and a server may cut a connection because of a large reply. So
    a request without an answer is repeated for less, with a longer timeout. While answers come, the size grows
    again, up to half of the size that failed; after a while that size is tried again.

    A lost connection looks the same, whatever was under way. So the smallest size is never to blame, and a size
    that has worked before is to blame only if it fails twice: one small request that was cut off must not make
    thousands go one by one.

    Args:
        what: what is asked for, for the log: "streams in a read".
        largest: the first and greatest size.
        patience: the first timeout, in seconds.
        log: the log of whoever asks.
        smallest: the smallest size that makes sense.
        longest_patience: the longest timeout, in seconds.

    Attributes:
        size: the most to ask for next.
        patience: the timeout for it, in seconds.
        shrunk: how often a request got no answer.
    """

    def __init__(
        self,
        what: str,
        largest: int,
        patience: float,
        *,
        log: Log,
        smallest: int = 1,
        longest_patience: float = LONGEST_PATIENCE,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self._log = log
        self._what = what
        self._largest = self._most = largest
        self._smallest = smallest
        self._first_patience = patience
        self._longest_patience = longest_patience
        self._now = now
        self._trial = FIRST_TRIAL
        self._trial_at = float("-inf")
        self._works = 0  # the largest size that was answered, as far as it is known
        self._failures = 0  # since the last answer
        self.size = largest
        self.patience = patience
        self.shrunk = 0

    @property
    def smallest(self) -> bool:
        """Whether the window cannot shrink any more."""
        return self.size <= self._smallest

    def unanswered(self, size: int | None = None) -> None:
        """Ask for less and wait longer: a request of this `size` (default: that of the window) got no answer."""
        failed = min(self.size, size or self.size)
        if self._failures == 0 and self._is_to_blame(failed):  # less goes through; in an outage nothing does
            again = self._most < self._largest
            self._trial = min(self._trial * 2, LONGEST_TRIAL) if again else FIRST_TRIAL
            self._trial_at = self._now() + self._trial
            self._most = max(self._smallest, failed // 2)
        self._failures += 1
        self.shrunk += 1
        self.size = max(self._smallest, failed // SHRINK)
        self.patience = max(self._first_patience, min(self.patience * 2, self._longest_patience))
        # Once for each time that it happens: one alone may be the fault of a connection that broke just then.
        (self._log.warning if self._failures == 2 else self._log.debug)(
            "%s: %d requests in a row without an answer, the last of %d; the next asks for %d, and waits %.3g s",
            self._what,
            self._failures,
            failed,
            self.size,
            self.patience,
        )

    def _is_to_blame(self, failed: int) -> bool:
        """Whether a request of this size may be too large. It was the first without an answer."""
        if failed <= self._smallest:
            return False
        if failed <= self._works:
            self._works = failed // 2
            return False
        return True

    def answered(self, took: float = 0.0, size: int = 0) -> None:
        """Ask for more, up to what is known to work: a request got its answer after `took` seconds. `size`: how
        much it was, if that is known."""
        self._failures = 0
        self._works = max(self._works, size)
        if took > self._first_patience:  # it came, but held up others on the same line
            self._most = self.size = max(self._smallest, self.size // 2)
            self._trial_at = self._now() + self._trial
            return
        if self.size >= self._largest and self.patience <= self._first_patience:
            return
        if self._most < self._largest and self._now() >= self._trial_at:
            self._most = self._largest
        if self.size < self._most:
            self.size = min(self._most, self.size * 2)
        elif self._most == self._largest:  # else it may need its patience for what it asks for
            self.patience = max(self._first_patience, self.patience / 2)
