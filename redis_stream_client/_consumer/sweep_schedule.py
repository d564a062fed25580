"""The sweep schedule: when to sweep, and when to look at the streams of a suspect. Pure state for the sweeper."""

from collections.abc import Callable, Collection

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.notifier import Notifier

HEARD = 3
"""After a hint, the next look at a consumer waits for HEARD times the duration of the last one."""


class SweepSchedule:
    """The parts that learn of a suspect write it, and the sweeper waits for it.

    Looks at the streams of one consumer keep a distance: a multiple of the duration of the last look. So a storm
    of hints costs only a few looks.

    Args:
        pace: `Options.pace`, in seconds.

    Attributes:
        changed: notified when something is due earlier than before.
        swept_at: when the last complete sweep was; minus infinity: sweep now.
        shared_anew: consumers of whose streams each member takes only its share at first, however long they have
            waited.
        tidy_asked: whether the next sweep looks at all consumers and tidies up, without waiting for the tidy turn.
    """

    def __init__(self, pace: float, now: Callable[[], float] = clock.now) -> None:
        self._pace = pace
        self._now = now
        self._suspects: dict[str, float] = {}  # consumer: when to look at its streams
        self._looked_at: dict[str, tuple[float, float]] = {}  # consumer: end and duration of the last look
        self.changed = Notifier[[]]()
        self.swept_at = float("-inf")
        self.shared_anew: set[str] = set()
        self.tidy_asked = False

    # What others have learned.

    def suspect(self, owner: str, distance: float = HEARD) -> None:
        """Look at the streams of this consumer, which may be dead, after `distance` times the duration of a
        look."""
        ended, took = self._looked_at.get(owner, (float("-inf"), 0.0))
        self.look_at(owner, max(self._now(), ended + max(self._pace / 200, distance * took)))
        self.changed.notify()

    def share(self, owner: str) -> None:
        """Many members may take this consumer's streams from now on: each looks, and takes its share first."""
        self.shared_anew.add(owner)
        self.suspect(owner)

    def sweep_now(self) -> None:
        """Sweep now, because notifications may have been missed."""
        self.swept_at = float("-inf")
        self.changed.notify()

    def tidy_now(self) -> None:
        """Look at all consumers now: after a lapse, because somebody may have destroyed the group."""
        self.tidy_asked = True
        self.sweep_now()

    # What the sweeper calls.

    def look_at(self, owner: str, at: float) -> None:
        """Look at the streams of a consumer at that time, or earlier."""
        self._suspects[owner] = min(at, self._suspects.get(owner, at))

    @property
    def next_look(self) -> float:
        """When the next look is due."""
        return min(self._suspects.values(), default=float("inf"))

    def due(self) -> list[str]:
        """The consumers whose streams are due for a look."""
        now = self._now()
        return [owner for owner, at in self._suspects.items() if at <= now]

    def look_begins(self, owner: str) -> None:
        """A look begins. A hint about the consumer from now on asks for another one."""
        del self._suspects[owner]

    def look_ended(self, owner: str, began: float, *, brought: bool = False) -> None:
        """A look that began at `began` has ended. If it has brought what this member had asked for, the next one
        need not wait for long."""
        self._looked_at[owner] = (self._now(), 0.0 if brought else self._now() - began)

    def long_ago(self, owner: str, distance: float = 0) -> bool:
        """Whether the last look at a consumer was long ago: half the pace, and `distance` times its
        duration."""
        ended, took = self._looked_at.get(owner, (float("-inf"), 0.0))
        return self._now() - ended > max(self._pace / 2, distance * took)

    def keep(self, known: Collection[str]) -> None:
        """Forget all consumers that are not in `known`."""
        self._looked_at = {name: look for name, look in self._looked_at.items() if name in known}
