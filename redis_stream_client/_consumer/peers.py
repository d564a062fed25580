"""The peers: what is known about the other members. Pure state; the listener and the sweeper write it."""

from collections.abc import Collection, Iterable

from redis_stream_client._concurrency.notifier import Notifier


class Peers:
    """Which members are departing, and how many live.

    Attributes:
        departing: members that drain, and take no new streams.
        live: live members of the fleet, this one included, as last counted or heard.
        recovered: notified when the handlers of a member progress again after an outage of what they depend on.
    """

    def __init__(self) -> None:
        self.departing: set[str] = set()
        self.live = 1
        self.recovered = Notifier[[]]()

    def counted(self, others: int) -> None:
        """Note that `others` other members live."""
        self.live = 1 + others

    def joined(self) -> None:
        """Note that a member has joined."""
        self.live += 1

    def departs(self, consumer: str) -> None:
        """Note that a member drains."""
        if consumer not in self.departing:
            self.departing.add(consumer)
            self._one_less()

    def left(self, consumer: str) -> None:
        """Note that a member has left. If it was draining, it no longer counted."""
        if consumer in self.departing:
            self.departing.discard(consumer)
        else:
            self._one_less()

    def takers(self, consumers: Iterable[str], *, without: Collection[str]) -> list[str]:
        """The consumers that take new streams, except those in `without`."""
        return [name for name in consumers if name not in self.departing and name not in without]

    def keep(self, known: Collection[str]) -> None:
        """Forget all members that are not in `known`."""
        self.departing.intersection_update(known)

    def _one_less(self) -> None:
        self.live = max(1, self.live - 1)
