"""Addresses, sentinels and nodes that did not help lately: each is asked last for a while, and never left out."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from redis_stream_client._concurrency import clock

Who = TypeVar("Who", bound=Hashable)

FORGIVEN = 30.0
"""Seconds after which one that did not help is asked in its turn again."""


class Unhelpful(Generic[Who]):
    """Who did not help, and when that was."""

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self._now = now
        self._marks: dict[Who, float] = {}

    def mark(self, who: Who, at: float | None = None) -> None:
        """This one did not help: now, or when it was asked at that moment."""
        now = self._now()
        self._marks = {other: at for other, at in self._marks.items() if now - at < FORGIVEN}
        self._marks[who] = now if at is None else at

    def forgive(self, who: Who) -> None:
        """It has helped since."""
        self._marks.pop(who, None)

    def __contains__(self, who: Who) -> bool:
        return self.since(who) > 0.0

    def since(self, who: Who) -> float:
        """The last moment at which it did not help; 0 if that was long ago, or never. What to sort by."""
        at = self._marks.get(who, 0.0)
        return at if self._now() - at < FORGIVEN else 0.0
