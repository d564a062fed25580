"""Pauses between attempts."""

import random


class Backoff:
    """Pauses that double from `first` to `longest` seconds, each between half and the whole of that.

    The jitter keeps a fleet from coming back in step after an outage.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def pause(self) -> float:
        """Seconds to wait now; longer the next time."""
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return random.uniform(pause / 2, pause)

    def reset(self) -> None:
        """It worked: start anew."""
        self._next = self._first
