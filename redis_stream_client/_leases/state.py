"""The state of one lease: what this client knows about a data stream that it owns, under one fence. No I/O.

The package works with this state. Users hold a `Lease`, which shows it to them.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.cancel_scope import CancelScope
from redis_stream_client._leases.handed_out import Handed
from redis_stream_client._leases.trouble import Trouble
from redis_stream_client._model.announcement import Announcement
from redis_stream_client._model.entry import START, order
from redis_stream_client._model.errors import LossReason, NotOwner, RedisRejected, RedisUnavailable, no_answer
from redis_stream_client._model.fence import Fence, holder_of
from redis_stream_client._model.gaps import UNKNOWN, Added, Count, Gap
from redis_stream_client._model.log_fields import LogFields

if TYPE_CHECKING:
    from redis_stream_client._model.retention import OnDone

ENDED: tuple[LossReason, ...] = ("done", "released", "dead")
"""The reasons of a lease that its holder ended."""


@dataclass(slots=True)
class Rest:
    """Pauses between attempts to read a progress record that somebody else has overwritten.

    Attributes:
        until: the time of the next attempt.
        seconds: the length of the pause; it grows with each attempt.
    """

    until: float
    seconds: float


class Watcher(Protocol):
    """Who is told of a lease's progress."""

    def progressed(self, lease: "LeaseState") -> None:
        """Its checkpoint has advanced."""
        ...


class Reading(Protocol):
    """How far the data stream was read."""

    @property
    def caught_up(self) -> bool:
        """Whether everything was read and taken, as far as is known."""
        ...


