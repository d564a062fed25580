"""Chunks: how much to do in one turn of the event loop, or in one request."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

CHUNK = 100
"""The most tasks to wake or start in one turn of the loop; this takes some milliseconds. With more to do, let the
loop turn in between. Otherwise a client with 50,000 streams would miss its own heartbeat."""


def in_chunks(items: Sequence[Item], most: int = CHUNK) -> Iterator[Sequence[Item]]:
    """The items in chunks, one for each turn of the loop. The caller lets the loop turn between two chunks."""
    for start in range(0, len(items), most):
        yield items[start : start + most]


def in_sized_chunks(
    items: Sequence[Item], size_of: Callable[[Item], int], *, most: int, most_size: int
) -> Iterator[Sequence[Item]]:
    """The items in chunks of at most `most`, whose sizes together are at most `most_size`, unless one alone is
    larger."""
    start = size = 0
    for index, item in enumerate(items):
        added = size_of(item)
        size += added
        if index > start and (size > most_size or index - start == most):
            yield items[start:index]
            start, size = index, added
    if items:
        yield items[start:]


class PacedCalls:
    """Makes at most `most` calls in one turn of the loop, and the others in the next turns."""

    def __init__(self, most: int = CHUNK) -> None:
        self._most = most
        self._made = 0
        self._later: deque[Callable[[], None]] = deque()

    def call(self, call: Callable[[], None]) -> None:
        """Make a call now, or later if others wait already."""
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
