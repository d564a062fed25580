"""A lease: one data stream that this client owns, under one fence."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn, get_args

import anyio

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.cancel_scope import CancelScope
from redis_stream_client._leases.backend import Host
from redis_stream_client._leases.entry_iterator import IN_DOUBT, Entries, OnGap
from redis_stream_client._leases.handed_out import Handed
from redis_stream_client._model.announcement import Announcement
from redis_stream_client._model.entry import START, order, require_id
from redis_stream_client._model.errors import (
    LossReason,
    NotOwner,
    RedisRejected,
    RedisStreamClientError,
    RedisUnavailable,
)
from redis_stream_client._model.failures import is_a
from redis_stream_client._model.fence import Fence, holder_of
from redis_stream_client._model.gaps import UNKNOWN, Added, Count, Gap
from redis_stream_client._model.logs import log

LEAVING_GRACE = 0.5
"""Seconds that leaving a block by cancellation, or leaving the client, may wait for Redis."""

AGAIN = 0.05
"""Seconds after which the end of a block is said again, when it got no answer for a lifetime of the lock."""

ENDED: tuple[LossReason, ...] = ("done", "released", "dead")
"""How a lease ends that its holder ended."""


class _Asked:
    """The holder of a lease waits for the client inside of the block."""

    __slots__ = ("_lease",)

    def __init__(self, lease: "Lease") -> None:
        self._lease = lease

    def __enter__(self) -> None:
        self._lease._asking += 1

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, RedisRejected):
            self._lease._refused = error
        self._lease._asking -= 1
        self._lease._progress_at = clock.now()


class Lease:
    """A data stream that this client owns.

    Comes from `StreamAdded` or from ``client.claim()``. Two leases are never equal: a stream that was lost
    and comes back comes as a new lease, with a greater fence.

    ``async with lease:`` runs the work, once, in the task that enters: leaving normally says `done`; leaving
    by an exception or a cancellation says `release`; when the lease is lost the block is cancelled, and
    leaving it raises `NotOwner`.
    """

    __slots__ = (
        "_added",
        "_announcement",
        "_asking",
        "_attempts",
        "_begun",
        "_cancel_scope",
        "_deliveries",
        "_done_sent",
        "_draining",
        "_entries_handed_over",
        "_fence_text",
        "_handed",
        "_handed_out",
        "_holder",
        "_host",
        "_lbs_id",
        "_lost",
        "_position",
        "_progress_at",
        "_refused",
        "_refused_for",
        "_refused_until",
        "_settled",
        "_unrecorded",
        "_waiters",
        "_waiting",
    )

    def __init__(
        self,
        host: Host,
        lbs_id: str,
        announcement: Announcement,
        deliveries: int,
        *,
        unrecorded: int = 0,
        consumer: str = "",
    ) -> None:
        self._host = host
        self._lbs_id = lbs_id
        self._announcement = announcement
        self._deliveries = deliveries
        self._holder = holder_of(consumer)
        self._fence_text: str | None = None  # once it is needed: each checkpoint carries it
        self._lost: LossReason | None = None
        self._handed_out = False
        self._cancel_scope: CancelScope | None = None
        self._waiters: list[asyncio.Future[Any]] | None = None
        # The data plane. Owners before this one that died without a record count, too.
        self._begun = False
        self._position: str | None = None
        self._added = UNKNOWN  # entries of the stream up to there
        self._handed: Handed | None = None  # since entries() is used
        self._unrecorded = unrecorded
        self._attempts = unrecorded + 1
        # Progress: when there was some, what the holder waits for that is the client's to do, steps of entries()
        # that wait for an entry now, and whether no entry was handed over since the last checkpoint.
        self._progress_at = clock.now()
        self._asking = 0
        self._waiting = 0
        self._settled = True
        self._entries_handed_over = 0
        self._draining = False
        # The last refusal that an operation on this lease met: what it was, not what it looks like, tells it apart
        # from one that the user met elsewhere.
        self._refused: RedisRejected | None = None
        # A record that somebody else wrote: when it may be asked about again, and how long that was.
        self._refused_until = 0.0
        self._refused_for = 0.0
        # Where the first `done` whose reply may have been lost was sent: (epoch of the lock, server history).
        self._done_sent: tuple[int, str | None] | None = None

    @property
    def stream(self) -> str:
        """Name of the data stream."""
        return self._announcement.stream

    @property
    def lbs_id(self) -> str:
        """Id of its announcement on the load balancer stream."""
        return self._lbs_id

    @property
    def info(self) -> Mapping[str, Any] | None:
        """The announcement's ``Info``, decoded JSON, or None."""
        return self._announcement.info

    @property
    def deliveries(self) -> int:
        """How often the announcement was delivered: 1 for its first owner, one more for each later one."""
        return self._deliveries

    @property
    def fence(self) -> Fence:
        """Greater than the fence of every earlier owner of this stream's announcement, and equal to nobody else's.

        Guard what you write elsewhere with it: store it, and refuse a write whose fence is smaller than the stored
        one. It may grow while the lease is owned, when Redis turns out to have lost writes in a fail-over; ask for
        it each time.
        """
        return Fence.of(self._lbs_id, self._deliveries, self._holder)

    @property
    def attempts(self) -> int:
        """How many owners began, this one included, since the checkpoint last advanced or one of them ended in
        good order; 0 after a checkpoint of this one, and in `run()` when it has waited for an entry for a while,
        with nothing left to do. Known in `run()`, and as soon as ``entries()`` was asked for
        its first entry; before, a guess."""
        return self._attempts

    @property
    def position(self) -> str | None:
        """Id of the last entry that a checkpoint says is processed; None if there is none, or if it is not known
        yet. Known in `run()`, and as soon as ``entries()`` was asked for its first entry."""
        return self._position

    @property
    def owned(self) -> bool:
        """Whether this client may still work on the stream, computed from the local clock: false the moment
        the lock's local deadline passes. May be asked from any thread."""
        return self._lost is None and self._host.held

    async def lost(self) -> LossReason:
        """Wait until the lease is no longer owned, and return why. Cancelling the wait changes nothing."""
        if self._lost is None:
            waiter = self._add_waiter()
            try:
                await waiter
            finally:
                self._remove_waiter(waiter)
        assert self._lost is not None
        return self._lost

    # The data stream.

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Entries that were trimmed or deleted before they were read, as far as ``entries()`` has come, and as far
        as the server can tell. Redis 6.2 cannot."""
        return self._handed.gaps if self._handed is not None else ()

    def entries(self, *, on_gap: OnGap = "warn") -> Entries:
        """The entries of the data stream, from the one after the last checkpoint, for ``async for``.

        It never ends by itself: leave the loop at your own end marker. Entries are read as long as the lease is
        owned; when it is lost, drained or closed, the next step is cancelled, and never ends normally. While the
        consumer lock is in doubt, or Redis is away, it waits. Cancelling a step loses no entry. Each call starts
        anew after the last checkpoint.

        Entries come at least once. Those without a checkpoint come again to the next owner. They come again to
        this one, too, when Redis was restarted or a replica has taken over, since it may have lost writes: reading
        then goes on after the checkpoint that Redis knows.

        Args:
            on_gap: what to do where entries were trimmed or deleted before they were read. ``"warn"``: log it,
                once, and go on; that may take a second. ``"raise"``: raise `EntriesTrimmed` before an entry behind
                the gap; the next step goes on there. It costs a look at the stream before each read.

        Raises (from ``anext()``):
            NotOwner: the lease is not owned any more.
            EntriesTrimmed: with ``on_gap="raise"``.
            RedisUnavailable: no answer about the progress until the lock lapsed.
            RedisRejected: the data stream's key holds another type, or Redis does not permit to read it.
        """
        if on_gap not in get_args(OnGap):
            raise ValueError(f"on_gap must be one of {', '.join(get_args(OnGap))}, not {on_gap!r}")
        return Entries(self, on_gap)

    async def checkpoint(self, id: str) -> None:
        """All entries up to this one are processed: the next owner continues after it.

        An id that is not greater than the last checkpoint changes nothing. Nor does that of an entry which was
        handed out before Redis restarted or failed over: it comes again. A lost reply is repeated until the lock's
        deadline. Cancelling the wait does not take it back: it goes on in the background, and what Redis accepts
        counts, for `position` and `attempts`, too.

        Args:
            id: an entry's id, ``entry.id``.

        Raises:
            TypeError, ValueError: it is not an id; or it is beyond the last entry that ``entries()`` has handed
                out. Who reads the stream in another way may pass any.
            NotOwner: a newer owner has begun, or the lease was lost; nothing was stored.
            RedisUnavailable: no answer until the lock lapsed; it may have been stored, and repeating is safe.
            RedisRejected: Redis does not permit it.
            ClientClosed: the client was closed meanwhile.
        """
        id = require_id(id)
        self._progress_at = clock.now()
        if self._lost is not None:
            raise self._not_owner()
        if self._may_checkpoint(id):
            with self._asked():
                await self._host.plane.checkpoint(self, id)

    def _may_checkpoint(self, id: str) -> bool:
        """Whether a checkpoint has to be stored. Raises ``ValueError`` if entries would be skipped by it."""
        handed = self._handed
        if handed is None or not handed.any or handed.covers(id) or order(id) <= order(self._position or START):
            return True
        if self._is_outdated(id):  # Redis may have lost that entry; if not, it comes again
            return False
        raise ValueError(
            f"{id} is beyond the last entry that entries() has handed out, {handed.furthest}: what lies between "
            "would be skipped; pass the id of an entry that was processed"
        )

    def progress(self) -> None:
        """Say that the work goes on, where `progress_timeout` would take its silence for standstill. Reading and
        checkpoints say so, too. May be called from any thread."""
        self._progress_at = clock.now()

    async def done(self) -> None:
        """The stream is finished: acknowledge its announcement and delete it.

        A lost reply is repeated until the lock's deadline. Cancelling the wait does not take it back: it goes
        on in the background.

        Raises:
            NotOwner: the lease is no longer ours; nothing was changed.
            RedisUnavailable: no answer until the lock lapsed; it may have been done.
            ClientClosed: the client was closed meanwhile.
        """
        with self._asked():
            await self._host.finish(self)

    async def release(self) -> None:
        """Give the stream back without finishing it: a peer may claim it at once.

        `owned` is false from the first moment. Cancelling the wait does not take it back.

        Raises:
            NotOwner: the lease was no longer ours.
            RedisUnavailable: no answer until the lock lapsed; a peer takes the stream all the same.
            ClientClosed: the client was closed meanwhile, which released the stream too.
        """
        with self._asked():
            await self._host.release(self)

    async def __aenter__(self) -> "Lease":
        self._enter()
        return self

    def _enter(self, task: "asyncio.Task[Any] | None" = None) -> CancelScope:
        if self._cancel_scope is not None:
            raise RuntimeError(
                f"the block of {self!r} was entered before; a lease is entered once, for a handler by run()"
            )
        self._cancel_scope = CancelScope(task)
        if self._lost is not None:
            raise self._not_owner()
        return self._cancel_scope

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._cancel_scope is not None
        cancelled = is_a(error, asyncio.CancelledError)
        _, cancelled_by_others = await self._cancel_scope.leave(cancelled)
        if self._cancel_scope.fired:
            if cancelled_by_others:
                raise asyncio.CancelledError
            if error is None or cancelled:
                raise self._not_owner() from error
        elif error is None:
            if self._lost not in ENDED:
                await self._finish()
        elif self._lost is None:
            await self._hand_back(cancelled=cancelled)

    async def _finish(self) -> None:
        """The block says that the stream is finished, until there is an answer: nobody is left to say it again."""
        while True:
            try:
                return await self.done()
            except RedisUnavailable:
                if self._lost is not None:
                    raise
            try:
                await asyncio.sleep(AGAIN)
            except asyncio.CancelledError:
                await self._hand_back(cancelled=True)
                raise

    async def _hand_back(self, *, cancelled: bool) -> None:
        """Release after a failure of the block, which is what the caller is to see."""
        grace = LEAVING_GRACE if cancelled else float("inf")
        try:
            with anyio.move_on_after(grace, shield=cancelled):
                await self.release()
        except RedisStreamClientError as failure:
            log.warning("could not release %s: %s", self.stream, failure, extra=self._log_fields())

    # What the host and its parts tell.

    def _begin(self, position: str | None, attempts: int, added: Added = UNKNOWN) -> None:
        """The record is ours. `added`: entries of the stream up to the position."""
        self._begun = True
        self._added = added
        self._position = position
        self._attempts = attempts

    def _recount(self, deliveries: int) -> None:
        """Redis counts this delivery otherwise now."""
        self._deliveries = deliveries
        self._fence_text = None

    def _checkpointed(self, id: str, *, advanced: bool, handed_over: int) -> None:
        """A checkpoint was accepted, which was asked for when so many entries had been handed over."""
        if handed_over == self._entries_handed_over:
            self._settled = True
        if advanced:
            self._attempts = 0
        if self._position is None or order(id) > order(self._position):
            self._position = id
            self._added = Added(self._added_up_to(id), sure=False)
        if self._handed is not None:
            self._handed.checkpointed(id)

    def _drain(self) -> None:
        """Stop at the first step of entries() after a checkpoint."""
        self._draining = True
        if self._waiting and self._settled and self._cancel_scope is not None:
            self._cancel_scope.fire("draining")

    # What entries() asks.

    @property
    def _must_pause(self) -> bool:
        return self._lost is not None or not self._host.held or (self._draining and self._settled)

    async def _pause(self) -> None:
        """No entry may be handed over now."""
        if self._lost is None and not self._host.held:
            with self._asked():
                await asyncio.sleep(IN_DOUBT)
            return
        if self._lost is None and self._cancel_scope is not None:
            if self._cancel_scope.fired_here:  # somebody took the cancellation for another one
                raise asyncio.CancelledError
            self._cancel_scope.fire("draining")
            await self.lost()
        await asyncio.sleep(0)  # a cancellation that is on its way arrives here
        raise self._not_owner()

    async def _ensure_begun(self) -> None:
        if not self._begun:
            with self._asked():
                await self._host.plane.begin(self)

    def _asked(self) -> "_Asked":
        """The holder waits for the client: whatever time that takes is not the holder's."""
        self._host.require_here()
        return _Asked(self)

    def _start_reading(self) -> int | None:
        """Entries are read from the position on. Returns how many there were up to there, if that is known."""
        if self._handed is None:
            self._handed = Handed()
        return self._added.number

    def _restarted(self, history: str) -> None:
        """The server is another one, or has lost writes: what has no checkpoint comes again."""
        if self._handed is not None:
            self._handed.restart(history)

    async def _begin_again(self) -> None:
        """Ask Redis for the checkpoint that it knows now."""
        with self._asked():
            await self._host.plane.begin(self)

    @property
    def _count(self) -> Count:
        """What is known of the stream's entries up to the position."""
        position = self._position or START
        handed = self._handed
        sure = self._added.sure if handed is None or not handed.any else handed.furthest == position
        return Count(Added(self._added.number, sure), position)

    def _added_up_to(self, id: str) -> int | None:
        """How many entries were added to the stream up to this one, if it is known."""
        return self._handed.added(id) if self._handed is not None else None

    def _is_outdated(self, id: str) -> bool:
        """Whether it was handed out before reading began again, and not since."""
        handed = self._handed
        return (
            handed is not None
            and not handed.covers(id)
            and handed.covered_before(id)
            and order(id) > order(self._position or START)
        )

    @property
    def _all_checkpointed(self) -> bool:
        """Whether all that was handed out has a checkpoint."""
        handed = self._handed
        return handed is None or not handed.any or handed.furthest == self._position

    def _skip(self, gap: Gap) -> None:
        """Entries are missing."""
        assert self._handed is not None
        if self._handed.skipped(gap):
            log.warning(
                "%d entries of %s after %s%s were trimmed or deleted before they were read",
                gap.entries,
                self.stream,
                gap.after,
                f" and before {gap.before}" if gap.before is not None else "",
                extra=self._log_fields(),
            )
            self._host.skipped(gap.entries)

    def _hand_over(self, id: str, after: str | None, added: int | None) -> None:
        """An entry goes to the user."""
        assert self._handed is not None
        self._handed.hand_over(id, after, added)
        self._settled = False
        self._entries_handed_over += 1
        self._progress_at = clock.now()

    def _start_waiting(self) -> "asyncio.Future[None]":
        """A step of entries() waits; it is woken when the lease ends, too."""
        self._waiting += 1
        self._progress_at = clock.now()
        return self._add_waiter()

    def _stop_waiting(self, waiter: "asyncio.Future[None]") -> None:
        self._waiting -= 1
        self._remove_waiter(waiter)
        self._progress_at = clock.now()

    def _add_waiter(self) -> "asyncio.Future[None]":
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters = [*(self._waiters or ()), waiter]
        return waiter

    def _remove_waiter(self, waiter: "asyncio.Future[None]") -> None:
        self._waiters = [other for other in self._waiters or () if other is not waiter] or None

    def _lose(self, reason: LossReason) -> None:
        """End the lease: state first, then whoever waits is told."""
        if self._lost is not None:
            return
        self._lost = reason
        if self._waiters or (self._cancel_scope is not None and reason not in ENDED):
            self._host.tell(self._tell_of_the_end)

    def _tell_of_the_end(self) -> None:
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        self._waiters = None
        if self._cancel_scope is not None and self._lost not in ENDED:
            self._cancel_scope.fire()

    def _not_owner(self, *, gone: bool = False, owner: str | None = None) -> NotOwner:
        reason = self._lost or "expired"
        return NotOwner(
            f"{self.stream!r} is no longer ours: {reason}",
            reason=reason,
            gone=gone,
            stream=self.stream,
            lbs_id=self.lbs_id,
            owner=owner,
            hint="this lease has ended, and is of no use any more" if reason in ENDED else None,
        )

    def _log_fields(self) -> dict[str, str]:
        return {"stream": self.stream, "lbs_id": self.lbs_id, "fence": str(self.fence)}

    def __repr__(self) -> str:
        state = self._lost or ("owned" if self.owned else "in doubt")
        return f"<Lease {self.stream!r} {self.lbs_id}/{self.deliveries} {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lease belongs to its client and cannot be pickled; pass lease.fence instead")
