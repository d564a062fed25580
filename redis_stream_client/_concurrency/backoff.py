"""Pauses between attempts."""

import random


class Backoff:
    """Pauses that double from `first` to `longest` seconds. Each is random, between half and the whole of that.

    So the members of a fleet do not all come back at the same moment after an outage.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def pause(self) -> float:
        """The next pause in seconds."""
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return random.uniform(pause / 2, pause)

    def reset(self) -> None:
        """Start anew with the first pause, after a success."""
        self._next = self._first
