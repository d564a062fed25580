"""How long to wait before trying again, and how much to do in one turn of the event loop."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

TURN = 100
"""Tasks that are woken, or started, in one turn of the loop: some milliseconds. Whoever has more to do lets
the loop turn in between, else a client that holds 50,000 streams misses its own heartbeat."""


def in_turns(items: Sequence[Item], most: int = TURN) -> Iterator[Sequence[Item]]:
    """The items in pieces for one turn of the loop each; between two of them the caller lets it turn."""
    for start in range(0, len(items), most):
        yield items[start : start + most]


class Turns:
    """Calls of which at most `most` are made in one turn of the loop; the others follow in the next ones."""

    def __init__(self, most: int = TURN) -> None:
        self._most = most
        self._made = 0
        self._later: deque[Callable[[], None]] = deque()

    def call(self, call: Callable[[], None]) -> None:
        """Make a call now, or after those that were asked for before."""
        if self._made < self._most and not self._later:
            if self._made == 0:
                asyncio.get_running_loop().call_soon(self._next_turn)
            self._made += 1
            call()
        else:
            self._later.append(call)

    def _next_turn(self) -> None:
        self._made = 0
        while self._later and self._made < self._most:
            self._made += 1
            self._later.popleft()()
        if self._made:
            asyncio.get_running_loop().call_soon(self._next_turn)


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
