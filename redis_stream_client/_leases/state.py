"""The state of one lease: what this client knows of a data stream that it owns, under one fence. No I/O.

The package works on the state. Users hold a `Lease`, which is the face of it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.cancel_scope import CancelScope
from redis_stream_client._leases.handed_out import Handed
from redis_stream_client._model.announcement import Announcement
from redis_stream_client._model.entry import START, order
from redis_stream_client._model.errors import LossReason, NotOwner, RedisRejected, RedisUnavailable, no_answer
from redis_stream_client._model.fence import Fence, holder_of
from redis_stream_client._model.gaps import UNKNOWN, Added, Count, Gap

ENDED: tuple[LossReason, ...] = ("done", "released", "dead")
"""How a lease ends that its holder ended."""


@dataclass(slots=True)
class Rest:
    """A record that somebody else wrote is left alone for a while.

    Attributes:
        until: when it may be asked about again.
        seconds: how long it is left alone; each time for longer.
    """

    until: float
    seconds: float


class LeaseState:
    """One lease, from its beginning to its end. Two of them are never equal.

    Args:
        lbs_id: id of the announcement on the load balancer stream.
        announcement: what was announced.
        deliveries: how often it was delivered.
        unrecorded: owners before this one that died, and count even if they left no record.
        consumer: who holds it, for the fence.

    Attributes:
        face: the user's `Lease`, as long as the lease is held; `lease_of` gives it with its type, which this
            module cannot know. It refers to this state, so the two are parted at the end.
        handed_out: whether the user knows of it.
        lost: how it ended; None while it is held.
        cancel_scope: of the block or handler that works on it, once it was entered.
        waiters: futures of those who wait for its end, or for an entry.
        begun: whether its record is this owner's.
        position: the last checkpoint.
        attempts: see `Lease.attempts`.
        progress_at: when its holder last made progress.
        asking: how often its holder waits for the client now; that time is not the holder's.
        waiting: how many steps of ``entries()`` wait for an entry now.
        draining: whether it is to stop at the first step of ``entries()`` after a checkpoint.
        refused: the last refusal that an operation on this lease met. What it was, not what it looks like, tells
            it apart from one that the user met elsewhere.
        rest: whether the record is left alone, since somebody else wrote it.
        done_sent: where the first `done` whose reply may have been lost was sent: (epoch of the lock, server
            history).
    """

    __slots__ = (
        "_added",
        "_fence_text",
        "_handed",
        "_holder",
        "announcement",
        "asking",
        "attempts",
        "begun",
        "cancel_scope",
        "deliveries",
        "done_sent",
        "draining",
        "face",
        "handed_out",
        "lbs_id",
        "lost",
        "position",
        "progress_at",
        "refused",
        "rest",
        "unrecorded",
        "waiters",
        "waiting",
    )

    def __init__(
        self,
        lbs_id: str,
        announcement: Announcement,
        deliveries: int,
        *,
        unrecorded: int = 0,
        consumer: str = "",
    ) -> None:
        self.lbs_id: str = lbs_id
        self.announcement: Announcement = announcement
        self.deliveries: int = deliveries
        self._holder = holder_of(consumer)
        self._fence_text: str | None = None  # once it is needed: each checkpoint carries it
        self.face: object = None
        self.handed_out: bool = False
        self.lost: LossReason | None = None
        self.cancel_scope: CancelScope | None = None
        self.waiters: list[asyncio.Future[Any]] | None = None
        self.begun: bool = False
        self.position: str | None = None
        self._added = UNKNOWN  # entries of the stream up to there
        self._handed: Handed | None = None  # since entries() is used
        self.unrecorded: int = unrecorded
        self.attempts: int = unrecorded + 1
        self.progress_at: float = clock.now()
        self.asking: int = 0
        self.waiting: int = 0
        self.draining: bool = False
        self.refused: RedisRejected | None = None
        self.rest: Rest | None = None
        self.done_sent: tuple[int, str | None] | None = None

    # What it is.

    @property
    def stream(self) -> str:
        """Name of the data stream."""
        return self.announcement.stream

    @property
    def info(self) -> Mapping[str, Any] | None:
        """The announcement's ``Info``."""
        return self.announcement.info

    @property
    def fence(self) -> Fence:
        """See `Lease.fence`."""
        return Fence.of(self.lbs_id, self.deliveries, self._holder)

    @property
    def fence_text(self) -> str:
        """The fence as records hold it."""
        if self._fence_text is None:
            self._fence_text = str(self.fence)
        return self._fence_text

    def recount(self, deliveries: int) -> None:
        """Redis counts this delivery otherwise now."""
        self.deliveries = deliveries
        self._fence_text = None

    def log_fields(self) -> dict[str, str]:
        """What every log record about it carries."""
        return {"stream": self.stream, "lbs_id": self.lbs_id, "fence": str(self.fence)}

    # Its block, and its end.

    def enter(self) -> CancelScope:
        """The block, or handler, begins, in the current task. Raises `NotOwner`, and ``RuntimeError`` the second
        time."""
        if self.cancel_scope is not None:
            raise RuntimeError(
                f"the block of {self.face or self!r} was entered before; a lease is entered once, "
                "for a handler by run()"
            )
        self.cancel_scope = CancelScope()
        if self.lost is not None:
            raise self.not_owner()
        return self.cancel_scope

    def cancel(self, why: str) -> None:
        """Cancel the block, if it was entered and not left."""
        if self.cancel_scope is not None:
            self.cancel_scope.fire(why)

    def postpone_cancellation(self) -> bool:
        """Have the loss's cancellation of the block, which was just caught, delivered at the next step. See
        `CancelScope.postpone`."""
        return self.cancel_scope is not None and self.cancel_scope.postpone()

    def end(self, reason: LossReason) -> bool:
        """It is held no more. Returns whether somebody is to be told, by `tell_of_the_end`."""
        if self.lost is not None:
            return False
        self.lost = reason
        return bool(self.waiters) or (self.cancel_scope is not None and reason not in ENDED)

    def tell_of_the_end(self) -> None:
        """Wake who waits; cancel the block of a lease that its holder did not end."""
        for waiter in self.waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        self.waiters = None
        if self.lost not in ENDED:
            self.cancel("the lease was lost")

    async def wait_for_the_end(self) -> LossReason:
        """Wait until it is held no more. Cancelling the wait changes nothing."""
        if self.lost is None:
            waiter = self.add_waiter()
            try:
                await waiter
            finally:
                self.remove_waiter(waiter)
        assert self.lost is not None
        return self.lost

    def add_waiter(self) -> "asyncio.Future[None]":
        """A future that is resolved when the lease ends, if not before."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters = [*(self.waiters or ()), waiter]
        return waiter

    def remove_waiter(self, waiter: "asyncio.Future[None]") -> None:
        """Nobody waits for this one any more."""
        self.waiters = [other for other in self.waiters or () if other is not waiter] or None

    def not_owner(self, *, gone: bool = False, owner: str | None = None) -> NotOwner:
        """The error of an operation on a lease that is held no more."""
        reason = self.lost or "expired"
        return NotOwner(
            f"{self.stream!r} is no longer ours: {reason}",
            reason=reason,
            gone=gone,
            stream=self.stream,
            lbs_id=self.lbs_id,
            owner=owner,
            hint="this lease has ended, and is of no use any more" if reason in ENDED else None,
        )

    def no_answer(self, operation: str) -> RedisUnavailable:
        """The error of an operation that got no answer."""
        return no_answer(operation, stream=self.stream, lbs_id=self.lbs_id)

    # Its record.

    def begin(self, position: str | None, attempts: int, added: Added = UNKNOWN) -> None:
        """The record is ours. `added`: entries of the stream up to the position."""
        self.begun = True
        self.position = position
        self.attempts = attempts
        self._added = added

    def checkpointed(self, id: str, *, advanced: bool, handed_over: int) -> None:
        """A checkpoint was accepted, which was asked for when so many entries had been handed over."""
        if self._handed is not None and handed_over == self._handed.count:
            self._handed.settled = True
        if advanced:
            self.attempts = 0
        if self.position is None or order(id) > order(self.position):
            self.position = id
            self._added = Added(self.added_up_to(id), sure=False)
        if self._handed is not None:
            self._handed.checkpointed(id)

    def may_checkpoint(self, id: str) -> bool:
        """Whether a checkpoint has to be stored. Raises ``ValueError`` if entries would be skipped by it."""
        handed = self._handed
        if handed is None or not handed.any or handed.covers(id) or order(id) <= order(self.position or START):
            return True
        if self.is_outdated(id):  # Redis may have lost that entry; if not, it comes again
            return False
        raise ValueError(
            f"{id} is beyond the last entry that entries() has handed out, {handed.furthest}: what lies between "
            "would be skipped; pass the id of an entry that was processed"
        )

    def is_outdated(self, id: str) -> bool:
        """Whether an entry was handed out before reading began again, and not since."""
        handed = self._handed
        return (
            handed is not None
            and not handed.covers(id)
            and handed.covered_before(id)
            and order(id) > order(self.position or START)
        )

    @property
    def all_checkpointed(self) -> bool:
        """Whether all that was handed out has a checkpoint."""
        handed = self._handed
        return handed is None or not handed.any or handed.furthest == self.position

    # Reading.

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """See `Lease.gaps`."""
        return self._handed.gaps if self._handed is not None else ()

    @property
    def count(self) -> Count:
        """What is known of the stream's entries up to the position."""
        position = self.position or START
        handed = self._handed
        sure = self._added.sure if handed is None or not handed.any else handed.furthest == position
        return Count(Added(self._added.number, sure), position)

    def added_up_to(self, id: str) -> int | None:
        """How many entries were added to the stream up to this one, if it is known."""
        return self._handed.added(id) if self._handed is not None else None

    def start_reading(self) -> int | None:
        """Entries are read from the position on. Returns how many there were up to there, if that is known."""
        if self._handed is None:
            self._handed = Handed()
        return self._added.number

    def restarted(self, history: str) -> None:
        """The server is another one, or has lost writes: what has no checkpoint comes again."""
        if self._handed is not None:
            self._handed.restart(history)

    def skip(self, gap: Gap) -> bool:
        """Entries are missing. Returns whether that is news."""
        assert self._handed is not None
        return self._handed.skipped(gap)

    def hand_over(self, id: str, after: str | None, added: int | None) -> None:
        """An entry goes to the user."""
        assert self._handed is not None
        self._handed.hand_over(id, after, added)
        self.progress_at = clock.now()

    @property
    def handed_over(self) -> int:
        """How many entries went to the user."""
        return self._handed.count if self._handed is not None else 0

    @property
    def settled(self) -> bool:
        """Whether no entry went to the user since the last checkpoint."""
        return self._handed is None or self._handed.settled

    # Its holder's progress.

    def progress(self) -> None:
        """The work goes on."""
        self.progress_at = clock.now()

    @property
    def idle(self) -> bool:
        """Whether its owner has processed all there was, and waits for an entry, while the attempt counts."""
        return self.begun and self.waiting > 0 and self.settled and self.attempts > 0

    @property
    def drained(self) -> bool:
        """Whether it is to stop now."""
        return self.draining and self.settled

    def drain(self) -> None:
        """Stop at the first step of ``entries()`` after a checkpoint."""
        self.draining = True
        if self.waiting and self.settled:
            self.cancel("draining")

    def start_waiting(self) -> "asyncio.Future[None]":
        """A step of ``entries()`` waits; it is woken when the lease ends, too."""
        self.waiting += 1
        self.progress_at = clock.now()
        return self.add_waiter()

    def stop_waiting(self, waiter: "asyncio.Future[None]") -> None:
        """It waits no more."""
        self.waiting -= 1
        self.remove_waiter(waiter)
        self.progress_at = clock.now()

    def start_asking(self) -> None:
        """Its holder waits for the client."""
        self.asking += 1

    def stop_asking(self, error: BaseException | None) -> None:
        """It waits no more."""
        if isinstance(error, RedisRejected):
            self.refused = error
        self.asking -= 1
        self.progress_at = clock.now()

    def __repr__(self) -> str:
        return f"<Lease {self.stream!r} {self.lbs_id}/{self.deliveries} {self.lost or 'held'}>"
