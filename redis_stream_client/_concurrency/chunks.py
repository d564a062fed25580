"""How much to do in one turn of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

CHUNK = 100
"""Tasks that are woken, or started, in one turn of the loop: some milliseconds. Whoever has more to do lets
the loop turn in between, else a client that holds 50,000 streams misses its own heartbeat."""


def in_chunks(items: Sequence[Item], most: int = CHUNK) -> Iterator[Sequence[Item]]:
    """The items in pieces for one turn of the loop each; between two of them the caller lets it turn."""
    for start in range(0, len(items), most):
        yield items[start : start + most]


class PacedCalls:
    """Calls of which at most `most` are made in one turn of the loop; the others follow in the next ones."""

    def __init__(self, most: int = CHUNK) -> None:
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