class LeaseState:
    """One lease, from its beginning to its end. Two leases are never equal.

    Args:
        lbs_id: id of the announcement on the load balancer stream.
        announcement: what was announced.
        deliveries: delivery count of the announcement.
        unrecorded: earlier owners that died; they count as attempts even if they left no progress record.
        consumer: id of the holder, for the fence.
        lived_since: the attribute; None: this lease is the first in the row.

    Attributes:
        face: the user's `Lease` while the lease is held. Use `lease_of`, which knows its type; this module cannot.
            The two refer to each other, so the reference is cut at the end.
        handed_out: whether the user has received the lease.
        lost: why the lease ended; None while it is held.
        cancel_scope: of the block or handler that works on the lease, once it was entered.
        waiters: futures that wait for the end of the lease, or for an entry.
        begun: whether this owner has taken over the progress record.
        position: the last checkpoint.
        attempts: owners that began since the last progress, this one included, but for those that said that their
            handler failed: all before this one have died.
        trouble: the failures and deaths since the last progress; None while there was none.
        given_back: whether the owner before this one has given the stream back, or an operator has taken it away:
            so that one has not died.
        lived_since: delivery count of the first in a row of leases of this announcement, this one the last, whose
            ends are no deaths; None: the end of this one will be.
        watcher: told when its checkpoint advances.
        reading: where its ``entries()`` come from, while it is held.
        progress_at: when the holder last made progress.
        asking: how many calls of the holder wait for the client now; `progress_timeout` does not count this time.
        waiting: how many steps of ``entries()`` or ``batches()`` wait for an entry now.
        collecting: how many of them have entries already, and wait for more.
        draining: whether to stop at the first step of ``entries()`` or ``batches()`` after a checkpoint.
        given: whether it is to stop, or its user was asked to release it, only because a peer has fewer streams: a
            pinned one does not stop.
        pinned: whether it is not given to a peer that has fewer streams.
        refused: the last `RedisRejected` of an operation on this lease. By its identity we tell it apart from one
            that the handler got elsewhere.
        rest: the pause while somebody else's record is in the way; None otherwise.
        on_done: what becomes of the data stream when it is done.
        done_sent: where the client sent the first `done` whose reply may be lost: (epoch of the lock, server
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
        "collecting",
        "deliveries",
        "done_sent",
        "draining",
        "face",
        "given",
        "given_back",
        "handed_out",
        "lbs_id",
        "lived_since",
        "lost",
        "on_done",
        "pinned",
        "position",
        "progress_at",
        "reading",
        "refused",
        "rest",
        "trouble",
        "unrecorded",
        "waiters",
        "waiting",
        "watcher",
    )

    def __init__(
        self,
        lbs_id: str,
        announcement: Announcement,
        deliveries: int,
        *,
        unrecorded: int = 0,
        consumer: str = "",
        lived_since: int | None = None,
        given_back: bool = False,
    ) -> None:
        self.lbs_id: str = lbs_id
        self.announcement: Announcement = announcement
        self.deliveries: int = deliveries
        self._holder = holder_of(consumer)
        self._fence_text: str | None = None  # cached, since every checkpoint needs it
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
        self.lived_since: int | None = deliveries if lived_since is None else lived_since
        self.given_back: bool = given_back
        self.attempts: int = unrecorded + 1
        self.trouble: Trouble | None = None
        self.watcher: Watcher | None = None
        self.reading: Reading | None = None
        self.progress_at: float = clock.now()
        self.asking: int = 0
        self.waiting: int = 0
        self.collecting: int = 0
        self.draining: bool = False
        self.given: bool = False
        self.pinned: bool = False
        self.refused: RedisRejected | None = None
        self.rest: Rest | None = None
        self.done_sent: tuple[int, str | None] | None = None
        self.on_done: OnDone = "keep"

    # What it is.

    @property
    def stream(self) -> str:
        """Name of the data stream."""
        return self.announcement.stream

    @property
    def info(self) -> Mapping[str, Any] | None:
        """The ``Info`` of the announcement."""
        return self.announcement.info

    @property
    def fence(self) -> Fence:
        """See `Lease.fence`."""
        return Fence.of(self.lbs_id, self.deliveries, self._holder)

    @property
    def fence_text(self) -> str:
        """The fence as progress records store it."""
        if self._fence_text is None:
            self._fence_text = str(self.fence)
        return self._fence_text

    @property
    def lived_since_text(self) -> str:
        """The fence of the lease `lived_since`, as records store it. If that is this one, or none: the fence of
        an owner before who has given it back, and a mark that it was another consumer; or empty."""
        if self.lived_since is not None and self.lived_since != self.deliveries:
            return str(Fence.of(self.lbs_id, self.lived_since, self._holder))
        if self.given_back and self.deliveries > 1:
            return f"{Fence.of(self.lbs_id, self.deliveries - 1, self._holder)}*"
        return ""

    def stood_still(self) -> None:
        """The event loop stood still while this lease was held, perhaps because of it: should it be lost, that
        counts like a death."""
        self.lived_since = None

    def recount(self, deliveries: int) -> None:
        """Take over the delivery count that Redis has now, and with it a new fence."""
        self.deliveries = deliveries
        self._fence_text = None

    def log_fields(self) -> LogFields:
        """The fields of the log records about this lease."""
        return {"stream": self.stream, "lbs_id": self.lbs_id, "fence": self.fence_text}

    # Its block, and its end.

    def enter(self) -> CancelScope:
        """Begin the block or handler, in the current task. Raises `NotOwner`, and ``RuntimeError`` the second
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
        """End the lease. Returns whether anybody waits for it, so that `tell_of_the_end` must be called."""
        if self.lost is not None:
            return False
        self.lost = reason
        self.reading = None  # else the two are a cycle, for the garbage collector to find
        return bool(self.waiters) or (self.cancel_scope is not None and reason not in ENDED)

    def tell_of_the_end(self) -> None:
        """Wake all waiters. Cancel the block, unless its holder ended the lease."""
        for waiter in self.waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        self.waiters = None
        if self.lost not in ENDED:
            self.cancel("the lease was lost")

    async def wait_for_the_end(self) -> LossReason:
        """Wait until the lease has ended. Cancelling the wait changes nothing."""
        if self.lost is None:
            waiter = self.add_waiter()
            try:
                await waiter
            finally:
                self.remove_waiter(waiter)
        assert self.lost is not None
        return self.lost

    def add_waiter(self) -> "asyncio.Future[None]":
        """A future that is resolved at the latest when the lease ends."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters = [*(self.waiters or ()), waiter]
        return waiter

    def remove_waiter(self, waiter: "asyncio.Future[None]") -> None:
        """Forget a waiter."""
        self.waiters = [other for other in self.waiters or () if other is not waiter] or None

    def not_owner(self, *, gone: bool = False, owner: str | None = None) -> NotOwner:
        """The error of an operation on a lease that has ended."""
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

    def begin(
        self, position: str | None, attempts: int, added: Added = UNKNOWN, trouble: Trouble | None = None
    ) -> None:
        """The progress record is ours now. `added`: the number of entries in the stream up to the position."""
        self.begun = True
        self.position = position
        self.attempts = attempts
        self.trouble = trouble
        self._added = added

    def suspected(self, deaths: int, trouble: Trouble) -> None:
        """So many owners have died that this one does not begin yet."""
        self.attempts = deaths + 1
        self.trouble = trouble

    @property
    def deaths(self) -> int:
        """Owners before this one that have died, since the last progress."""
        return max(0, self.attempts - (0 if self.trouble is not None and self.trouble.ours else 1))

    @property
    def failures(self) -> int:
        """How often a handler has failed since the last progress."""
        return self.trouble.failures if self.trouble is not None else 0

    @property
    def may_move(self) -> bool:
        """Whether the stream may go to a peer that has fewer: it is neither pinned, nor in trouble, which a peer
        should not inherit."""
        return not (self.pinned or self.deaths or self.failures)

    @property
    def tries(self) -> int:
        """See `Lease.attempts`."""
        return self.attempts + self.failures

    def failing_for(self, now: float) -> float:
        """For how many seconds the stream has been in trouble."""
        return max(0.0, now - self.trouble.since) if self.trouble is not None else 0.0

    def fail(self, error: str) -> None:
        """Its handler has failed: this owner does not count as one that may die of the stream."""
        self.attempts = max(0, self.attempts - 1)
        if self.trouble is None:
            self.trouble = Trouble(0, clock.now())
        self.trouble.failures += 1
        self.trouble.error = error
        self.trouble.ours = True

    def acquit(self) -> None:
        """Its owner has nothing left to do: whatever was tried before has come to its end."""
        self.attempts = 0
        self.trouble = None

    def checkpointed(self, id: str, *, advanced: bool, handed_over: int) -> None:
        """Redis has accepted a checkpoint. `handed_over`: how many entries the user had when it was sent."""
        if self._handed is not None and handed_over == self._handed.count:
            self._handed.settle(id)
        moved = self.position is None or order(id) > order(self.position)
        if advanced or moved:  # where it had moved before, the reply that said so was lost
            self.attempts = 0
            self.trouble = None
            if self.watcher is not None:
                self.watcher.progressed(self)
        if moved:
            self.position = id
            self._added = Added(self.added_up_to(id), sure=False)
        if self._handed is not None:
            self._handed.checkpointed(id)

    def may_checkpoint(self, id: str) -> bool:
        """Whether to send a checkpoint to Redis. Raises ``ValueError`` if it would skip entries."""
        handed = self._handed
        if handed is None or not handed.any or handed.covers(id) or order(id) <= order(self.position or START):
            return True
        if self.is_outdated(id):  # Redis may have lost that entry; if not, it comes again
            return False
        raise ValueError(
            f"{id} is beyond the last entry that you were handed, {handed.furthest}: what lies between "
            "would be skipped; pass the id of an entry that was processed"
        )

    def is_outdated(self, id: str) -> bool:
        """Whether the user got this entry before reading began again, and not since."""
        handed = self._handed
        return (
            handed is not None
            and not handed.covers(id)
            and handed.covered_before(id)
            and order(id) > order(self.position or START)
        )

    @property
    def last_entry(self) -> str | None:
        """The id of the furthest entry that the user has, since reading began; None if there is none."""
        return self._handed.last if self._handed is not None else None

    @property
    def all_checkpointed(self) -> bool:
        """Whether every entry that the user got has a checkpoint."""
        handed = self._handed
        return handed is None or not handed.any or handed.furthest == self.position

    # Reading.

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """See `Lease.gaps`."""
        return self._handed.gaps if self._handed is not None else ()

    @property
    def count(self) -> Count:
        """What is known about the number of entries up to the position."""
        position = self.position or START
        handed = self._handed
        sure = self._added.sure if handed is None or not handed.any else handed.furthest == position
        return Count(Added(self._added.number, sure), position)

    @property
    def reached(self) -> str:
        """Id of the last entry that the user got since reading began, or began again, or has processed."""
        position = self.position or START
        return max(position, self._handed.reached, key=order) if self._handed is not None else position

    def added_up_to(self, id: str) -> int | None:
        """How many entries were added to the stream up to this one; None if not known."""
        return self._handed.added(id) if self._handed is not None else None

    def start_reading(self) -> int | None:
        """Start reading after the position. Returns how many entries there were up to it; None if not known."""
        if self._handed is None:
            self._handed = Handed()
        return self._added.number

    def restarted(self, history: str) -> None:
        """Start again after the checkpoint: the server has changed, or has lost writes."""
        if self._handed is not None:
            self._handed.restart(history)

    def skip(self, gap: Gap) -> bool:
        """Note a gap. Returns whether it is new."""
        assert self._handed is not None
        return self._handed.skipped(gap)

    def hand_over(self, id: str, after: str | None, added: int | None) -> None:
        """Note that the user gets an entry."""
        assert self._handed is not None
        self._handed.hand_over(id, after, added)
        self.progress_at = clock.now()

    def hand_over_batch(self, through: str) -> None:
        """Note that the entries since the last such note, up to this one, are a batch of the user's."""
        assert self._handed is not None
        self._handed.through = through

    @property
    def handed_over(self) -> int:
        """How many entries the user has got."""
        return self._handed.count if self._handed is not None else 0

    @property
    def settled(self) -> bool:
        """Whether the user has got no entry since the last checkpoint, and that was not one within a batch."""
        return self._handed is None or self._handed.settled

    @property
    def processed(self) -> bool:
        """Whether every entry that the user has got since reading began, or began again, has a checkpoint."""
        return self.reached == (self.position or START)

    # Its holder's progress.

    def progress(self) -> None:
        """Note that the holder makes progress."""
        self.progress_at = clock.now()

    @property
    def idle(self) -> bool:
        """Whether the holder waits for an entry, with all entries processed, and its attempt still counts."""
        waits = self.waiting > 0 and not self.collecting
        counts = self.attempts > 0 or self.trouble is not None
        return self.begun and waits and self.settled and counts

    @property
    def at_rest(self) -> bool:
        """Whether the holder waits for an entry, and there is none: it has processed everything."""
        return self.waiting > 0 and self.settled and self.reading is not None and self.reading.caught_up

    @property
    def drained(self) -> bool:
        """Whether the holder must stop now. It may have pinned the stream since it was to be given away."""
        return self.draining and self.settled and not (self.given and self.pinned)

    def drain(self, *, given: bool = False) -> None:
        """Stop the holder at its first step of ``entries()`` or ``batches()`` after a checkpoint. `given`: so that
        the stream can go to a peer that has fewer."""
        self.draining, self.given = True, given
        if self.waiting and self.settled:
            self.cancel("draining")

    def undrain(self) -> None:
        """Let the holder go on that `drain` was to stop, unless it was cancelled already."""
        if self.cancel_scope is None or not self.cancel_scope.fired:
            self.draining = self.given = False

    def start_waiting(self, *, collecting: bool = False) -> "asyncio.Future[None]":
        """A step of ``entries()`` or ``batches()`` begins to wait. It wakes when the lease ends, too.

        `collecting`: it has entries, and waits for more.
        """
        self.waiting += 1
        self.collecting += collecting
        self.progress_at = clock.now()
        return self.add_waiter()

    def stop_waiting(self, waiter: "asyncio.Future[None]", *, collecting: bool = False) -> None:
        """The step has ended its wait."""
        self.waiting -= 1
        self.collecting -= collecting
        self.remove_waiter(waiter)
        self.progress_at = clock.now()

    def start_asking(self) -> None:
        """A call of the holder begins to wait for the client."""
        self.asking += 1

    def stop_asking(self, error: BaseException | None) -> None:
        """The call has ended its wait, perhaps with an error."""
        if isinstance(error, RedisRejected):
            self.refused = error
        self.asking -= 1
        self.progress_at = clock.now()

    def __repr__(self) -> str:
        return f"<Lease {self.stream!r} {self.lbs_id}/{self.deliveries} {self.lost or 'held'}>"
