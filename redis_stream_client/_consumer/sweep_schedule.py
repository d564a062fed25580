"""When to sweep, and when to look at whose streams. Pure state: what is heard is written here, for the sweeper."""

from collections.abc import Callable, Collection

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.notifier import Notifier

HEARD = 3
"""What is heard is looked at again after three times the time that the last look took."""


class SweepSchedule:
    """Written by whoever hears that a consumer may be dead; awaited by the sweeper.

    Looks at one consumer's streams keep a distance, a multiple of how long the last one took, so that a storm of
    hints costs no more than a few looks.

    Attributes:
        changed: there is something to do earlier than was known.
        swept_at: when the last sweep found all there was; minus infinity: now is the time for one.
        tidy_asked: the next sweep looks at everybody, and tidies up, whoever's turn that is.
    """

    def __init__(self, lock_ttl: float, now: Callable[[], float] = clock.now) -> None:
        self._lock_ttl = lock_ttl
        self._now = now
        self._suspects: dict[str, float] = {}  # consumer: when to look at what it has pending
        self._looked_at: dict[str, tuple[float, float]] = {}  # consumer: when that ended, how long it took
        self.changed = Notifier[[]]()
        self.swept_at = float("-inf")
        self.tidy_asked = False

    # What was heard.

    def suspect(self, owner: str, distance: float = HEARD) -> None:
        """This consumer's streams may be orphans: look, though not within `distance` times what a look takes."""
        ended, took = self._looked_at.get(owner, (float("-inf"), 0.0))
        self.look_at(owner, max(self._now(), ended + max(self._lock_ttl / 200, distance * took)))
        self.changed.notify()

    def sweep_now(self) -> None:
        """There was a gap in what was heard."""
        self.swept_at = float("-inf")
        self.changed.notify()

    def tidy_now(self) -> None:
        """After a lapse, perhaps after somebody destroyed the group: all must be looked at."""
        self.tidy_asked = True
        self.sweep_now()

    # What the sweeper asks and does.

    def look_at(self, owner: str, at: float) -> None:
        """Look at a consumer's streams at that time, if not earlier."""
        self._suspects[owner] = min(at, self._suspects.get(owner, at))

    @property
    def next_look(self) -> float:
        """When the next look is due."""
        return min(self._suspects.values(), default=float("inf"))

    def due(self) -> list[str]:
        """The consumers whose streams are to be looked at now."""
        now = self._now()
        return [owner for owner, at in self._suspects.items() if at <= now]

    def look_begins(self, owner: str) -> None:
        """What is heard of a consumer from now on asks for another look."""
        del self._suspects[owner]

    def look_ended(self, owner: str, began: float) -> None:
        """A look that began at that time has ended."""
        self._looked_at[owner] = (self._now(), self._now() - began)

    def long_ago(self, owner: str, distance: float = 0) -> bool:
        """Whether the last look at a consumer's streams is half a lock's lifetime ago, and `distance` times what
        it took."""
        ended, took = self._looked_at.get(owner, (float("-inf"), 0.0))
        return self._now() - ended > max(self._lock_ttl / 2, distance * took)

    def keep(self, known: Collection[str]) -> None:
        """Forget the looks at all other consumers."""
        self._looked_at = {name: look for name, look in self._looked_at.items() if name in known}
