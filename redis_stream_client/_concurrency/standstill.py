"""Standstill: how long this process stood still, so that nobody is blamed for that time.

A stopped process, a suspended machine and a blocked event loop all look like silence of the other side to a task
that waits. But no task could run in that time, so it must not count against anybody.
"""

import asyncio
from bisect import bisect_right
from collections import deque

from redis_stream_client._concurrency import clock

LONGEST_TICK = 0.1
SHORTEST_TICK = 0.01
TICKS = 40  # ticks in the shortest silence that matters; a standstill is noticed within one tick
NEGLIGIBLE = 0.001  # seconds that a timer may be late
LATE = 0.05  # seconds that a timer may be late; a timer of more than half a second, by a tenth of its time
REMEMBERED = 4_096  # the most standstills that are remembered


def stood_still(late: float, timer: float = 0.0) -> bool:
    """Whether this process stood still: a timer of `timer` seconds was late by `late` seconds."""
    return late > max(LATE, timer / 10)


class Standstill:
    """Measures by how much its own timer is late.

    Args:
        shortest: the shortest silence, in seconds, that somebody can be blamed for.
    """

    def __init__(self, shortest: float) -> None:
        self.tick = max(SHORTEST_TICK, min(LONGEST_TICK, shortest / TICKS))
        self._looked_at = clock.now()
        self._total = 0.0
        self._moments: deque[float] = deque()  # when a standstill ended
        self._before: deque[float] = deque()  # the total before that

    async def pass_by(self) -> float:
        """Wait for one tick. Returns by how many seconds it was late."""
        await asyncio.sleep(self.tick)
        now = clock.now()
        late = now - self._looked_at - self.tick  # includes what happened between two ticks
        self._looked_at = now
        if late > NEGLIGIBLE:
            self.stood_still(late, now)
        return late

    def stood_still(self, seconds: float, until: float) -> None:
        """Note that no task could run for `seconds`, until the moment `until`."""
        if len(self._moments) == REMEMBERED:  # drop every other one; that only makes us more patient
            self._moments = deque(list(self._moments)[1::2])
            self._before = deque(list(self._before)[::2])
        self._moments.append(until)
        self._before.append(self._total)
        self._total += seconds

    def since(self, moment: float) -> float:
        """Seconds of standstill that ended after `moment`."""
        first = bisect_right(self._moments, moment)
        return self._total - self._before[first] if first < len(self._moments) else 0.0
