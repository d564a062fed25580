"""The local clock for the deadline of the lock."""

import sys
import time

if sys.platform == "linux":

    def now() -> float:
        """Seconds on a clock that never jumps, and that goes on while the machine is suspended.

        ``CLOCK_MONOTONIC``, the clock of the event loop, stops while the machine is suspended. A lock in Redis
        does not.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:

    def now() -> float:
        """Seconds on a clock that never jumps."""
        return time.monotonic()
