"""The peers: what is known about the other members. Pure state; the listener and the sweeper write it."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from redis_stream_client._concurrency.notifier import Notifier
from redis_stream_client._protocol.replies import Holder, Member

ROUNDING = 1e-9
"""A share that is so little above a whole number is that number."""


class Peers:
    """Which members are departing, how many live, and what each can bear.

    Args:
        weight: this member's own.

    Attributes:
        departing: members that drain, and take no new streams.
        live: live members of the fleet, this one included, as last counted or heard.
        changed: notified when somebody joins, drains, leaves or dies, with whether it drains, or has drained.
        wants: notified when a member asks for streams, with its name and their number.
        looked_at: notified when the sweeper has looked at all consumers, with what each has, and which of the
            others live.
        recovered: notified when the handlers of a member progress again after an outage of what they depend on.
    """

    def __init__(self, weight: float = 1.0) -> None:
        self._weight = weight
        self._others: set[str] = set()  # that live, as last counted or heard
        self._holders: dict[str, Holder] = {}
        self.departing: set[str] = set()
        self.live = 1
        self.changed = Notifier[[bool]]()
        self.wants = Notifier[[str, int]]()
        self.looked_at = Notifier[[Sequence[Member], Mapping[str, bool]]]()
        self.recovered = Notifier[[]]()

    def counted(self, others: Collection[str]) -> None:
        """Note which other members live."""
        self._others = set(others)
        self.live = 1 + len(others)

    def joined(self) -> None:
        """Note that a member has joined."""
        self.live += 1
        self.changed.notify(False)

    def departs(self, consumer: str) -> None:
        """Note that a member drains."""
        if consumer not in self.departing:
            self.departing.add(consumer)
            self._one_less(consumer)
            self.changed.notify(True)

    def left(self, consumer: str) -> None:
        """Note that a member has left. If it was draining, it no longer counted."""
        drained = consumer in self.departing
        self.departing.discard(consumer)
        if not drained:
            self._one_less(consumer)
        self.changed.notify(drained)

    def died(self) -> None:
        """Note that a member has died, or may have: its lock is gone."""
        self.changed.notify(False)

    def takers(self, consumers: Iterable[str], *, without: Collection[str]) -> list[str]:
        """The consumers that take new streams, except those in `without`."""
        return [name for name in consumers if name not in self.departing and name not in without]

    def keep(self, known: Collection[str]) -> None:
        """Forget all members that are not in `known`."""
        self.departing.intersection_update(known)
        self._holders = {name: holder for name, holder in self._holders.items() if name in known}

    # What each can bear. A member's lock says the same as long as it lives.

    def described(self, consumer: str, holder: Holder) -> None:
        """Note what a member's lock says."""
        self._holders[consumer] = holder

    def knows(self, consumer: str) -> bool:
        """Whether it is known what this member's lock says."""
        return consumer in self._holders

    def holder(self, consumer: str) -> Holder:
        """What this member's lock says, as far as it is known."""
        return self._holders.get(consumer, Holder())

    def share_of(self, streams: int) -> int:
        """Our share of so many streams, by weight, rounded up."""
        unknown = max(0, self.live - 1 - len(self._others))
        weights = self._weight + sum(self.holder(name).weight for name in self._others) + unknown
        return math.ceil(streams * self._weight / weights - ROUNDING)

    def _one_less(self, consumer: str) -> None:
        self._others.discard(consumer)
        self.live = max(1, self.live - 1)
