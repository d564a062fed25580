"""Whose turn it is to get the next announcement. Pure arithmetic, no I/O.

Redis serves blocked consumers in the order in which they blocked, which is a fair round-robin until a
blocking read times out: the consumer whose turn is next is the one that has waited longest, so it is the
first to time out, and by asking again it goes to the end of the queue. Measured with four idle consumers and
an announcement every 0.3 s, the counts drifted to 5/5/3/3 after 16.

So all members let their reads end at the same moments, multiples of a period on the server's clock, and queue
up anew in the order of their turns: who was served last waits longest, some milliseconds, before it asks
again. An idle Redis looks for reads that are due only every 100 ms; any command wakes it, so each member
sends a ``PING`` at that moment (`NUDGE` later, when the read is surely due).
"""

import math

NUDGE = 0.002
"""Seconds after the common moment: more than the error of the clocks' comparison."""

_LONGEST_PAUSE = 0.05  # as a part of the period
_SHORTEST = 0.02  # seconds: below this, the order would drown in the noise of the scheduler
_FINEST_AGE = 0.05  # seconds: ages below this are told apart badly
_OLDEST_AGE = 60.0  # seconds: from here on it does not matter when it was


class Turns:
    """When to end a blocking read, and how long to wait before the next one."""

    def __init__(self, longest_block: float) -> None:
        self._period = longest_block
        self._offset = 0.0
        self._served_at: float | None = None

    def server_clock(self, server_ms: int, now: float) -> None:
        """The server's clock, as it was at the local time `now`."""
        self._offset = server_ms / 1000 - now

    def served(self, now: float) -> None:
        """We got an announcement."""
        self._served_at = now

    def block(self, now: float) -> float:
        """Seconds to block: until the next common moment, however near it is."""
        return max(0.001, self._period - (now + self._offset) % self._period)

    def pause(self, now: float) -> float:
        """Seconds to wait after a read that timed out: less, the longer ago we were served."""
        if self._served_at is None:
            return 0.0
        age = min(now - self._served_at, _OLDEST_AGE)
        freshness = 1 - math.log1p(age / _FINEST_AGE) / math.log1p(_OLDEST_AGE / _FINEST_AGE)
        return max(_SHORTEST, self._period * _LONGEST_PAUSE) * max(0.0, freshness)
