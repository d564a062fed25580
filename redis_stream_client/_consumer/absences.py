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

SETTLING = 1.0
"""If many vanish at once, they get so many seconds more: perhaps Redis has cut the connections of all."""

STALE = 0.5
"""Seconds. A look that comes or takes longer than it should proves nothing about the time in between."""


class Absences:
    """Those that were absent at the last look.

    Attributes:
        next_look: when to look again.
    """

    def __init__(self) -> None:
        self._due: dict[Absent, float] = {}  # when to depose it
        self._looked_at = float("-inf")
        self._period = PERIOD
        self.next_look = float("-inf")

    @property
    def next_due(self) -> float:
        """When to do something next: to look, or to depose."""
        return min(self.next_look, min(self._due.values(), default=float("inf")))

    @property
    def tenure(self) -> float:
        """Seconds for which a look makes us the one that watches."""
        return TENURE * self._period

    def forget(self) -> None:
        """Begin anew: we were not able to look."""
        self._due.clear()
        self._looked_at = float("-inf")

    def saw(self, found: Watch, asked: float, answered: float) -> None:
        """Note what a look found that was sent at `asked`."""
        self._period = PERIOD * max(1.0, found.present / CHEAP)
        if found.what in ("watching", "full"):
            self._note(found, asked, answered)
        else:
            self.forget()
        self.next_look = self._after(found, asked, answered)

    def _note(self, found: Watch, asked: float, answered: float) -> None:
        known = self._due if asked - self._looked_at <= self._between(found) + STALE else {}
        self._looked_at = asked
        self._due = {}
        if answered - asked > STALE:  # we do not know when it was
            return
        settling = SETTLING if len(found.absent) > max(1, found.present / 2) else 0.0
        for absent in found.absent:
            first = answered + max(LEAST_GRACE, absent.grace) + settling
            self._due[absent] = known.get(absent, first)

    def _after(self, found: Watch, asked: float, answered: float) -> float:
        if found.present <= 1 and found.what in ("watching", "other", "full"):
            return answered + LONE
        if found.what in ("other", "full"):
            return answered + self._between(found) * random.uniform(0.7, 1.2)
        return asked + self._period

    def _between(self, found: Watch) -> float:
        """Seconds between two looks. All but the one that watches share them: a fleet of any size looks at most
        some 30 times per second."""
        if found.what == "watching":
            return LONE if found.present <= 1 else self._period
        share = found.present if found.what == "full" else (found.present - 1) / 2
        return self._period * max(1.0, share)

    def take_due(self, now: float, at_most: int) -> Sequence[Absent]:
        """Take out those that are to be deposed now. A moment that was missed does not count: we stood still."""
        due = [absent for absent, at in self._due.items() if at <= now][:at_most]
        return [absent for absent in due if self._due.pop(absent) >= now - STALE]
