"""What this client has declared about its presence, and what Redis may still believe. Pure state.

The listener writes whether we are subscribed, `Presence` what it has declared and withdrawn, and the watcher what
it has seen. `Presence` and the watcher wait for it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.notifier import Notifier

if TYPE_CHECKING:
    from redis_stream_client._model.statistics import Standing

LEAST_GRACE = 0.15
"""Seconds that somebody must be absent before peers take it for dead. A listener that is cut off is back after 26
ms (the median), and 51 ms at most, on an idle machine."""

CONNECTING = 6
"""Round trips that connecting and subscribing take."""

ANEW = 1.0, 60.0
"""The first and the longest pause in seconds, doubled in between, after which a grace that is longer than
`LEAST_GRACE` is measured anew: perhaps the process was busy when it subscribed, as at its start."""

TRIES = 3
"""After so many answers that Redis does not see our subscription, there is something in between that hides it."""

Step = Literal["withdraw", "declare"]


class PresenceState:
    """What this client has declared.

    Args:
        lock_ttl: lifetime of the lock in seconds.
        wanted: whether the user wants presence at all.

    Attributes:
        changed: notified when there may be something to do.
        blind: notified when Redis does not see our subscription, though we have heard nothing of its end.
        standing: what holds now.
        why: why it is ``impossible``, if it ever was.
        subscribed: whether the listener has our own channel, as far as we know.
        subscribed_at: since when.
        unsubscribed_at: when it was last lost.
        losses: how often it was lost.
        subscriptions: how often it was subscribed. What was asked during another subscription does not count.
        grace: seconds that peers wait when they do not see us any more.
        declare_at: when to declare anew with a shorter grace; infinite: never.
        nonce: number of the last declaration.
        others: whether anybody else has declared its presence.
        members: how many have, as last seen.
        watching: whether we were the one that watches when we last looked.
        deposed: how many absent members this client has deposed.
        withdrawals: how often it has withdrawn.
    """

    def __init__(self, lock_ttl: float, *, wanted: bool, now: Callable[[], float] = clock.now) -> None:
        self._lock_ttl = lock_ttl
        self._wanted = wanted
        self._now = now
        self._unseen = 0
        self._sent = 0  # declarations that Redis may have got
        self._withdraw = False  # Redis may have a declaration that is not true any more
        self.changed = Notifier[[]]()
        self.blind = Notifier[[]]()
        self.standing: Standing = "withdrawn" if wanted else "off"
        self.why = ""
        self.subscribed = False
        self.subscribed_at = float("-inf")
        self.unsubscribed_at = float("-inf")
        self.losses = 0
        self.subscriptions = 0
        self.grace = LEAST_GRACE
        self.declare_at = float("inf")
        self._pause = ANEW[0]
        self.nonce = 0
        self.others = False
        self.members = 0
        self.watching = False
        self.deposed = 0
        self.withdrawals = 0

    @property
    def wanted(self) -> bool:
        """Whether the user wants presence."""
        return self._wanted

    # What the listener tells.

    def heard_subscribed(self, took: float) -> None:
        """We have our channel. Connecting and subscribing took so many seconds: to come back takes as long."""
        if not self._wanted:
            return
        self.subscribed = True
        self.subscribed_at = self._now()
        self.subscriptions += 1
        self.grace = self._grace_for(took)
        self._pause = ANEW[0]
        self.declare_at = self.subscribed_at
        self._unseen = 0
        self.standing = "withdrawn"
        self.changed.notify()

    def _grace_for(self, took: float) -> float:
        return min(max(LEAST_GRACE, 3 * took), self._lock_ttl / 2)

    def heard_unsubscribed(self) -> None:
        """We do not have it any more: peers may take us for dead after our grace, unless we withdraw before."""
        if not self.subscribed:
            return
        self.subscribed = False
        self.unsubscribed_at = self._now()
        self.losses += 1
        self.watching = False
        self._withdraw_if_declared()
        if self.standing == "declared":
            self.standing = "withdrawn"
        self.changed.notify()

    def heard_of_other(self) -> None:
        """A peer says that it has declared its presence."""
        if not self.others:
            self.others = True
            self.changed.notify()

    # What `Presence` does.

    @property
    def step(self) -> Step | None:
        """What to do next. To withdraw comes first."""
        if self._withdraw:
            return "withdraw"
        if not self.subscribed or self.standing not in ("withdrawn", "declared"):
            return None
        return "declare" if self.standing == "withdrawn" or self._now() >= self.declare_at else None

    def declares(self) -> int:
        """A declaration is being sent: from now on Redis may have it, whether it answers or not. Returns its
        nonce."""
        self.nonce += 1
        self._sent += 1
        return self.nonce

    def has_declared(self, grace: float, round_trip: float) -> None:
        """Redis has our declaration with this grace. Its answer took so many seconds, which says what grace the
        next declaration should have."""
        if self.step != "declare":  # the subscription has ended meanwhile
            return
        self._unseen = 0
        self.standing = "declared"
        if grace > min(LEAST_GRACE, self._lock_ttl / 2):
            self.grace = min(grace, self._grace_for(CONNECTING * round_trip))
            self.declare_at = self._now() + self._pause
            self._pause = min(2 * self._pause, ANEW[1])
        else:
            self.declare_at = float("inf")
        self.changed.notify()

    def refused(self, why: str) -> bool:
        """Redis does not permit a declaration, so it has not got it. Returns whether it has got none at all."""
        self._sent -= 1
        self.impossible(why)
        return not self._sent

    def not_seen(self) -> None:
        """Redis does not see our subscription: it was lost just now, or something hides it."""
        self._unseen += 1
        if self._unseen >= TRIES and self.subscribed:
            self.impossible("Redis does not see our subscription: is there a proxy in between?")

    def impossible(self, why: str) -> None:
        """Redis does not permit presence, or something hides our subscription: only the lock tells that we
        live."""
        self.standing = "impossible"
        self.why = why
        self._withdraw_if_declared()
        self.changed.notify()

    def has_withdrawn(self, losses: int) -> bool:
        """Redis has answered a withdrawal; when it was sent, we had lost the subscription `losses` times. Returns
        False if we have lost it again since: a declaration that was given up may have been executed in between,
        while we were subscribed, so we must withdraw again."""
        if self.losses != losses:
            return False
        self._withdraw = False
        self.withdrawals += 1
        return True

    def lock_taken_anew(self) -> None:
        """The lock was taken again after a lapse, and that has withdrawn our declaration. Only a declaration that
        Redis executed afterwards has to be withdrawn still: if we lost the subscription meanwhile, peers may miss
        us."""
        if not self.subscribed:
            self._withdraw_if_declared()  # one that was sent before and is still under way
        if self.standing == "declared":
            self.standing = "withdrawn"
        self.changed.notify()

    def _withdraw_if_declared(self) -> None:
        # Even if the last withdrawal was answered: a declaration that was given up may arrive late.
        self._withdraw = self._sent > 0

    # What the watcher has seen.

    def not_seen_any_more(self) -> None:
        """Redis has lost the subscription by which we had declared our presence."""
        if self.subscribed:  # otherwise the listener is connecting already
            self.blind.notify()

    def undeclared(self) -> None:
        """Redis has lost our declaration."""
        if self.standing == "declared":
            self.standing = "withdrawn"
            self.changed.notify()

    def counted(self, members: int, *, watching: bool) -> None:
        """So many are present, we included."""
        self.members = members
        self.others = members > 1
        self.watching = watching
