"""Last signs of life: since when dead owners are dead, as well as this member knows.

Pure state, made only where there is an observer.
"""

from collections.abc import Callable, Collection

from redis_stream_client._concurrency import clock


class LastSigns:
    """What this member hears of the dead, and sees when it looks.

    A lock expires one lifetime after the last beat. A member that leaves says so, and peers say so of one that was
    found dead by its presence.

    Args:
        lock_ttl: the lifetime of a lock whose own lifetime is not known, in seconds.
        grace: seconds for which a member has been absent when peers find that out by its presence.
    """

    def __init__(self, lock_ttl: float, grace: float, now: Callable[[], float] = clock.now) -> None:
        self._lock_ttl = lock_ttl
        self._grace = grace
        self._now = now
        self._ttls: dict[str, float] = {}
        self._alive: dict[str, float] = {}  # when a look has found its lock
        self._signs: dict[str, float] = {}  # when a dead one was last alive

    def silent_for(self, consumer: str) -> float | None:
        """Seconds since the last sign of life of a dead consumer; None: not known."""
        sign = self._signs.get(consumer)
        return self._now() - sign if sign is not None else None

    # What this member hears.

    def lock_expired(self, consumer: str) -> None:
        """Redis says that its lock has expired."""
        self._signs[consumer] = self._now() - self._ttl(consumer)

    def left(self, consumer: str) -> None:
        """It says that it leaves."""
        self._signs[consumer] = self._now()

    def deposed(self, consumer: str) -> None:
        """A peer says that it was found dead by its presence."""
        self._signs[consumer] = self._now() - self._grace

    # What it sees.

    def found_alive(self, consumer: str) -> None:
        """A look has found its lock."""
        self._alive[consumer] = self._now()
        self._signs.pop(consumer, None)

    def has_ttl(self, consumer: str, seconds: float) -> None:
        """Its lock says how long it lives without a beat."""
        self._ttls[consumer] = seconds

    def found_dead(self, consumer: str, idle: float | None = None) -> None:
        """A look has found no lock. If we have heard nothing of it, it counts as silent since its last request;
        where Redis does not know that, for one lifetime of its lock. It is never silent for longer than one such
        lifetime and the time since a look has found it alive.

        Args:
            consumer: its id.
            idle: seconds since its last request to the group, if Redis knows that.
        """
        if consumer in self._signs:
            return
        now, ttl = self._now(), self._ttl(consumer)
        silent = ttl if idle is None else idle
        if (seen := self._alive.get(consumer)) is not None:
            silent = min(silent, now - seen + ttl)
        self._signs[consumer] = now - silent

    def keep(self, known: Collection[str]) -> None:
        """Forget all consumers that are not in `known`."""
        for of_consumers in (self._ttls, self._alive, self._signs):
            for name in of_consumers.keys() - set(known):
                del of_consumers[name]

    def _ttl(self, consumer: str) -> float:
        return self._ttls.get(consumer, self._lock_ttl)
