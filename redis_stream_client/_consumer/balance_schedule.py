"""The balance schedule: when a member asks for streams, and when and how it answers members that ask.

Pure state for the balancer. The rule itself, who should have how many, is in `shares`.

A member asks when it has looked twice, and found both times that it has too little, and nobody has joined or left
for a while. It goes on as long as streams come, until it has its share. If nothing comes, it asks again after a
pause that doubles.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.notifier import Notifier
from redis_stream_client._consumer.on_their_way import UNWILLING
from redis_stream_client._ownership.shares import Load, allot, fair_shares, step, wish

PACE = 0.25
"""Seconds between two times that a member asks, and between two that it answers, at the least."""

PATIENCE, LONGEST_PATIENCE = 1.0, 60.0
"""Seconds in which the first stream that was asked for should be here; they double as long as none comes."""

DEPLOY = 4
"""After a member has drained, the fleet must be still for so many times `settle`: whoever drains one member often
drains others, and what moves meanwhile would move again."""

GIVE_UP = UNWILLING
"""A member that has waited in vain for so many seconds asks again only if it is still far from its share. Those
that give leave a handler alone that has reached no checkpoint in this time."""


class Asked(NamedTuple):
    """What a member asked for.

    Attributes:
        at: when.
        streams: how many.
        taken: how many streams it had taken from others by then, since it joined.
    """

    at: float
    streams: int
    taken: int


class BalanceSchedule:
    """What one member knows and does about the balance of the fleet.

    Args:
        consumer: this member.
        settle: seconds for which nobody must have joined or died before streams move; `DEPLOY` times as long for
            drained.

    Attributes:
        changed: notified when something is due earlier than before.
        asking: this member asks, until it has its share.
    """

    def __init__(self, consumer: str, settle: float, now: Callable[[], float] = clock.now) -> None:
        self._me = consumer
        self._settle = settle
        self._now = now
        self.changed = Notifier[[]]()
        self.asking = False
        self._still_at = now() + settle
        self._moving_until = float("-inf")
        self._drifted = False
        self._short_since: float | None = None
        self._look_at = float("inf")
        self._asked: Asked | None = None
        self._patience = PATIENCE
        self._nothing_to_give = False
        self._wishes: dict[str, int] = {}
        self._answered_at = float("-inf")

    # What others have learned.

    def membership_changed(self, *, drained: bool = False) -> None:
        """Somebody has joined, drains, has left or has died, or this member's own lock was in doubt: wait until
        the fleet is still again.

        Args:
            drained: somebody drains, or has drained and left.
        """
        self._still_at = max(self._still_at, self._now() + self._settle * (DEPLOY if drained else 1))
        self._wishes.clear()
        self._nothing_to_give = False
        self._drifted = False
        self._stop()

    def wants(self, consumer: str, streams: int) -> None:
        """A peer asks for so many streams."""
        self._somebody_asks()
        if consumer != self._me and streams > 0 and self._may_give and not self._nothing_to_give:
            self._wishes[consumer] = streams
            self.changed.notify()

    # Asking.

    def look_at(self, taken: int) -> float:
        """When this member must look at the loads; infinity: the looks that the sweeper makes anyway are enough.

        Args:
            taken: how many streams it has taken from others, since it joined.
        """
        if self._asked is None:
            return self._look_at
        came = taken > self._asked.taken
        return self._asked.at + (PACE if came else self._patience)

    def saw(self, loads: Mapping[str, Load] | None, *, room: int, taken: int, released: int = 0) -> int:
        """Note what a look has found, whoever made it. Returns how many streams to ask for now; mostly none.

        Args:
            loads: all live members that take streams, this one included, however little they own. None if the
                streams of a dead member wait, or this is no time to ask: our lock is in doubt, or we drain.
            room: how many more streams this member can take.
            taken: as in `look_at`.
            released: how many streams nobody owns.
        """
        now = self._now()
        if loads is None or self._me not in loads or len(loads) < 2:
            self._stop()  # first things first; then it looks twice again
            return 0
        self._nothing_to_give = fair_shares(loads, released)[self._me] >= loads[self._me].streams
        if now < self._asked_until(taken):
            return 0
        self._count_what_came(taken)
        short = wish(loads, self._me, asking=self.asking, released=released, drifted=self._drifted)
        wanted = min(short, room)
        if wanted <= 0:
            self._drifted |= now >= max(self._still_at, self._moving_until)
            self._stop()
            return 0
        if not self.asking and not self._certain(now):
            return 0
        self.asking = True
        self._asked = Asked(now, wanted, taken)
        self._somebody_asks()
        return wanted

    def _somebody_asks(self) -> None:
        """The fleet is not even yet. Who has its share for now may be short again when the others have theirs."""
        self._moving_until = self._now() + self._settle + PATIENCE

    def _asked_until(self, taken: int) -> float:
        """Until when it waits for what it has asked for."""
        return self.look_at(taken) if self._asked is not None else float("-inf")

    def _count_what_came(self, taken: int) -> None:
        if self._asked is None:
            return
        if taken > self._asked.taken:
            self._patience = PATIENCE
        else:
            if self._patience >= GIVE_UP:
                self.asking = False
            self._patience = min(2 * self._patience, LONGEST_PATIENCE)
        self._asked = None

    def _certain(self, now: float) -> bool:
        """Whether an earlier look has found the same, long enough ago, and the fleet was still meanwhile."""
        half = self._settle / 2
        if now < self._still_at - half:
            self._look_at = self._still_at - half
            return False
        if self._short_since is None:
            self._short_since = now
        self._look_at = self._short_since + half
        return now >= self._look_at

    def _stop(self) -> None:
        self.asking = False
        self._asked = None
        self._short_since = None
        self._look_at = float("inf")
        self._patience = PATIENCE

    # Answering.

    @property
    def _may_give(self) -> bool:
        """Whether the fleet is still. Who asks has waited for this; it may have heard of the last change a little
        earlier."""
        return self._now() >= self._still_at - self._settle / 2

    @property
    def answer_at(self) -> float:
        """When this member must look at the loads, and answer those that ask; infinity: nobody asks.

        What several ask for in a short time is answered in one.
        """
        return self._answered_at + PACE if self._wishes else float("inf")

    def answer(self, loads: Mapping[str, Load] | None, *, going: int, released: int = 0) -> int:
        """Answer all that ask. Returns how many streams to give up now.

        Args:
            loads: as in `saw`, just looked up.
            going: how many of its streams this member is giving up already; it still owns them.
            released: how many streams nobody owns.
        """
        wishes, self._wishes = self._wishes, {}
        now = self._now()
        self._answered_at = now
        if loads is None or self._me not in loads or not self._may_give:
            return 0
        mine = loads[self._me]
        room = step(mine.streams) - going
        if room <= 0:
            return 0
        left = {**loads, self._me: mine._replace(streams=mine.streams - going)}
        return min(room, allot(left, wishes, released + going).get(self._me, 0))
