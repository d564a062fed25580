"""Addresses, sentinels and nodes that did not help lately. They are asked last for a while, but never left out."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from redis_stream_client._concurrency import clock

Who = TypeVar("Who", bound=Hashable)

FORGIVEN = 30.0
"""Seconds after which one that did not help is asked in the usual order again."""


class Unhelpful(Generic[Who]):
    """Remembers who did not help, and when."""

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self._now = now
        self._marks: dict[Who, float] = {}

    def mark(self, who: Who, at: float | None = None) -> None:
        """Note that this one did not help: now, or when it was asked at `at`."""
        now = self._now()
        self._marks = {other: at for other, at in self._marks.items() if now - at < FORGIVEN}
        self._marks[who] = now if at is None else at

    def forgive(self, who: Who) -> None:
        """Note that this one helps again."""
        self._marks.pop(who, None)

    def __contains__(self, who: Who) -> bool:
        return self.since(who) > 0.0

    def since(self, who: Who) -> float:
        """When this one last did not help; 0 if never, or long ago. Sort by this."""
        at = self._marks.get(who, 0.0)
        return at if self._now() - at < FORGIVEN else 0.0
