"""Who gets the next announcement: fairness of reading. Pure arithmetic, no I/O.

Redis serves blocked consumers in the order in which they blocked, which is a fair round-robin until a
blocking read times out: the consumer that is served next is the one that has waited longest, so it is the
first to time out, and by asking again it goes to the end of the queue. Measured with four idle consumers and
an announcement every 0.3 s, the counts drifted to 5/5/3/3 after 16.

So all members let their reads end at the same moments, multiples of a period on the server's clock, and queue
up anew, so that whoever was served longest ago comes first: each looks in ``XINFO CONSUMERS`` how many were
served longer ago than itself, and waits that many `STEP` before it asks again. An idle Redis looks for reads that
are due only every 100 ms; any command wakes it, so each member sends a ``PING`` at that moment (`NUDGE` later,
when the read is surely due).
"""

from collections.abc import Sequence

from redis_stream_client._protocol.replies import Member

NUDGE = 0.002
"""Seconds after the common moment: more than the error of the clocks' comparison."""

STEP = 0.008
"""Seconds between two members that queue up: more than the noise of a busy event loop."""

FAIR_UP_TO = 32
"""Members up to which the order is kept: each looks at all others in every period, and in a larger fleet one place
in the queue more or less does not matter."""

CLOCK_PERIOD = 30.0
"""Seconds between two looks at the server's clock: two crystals drift apart by some 2 ms in that time."""

_LONGEST_PAUSE = 0.1  # as a part of the period: a large fleet queues up in smaller steps


class Fairness:
    """When to end a blocking read, and how long to wait before the next one."""

    def __init__(self, longest_block: float) -> None:
        self._period = longest_block
        self._offset = 0.0
        self._error = float("inf")
        self._read_at = float("-inf")

    def server_clock(self, server: float, sent: float, received: float) -> None:
        """The server's clock, in seconds, read between the local times `sent` and `received`.

        A reading that is much less certain than the one that is known is left out, unless the two contradict
        each other: then one of the clocks was set.
        """
        self._read_at = received
        offset = server - (sent + received) / 2
        error = (received - sent) / 2
        if error <= max(self._error, STEP / 4) or abs(offset - self._offset) > error + self._error:
            self._offset, self._error = offset, error

    @property
    def certain(self) -> bool:
        """Whether the server's clock is known well enough to keep the order."""
        return self._error < STEP / 4

    def clock_due(self, now: float) -> bool:
        """Whether to look at the server's clock."""
        return now - self._read_at > CLOCK_PERIOD

    def block(self, now: float) -> float:
        """Seconds to block: until the next common moment, however near it is."""
        return max(0.001, self._period - (now + self._offset) % self._period)

    def settling(self, now: float, members: int) -> float:
        """Seconds until all have queued up anew: who is served meanwhile would get in before the others."""
        return max(0.0, members * self._step(members) - (now + self._offset) % self._period)

    def pause(self, me: str, members: Sequence[Member]) -> float:
        """Seconds to wait after a read that timed out, so that who was served longer ago asks first."""
        order = sorted(members, key=lambda member: (-member.served_ms, member.name))
        rank = next((rank for rank, member in enumerate(order) if member.name == me), 0)
        return rank * self._step(len(order))

    def _step(self, members: int) -> float:
        return min(STEP, self._period * _LONGEST_PAUSE / max(1, members))


class Backlog:
    """What is known of the announcements that wait.

    Others get `grace` seconds to take their share, counted from when one of them last took something, and four
    times that in all; then they are taken to be full, slow or stuck, and the rest is for whoever asks.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._waiting = 0
        self._progress_at = 0.0
        self._since = 0.0
        self.expected = True  # there may be one already when we join
        self.patient = True
        self.others: list[str] | None = None

    def expect(self) -> None:
        """Something arrived, so more may wait."""
        if not self.expected:
            self.expected = True
            self.patient = True
            self._waiting = 0

    def seen(self, waiting: int, now: float, took: bool) -> None:
        """So many wait still; `took` says whether we took some."""
        if waiting == 0:
            self.expected = False
            self.others = None
            return
        if self._waiting == 0:
            self._since = now
        if took:
            self._since = self._progress_at = now
        elif waiting < self._waiting or self._waiting == 0:
            self._progress_at = now
        if now - self._progress_at > self._grace or now - self._since > 4 * self._grace:
            self.patient = False
        self._waiting = waiting
