"""How much to ask for at once, and how long to wait: what went unanswered is asked for in smaller pieces."""

from collections.abc import Callable

from redis_stream_client._concurrency import clock
from redis_stream_client._model.logs import log

SHRINK = 4
"""A request that was not answered is repeated for a quarter of what it asked for."""

LONGEST_PATIENCE = 30.0
"""Seconds that the smallest request may take: with 256 KiB, a line of 9 kB/s."""

FIRST_TRIAL, LONGEST_TRIAL = 60.0, 3600.0
"""Seconds after which a size that failed once is tried again; doubled each time that it fails again."""


class Window:
    """The size of one kind of request, and its time-out: both adapt to the line and to the server.

    A reply of n bytes needs n / bandwidth seconds, and a server may cut a connection for a reply that is too
    large. So a request that goes unanswered is repeated for less, and waits longer. While answers come it grows
    again, up to half of what failed after an answer; after a while that is tried again.

    Args:
        what: what is asked for, for the log: "streams in a read".
        largest: the size to begin with, and to return to.
        patience: seconds to wait for an answer to begin with.
        smallest: the size below which nothing can be asked for.
        longest_patience: seconds that `patience` grows to.

    Attributes:
        size: what to ask for next, at the most.
        patience: seconds to wait for it.
        shrunk: how often a request went unanswered.
    """

    def __init__(
        self,
        what: str,
        largest: int,
        patience: float,
        *,
        smallest: int = 1,
        longest_patience: float = LONGEST_PATIENCE,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self._what = what
        self._largest = self._most = largest
        self._smallest = smallest
        self._first_patience = patience
        self._longest_patience = longest_patience
        self._now = now
        self._trial = FIRST_TRIAL
        self._trial_at = float("-inf")
        self._failures = 0  # since the last answer
        self.size = largest
        self.patience = patience
        self.shrunk = 0

    @property
    def smallest(self) -> bool:
        """Whether nothing less can be asked for."""
        return self.size <= self._smallest

    def unanswered(self, size: int | None = None) -> None:
        """A request of this `size` (default: the window's) got no answer: ask for less, and wait longer."""
        failed = min(self.size, size or self.size)
        if self._failures == 0:  # it is known that less goes through; in an outage nothing does
            again = self._most < self._largest
            self._trial = min(self._trial * 2, LONGEST_TRIAL) if again else FIRST_TRIAL
            self._trial_at = self._now() + self._trial
            self._most = max(self._smallest, failed // 2)
        self._failures += 1
        self.shrunk += 1
        self.size = max(self._smallest, failed // SHRINK)
        self.patience = max(self._first_patience, min(self.patience * 2, self._longest_patience))
        # Once for each time that it happens: one alone may be the fault of a connection that broke just then.
        (log.warning if self._failures == 2 else log.debug)(
            "%s: %d requests in a row without an answer, the last of %d; the next asks for %d, and waits %.3g s",
            self._what,
            self._failures,
            failed,
            self.size,
            self.patience,
        )

    def answered(self, took: float = 0.0) -> None:
        """A request got its answer, after so many seconds: ask for more, up to what is known to work in time."""
        self._failures = 0
        if took > self._first_patience:  # it came, but held up whoever shares the line
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
