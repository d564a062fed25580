"""Fairness of reading: which member gets the next announcement. Pure arithmetic, no I/O.

Redis serves blocked consumers in the order in which they blocked. That is a fair round-robin until a blocking read
times out. The consumer that is next has waited longest, so its read times out first, and when it asks again it is
the last in the queue. With four idle consumers and an announcement every 0.3 s we measured counts of 5/5/3/3 after
16.

So all members end their reads at the same moments, at multiples of a period on the server's clock, and then queue
up again, the one that was served longest ago first. For that, each counts in ``XINFO CONSUMERS`` how many were
served longer ago than itself, and waits that many times `STEP` before it asks again. An idle Redis ends reads that
are due only every 100 ms, but any command wakes it. So each member sends a ``PING`` at that moment (`NUDGE` later,
when the read is surely due).

All this serves members of equal weights. Where weights differ, `Yielding` keeps those out of the queue that have
their share.
"""

from collections.abc import Sequence

from redis_stream_client._protocol.replies import Member, Share

NUDGE = 0.002
"""Seconds after the common moment: more than the error in comparing the clocks."""

STEP = 0.008
"""Seconds between two members that queue up: more than the jitter of a busy event loop."""

FAIR_UP_TO = 32
"""The largest fleet that keeps the order. Each member looks at all others in every period; in a larger fleet one
place in the queue hardly matters."""

CLOCK_PERIOD = 30.0
"""Seconds between two looks at the server's clock. In that time two clocks drift apart by about 2 ms."""

FIRST_LOOK = 0.01
"""Seconds after which a member that yields looks for the first time what the others have left."""

_LONGEST_PAUSE = 0.1  # the longest pause, as a part of the period; a large fleet queues up in smaller steps


class Fairness:
    """When to end a blocking read, and how long to wait before the next one."""

    def __init__(self, longest_block: float) -> None:
        self._period = longest_block
        self._offset = 0.0
        self._error = float("inf")
        self._read_at = float("-inf")

    def server_clock(self, server: float, sent: float, received: float) -> None:
        """Learn the server's clock, in seconds, which was read between the local times `sent` and `received`.

        A reading that is much less precise than the last one is ignored, unless the two contradict each other:
        then one of the clocks was set.
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
        """Whether to look at the server's clock now."""
        return now - self._read_at > CLOCK_PERIOD

    def block(self, now: float) -> float:
        """Seconds to block: until the next common moment, even if it is near."""
        return max(0.001, self._period - (now + self._offset) % self._period)

    def settling(self, now: float, members: int) -> float:
        """Seconds until all members have queued up again. A member that was served meanwhile would jump the
        queue."""
        return max(0.0, members * self._step(members) - (now + self._offset) % self._period)

    def pause(self, me: str, members: Sequence[Member]) -> float:
        """Seconds to wait after a read that timed out, so that members that were served longer ago ask first."""
        order = sorted(members, key=lambda member: (-member.served_ms, member.name))
        rank = next((rank for rank, member in enumerate(order) if member.name == me), 0)
        return rank * self._step(len(order))

    def _step(self, members: int) -> float:
        return min(STEP, self._period * _LONGEST_PAUSE / max(1, members))


class Yielding:
    """When this member leaves to others what arrives, since it has its share by weight already.

    In the queue, Redis would serve it as often as a member of any other weight. So it stays out of the queue, and
    looks from time to time whether something waits that is for it: at short intervals while much arrives.

    Args:
        longest: the longest interval, in seconds.
        no_more: seconds for which it queues up like the others, after those have not taken what was left to them.
    """

    def __init__(self, longest: float, no_more: float) -> None:
        self._longest = longest
        self._no_more = no_more
        self._pause = FIRST_LOOK
        self._until = float("-inf")
        self._satisfied = False

    def seen(self, share: Share, now: float, patient: bool) -> None:
        """Note the result of a fair read. `patient`: it left to the others what was theirs."""
        if not patient:
            self._until = now + self._no_more
        if share.entries:
            self._pause = FIRST_LOOK
        self._satisfied = share.satisfied and now >= self._until

    def pause(self) -> float | None:
        """Seconds until the next look at what waits; None: queue up."""
        if not self._satisfied:
            return None
        pause = self._pause
        self._pause = min(2 * pause, self._longest)
        return pause


class Backlog:
    """What is known about the announcements that wait.

    The other members get `grace` seconds to take their share, counted from when one of them last took something,
    and four times that in all. After that they count as full, slow or stuck, and any member may take the rest.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._waiting = 0
        self._progress_at = 0.0
        self._since = 0.0
        self.expected = True  # announcements may wait already when we join
        self.patient = True
        self.others: list[str] | None = None

    def expect(self) -> None:
        """An announcement has arrived, so more may wait."""
        if not self.expected:
            self.expected = True
            self.patient = True
            self._waiting = 0

    def seen(self, waiting: int, now: float, took: bool) -> None:
        """Note that `waiting` announcements still wait. `took`: whether we have taken some."""
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
