"""A lease as users see it: one data stream that this client owns, under one fence."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn, get_args

import anyio

from redis_stream_client._leases.backend import Asking, LeaseBackend
from redis_stream_client._leases.entry_iterator import Entries, OnGap
from redis_stream_client._leases.state import ENDED, LeaseState
from redis_stream_client._model import leaving
from redis_stream_client._model.entry import require_id
from redis_stream_client._model.errors import LossReason, RedisStreamClientError, RedisUnavailable
from redis_stream_client._model.failures import is_a
from redis_stream_client._model.fence import Fence
from redis_stream_client._model.gaps import Gap
from redis_stream_client._model.logs import log

AGAIN = 0.05
"""Seconds after which a block or a handler says again what got no answer for a lifetime of the lock."""


class Lease:
    """A data stream that this client owns.

    Comes from `StreamAdded` or from ``client.claim()``. Two leases are never equal: a stream that was lost
    and comes back comes as a new lease, with a greater fence.

    ``async with lease:`` runs the work, once, in the task that enters: leaving normally says `done`; leaving
    by an exception or a cancellation says `release`; when the lease is lost the block is cancelled, and
    leaving it raises `NotOwner`.
    """

    __slots__ = ("_backend", "_state")

    def __init__(self, state: LeaseState, backend: LeaseBackend) -> None:
        self._state = state
        self._backend = backend

    @property
    def stream(self) -> str:
        """Name of the data stream."""
        return self._state.stream

    @property
    def lbs_id(self) -> str:
        """Id of its announcement on the load balancer stream."""
        return self._state.lbs_id

    @property
    def info(self) -> Mapping[str, Any] | None:
        """The announcement's ``Info``, decoded JSON, or None."""
        return self._state.info

    @property
    def deliveries(self) -> int:
        """How often the announcement was delivered: 1 for its first owner, one more for each later one."""
        return self._state.deliveries

    @property
    def fence(self) -> Fence:
        """Greater than the fence of every earlier owner of this stream's announcement, and equal to nobody else's.

        Guard what you write elsewhere with it: store it, and refuse a write whose fence is smaller than the stored
        one. It may grow while the lease is owned, when Redis turns out to have lost writes in a fail-over; ask for
        it each time.
        """
        return self._state.fence

    @property
    def attempts(self) -> int:
        """How many owners began, this one included, since the checkpoint last advanced or one of them ended in
        good order; 0 after a checkpoint of this one, and in `run()` when it has waited for an entry for a while,
        with nothing left to do. Known in `run()`, and as soon as ``entries()`` was asked for
        its first entry; before, a guess."""
        return self._state.attempts

    @property
    def position(self) -> str | None:
        """Id of the last entry that a checkpoint says is processed; None if there is none, or if it is not known
        yet. Known in `run()`, and as soon as ``entries()`` was asked for its first entry."""
        return self._state.position

    @property
    def owned(self) -> bool:
        """Whether this client may still work on the stream, computed from the local clock: false the moment
        the lock's local deadline passes. May be asked from any thread."""
        return self._state.lost is None and self._backend.held

    async def lost(self) -> LossReason:
        """Wait until the lease is no longer owned, and return why. Cancelling the wait changes nothing."""
        return await self._state.wait_for_the_end()

    # The data stream.

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Entries that were trimmed or deleted before they were read, as far as ``entries()`` has come, and as far
        as the server can tell. Redis 6.2 cannot."""
        return self._state.gaps

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
        return Entries(self._state, self._backend, on_gap)

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
        state = self._state
        state.progress()
        if state.lost is not None:
            raise state.not_owner()
        if state.may_checkpoint(id):
            with Asking(state, self._backend):
                await self._backend.plane.checkpoint(state, id)

    def progress(self) -> None:
        """Say that the work goes on, where `progress_timeout` would take its silence for standstill. Reading and
        checkpoints say so, too. May be called from any thread."""
        self._state.progress()

    async def done(self) -> None:
        """The stream is finished: acknowledge its announcement and delete it.

        A lost reply is repeated until the lock's deadline. Cancelling the wait does not take it back: it goes
        on in the background.

        Raises:
            NotOwner: the lease is no longer ours; nothing was changed.
            RedisUnavailable: no answer until the lock lapsed; it may have been done.
            ClientClosed: the client was closed meanwhile.
        """
        with Asking(self._state, self._backend):
            await self._backend.finish(self._state)

    async def release(self) -> None:
        """Give the stream back without finishing it: a peer may claim it at once.

        `owned` is false from the first moment. Cancelling the wait does not take it back.

        Raises:
            NotOwner: the lease was no longer ours.
            RedisUnavailable: no answer until the lock lapsed; a peer takes the stream all the same.
            ClientClosed: the client was closed meanwhile, which released the stream too.
        """
        with Asking(self._state, self._backend):
            await self._backend.release(self._state)

    async def __aenter__(self) -> "Lease":
        self._state.enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        state = self._state
        scope = state.cancel_scope
        assert scope is not None
        cancelled = is_a(error, asyncio.CancelledError)
        _, cancelled_by_others = await scope.leave(cancelled)
        if scope.fired:
            if cancelled_by_others:
                raise asyncio.CancelledError
            if error is None or cancelled:
                raise state.not_owner() from error
        elif error is None:
            if state.lost not in ENDED:
                await self._finish()
        elif state.lost is None:
            await self._hand_back(cancelled=cancelled)

    async def _finish(self) -> None:
        """The block says that the stream is finished, until there is an answer: nobody is left to say it again."""
        while True:
            try:
                return await self.done()
            except RedisUnavailable:
                if self._state.lost is not None:
                    raise
            try:
                await asyncio.sleep(AGAIN)
            except asyncio.CancelledError:
                await self._hand_back(cancelled=True)
                raise

    async def _hand_back(self, *, cancelled: bool) -> None:
        """Release after a failure of the block, which is what the caller is to see."""
        grace = leaving.GRACE if cancelled else float("inf")
        try:
            with anyio.move_on_after(grace, shield=cancelled):
                await self.release()
        except RedisStreamClientError as failure:
            log.warning("could not release %s: %s", self.stream, failure, extra=self._state.log_fields())

    def __repr__(self) -> str:
        state = self._state.lost or ("owned" if self.owned else "in doubt")
        return f"<Lease {self.stream!r} {self.lbs_id}/{self.deliveries} {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lease belongs to its client and cannot be pickled; pass lease.fence instead")


def lease_of(state: LeaseState) -> Lease:
    """The user's lease of a state: one and the same object, as long as the lease is held."""
    assert isinstance(state.face, Lease)
    return state.face
