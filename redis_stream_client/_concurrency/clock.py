"""The local clock that lock deadlines are measured on."""

import sys
import time

if sys.platform == "linux":

    def now() -> float:
        """Seconds on a clock that never jumps and goes on while the machine is suspended.

        ``CLOCK_MONOTONIC``, the event loop's clock, stands still during suspend; a lock in Redis does not.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:

    def now() -> float:
        """Seconds on a clock that never jumps."""
        return time.monotonic()
