"""Who of the members is absent, since when, and when to look again. Pure state; the clock is given."""

import random
from collections.abc import Sequence

from redis_stream_client._consumer.presence_state import LEAST_GRACE
from redis_stream_client._protocol.replies import Absent, Watch

PERIOD = 0.1
"""Seconds between two looks of the one that watches."""

TENURE = 2.5
"""A look makes us the one that watches for so many periods."""

LONE = 2.0
"""Seconds between two looks of a member that is alone. One that declares its presence says so."""

CHEAP = 250
"""Members up to which a look costs Redis less than half a millisecond; with more the looks are rarer."""

RAREST = 15.0
"""The longest time between two looks, in seconds: soon after a large fleet has shrunk, somebody watches again."""

SETTLING = 1.0
"""If many vanish at once, or after a moment in which Redis did not answer us, they get so many seconds more:
perhaps Redis, or what stands before it, has cut the connections of many that live."""

STALE = 0.5
"""Seconds. A look that comes or takes longer than it should proves nothing about the time in between."""


class Absences:
    """Those that were absent at the last look.

    Attributes:
        next_look: when to look again.
    """

    def __init__(self) -> None:
        self._due: dict[Absent, float] = {}  # when to depose it
        self._period = PERIOD
        self._settled_at = float("-inf")
        self.next_look = float("-inf")

    @property
    def next_due(self) -> float:
        """When to do something next: to look, or to depose."""
        return min(self.next_look, min(self._due.values(), default=float("inf")))

    @property
    def tenure(self) -> float:
        """Seconds for which a look makes us the one that watches."""
        return TENURE * self._period

    def begin(self, at: float) -> None:
        """Begin anew: we were not able to look, and may look from `at` on."""
        self._due.clear()
        self.next_look = at

    def unanswered(self, now: float) -> None:
        """A look has got no answer: whoever was cut off as we were needs time to come back."""
        self._settled_at = now + SETTLING

    def saw(self, found: Watch, asked: float, answered: float) -> None:
        """Note what a look found that was sent at `asked`."""
        late = asked > self.next_look + STALE  # we stood still, or were cut off ourselves
        if late or answered - asked > STALE:  # we do not know of which moment it tells
            self.unanswered(answered)
        known, self._due = {} if late else self._due, {}
        self._period = PERIOD * max(1.0, found.present / CHEAP)
        if found.what in ("watching", "full") and answered - asked <= STALE:
            self._note(found, known, answered)
        self.next_look = self._after(found, asked, answered)

    def _note(self, found: Watch, known: dict[Absent, float], answered: float) -> None:
        many = len(found.absent) > max(1, found.present / 2)
        settled_at = answered + SETTLING if many else self._settled_at
        for absent in found.absent:
            first = max(answered, settled_at) + max(LEAST_GRACE, absent.grace)
            self._due[absent] = known.get(absent, first)

    def _after(self, found: Watch, asked: float, answered: float) -> float:
        if found.what in ("blind", "undeclared", "lapsed"):
            return asked + self._period
        if found.present <= 1:
            return answered + LONE
        if found.what == "watching":
            return asked + self._period
        # All but the one that watches share the looks: a fleet of any size looks at most some 30 times per second.
        share = found.present if found.what == "full" else (found.present - 1) / 2
        return answered + min(self._period * max(1.0, share), RAREST) * random.uniform(0.7, 1.2)

    def take_due(self, now: float, at_most: int) -> Sequence[Absent]:
        """Take out those that are to be deposed now. A moment that was missed does not count: we stood still."""
        due = [absent for absent, at in self._due.items() if at <= now][:at_most]
        return [absent for absent in due if self._due.pop(absent) >= now - STALE]
