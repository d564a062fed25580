"""How long this process stood still: what somebody was silent for that long is not theirs.

A process that is stopped, a machine that is suspended, and an event loop that somebody blocks look like silence to
whoever waits on the loop. Nobody got a turn in that time, so it counts against nobody.
"""

import asyncio
from bisect import bisect_right
from collections import deque

from redis_stream_client._concurrency import clock

LONGEST_TICK = 0.1
SHORTEST_TICK = 0.01
TICKS = 40  # in the shortest silence that matters; a standstill goes unnoticed for one of them at the most
NEGLIGIBLE = 0.001  # seconds that a timer may be late
LATE = 0.05  # seconds that any timer may be late; one of more than half a second, by a tenth of its time
REMEMBERED = 4_096  # moments


def stood_still(late: float, timer: float = 0.0) -> bool:
    """Whether this process stood still, since a timer of `timer` seconds was late by so much."""
    return late > max(LATE, timer / 10)


class Standstill:
    """Measures by how much a timer of its own is late.

    Args:
        shortest: seconds of the shortest silence that somebody is to be blamed for.
    """

    def __init__(self, shortest: float) -> None:
        self.tick = max(SHORTEST_TICK, min(LONGEST_TICK, shortest / TICKS))
        self._looked_at = clock.now()
        self._total = 0.0
        self._moments: deque[float] = deque()  # when a standstill ended
        self._before: deque[float] = deque()  # the total before that

    async def pass_by(self) -> float:
        """Wait for one tick. Returns by how much it was late."""
        await asyncio.sleep(self.tick)
        now = clock.now()
        late = now - self._looked_at - self.tick  # whatever happened between two ticks, too
        self._looked_at = now
        if late > NEGLIGIBLE:
            self.stood_still(late, now)
        return late

    def stood_still(self, seconds: float, until: float) -> None:
        """Nobody had a turn for so long, until that moment."""
        if len(self._moments) == REMEMBERED:  # every other one is enough: who is judged by less is judged mildly
            self._moments = deque(list(self._moments)[1::2])
            self._before = deque(list(self._before)[::2])
        self._moments.append(until)
        self._before.append(self._total)
        self._total += seconds

    def since(self, moment: float) -> float:
        """Seconds of standstill that ended after `moment`."""
        first = bisect_right(self._moments, moment)
        return self._total - self._before[first] if first < len(self._moments) else 0.0
