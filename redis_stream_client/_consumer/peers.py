"""What is known of the other members of the fleet. Pure state: the listener and the sweeper write, others ask."""

from collections.abc import Collection, Iterable


class Peers:
    """Who is departing, and how many there are.

    Attributes:
        departing: the members that are draining: they take nothing new.
        live: live members of the fleet, this one included, as last counted or heard.
    """

    def __init__(self) -> None:
        self.departing: set[str] = set()
        self.live = 1

    def counted(self, others: int) -> None:
        """So many others live."""
        self.live = 1 + others

    def joined(self) -> None:
        """Somebody joined."""
        self.live += 1

    def departs(self, consumer: str) -> None:
        """A member is draining."""
        if consumer not in self.departing:
            self.departing.add(consumer)
            self._one_less()

    def left(self, consumer: str) -> None:
        """A member has left. One that was draining is not counted since then."""
        if consumer in self.departing:
            self.departing.discard(consumer)
        else:
            self._one_less()

    def takers(self, consumers: Iterable[str], *, without: Collection[str]) -> list[str]:
        """Those of the consumers that take new streams, but for some."""
        return [name for name in consumers if name not in self.departing and name not in without]

    def keep(self, known: Collection[str]) -> None:
        """All others are not in the group any more."""
        self.departing.intersection_update(known)

    def _one_less(self) -> None:
        self.live = max(1, self.live - 1)
