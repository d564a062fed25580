"""A lease as users see it: one data stream that this client owns, under one fence."""

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NoReturn, TypeVar, get_args

import anyio

from redis_stream_client._leases.backend import Asking, LeaseBackend
from redis_stream_client._leases.entry_iterator import Batches, Entries, OnGap
from redis_stream_client._leases.state import ENDED, LeaseState
from redis_stream_client._model import leaving, options
from redis_stream_client._model.entry import require_id
from redis_stream_client._model.errors import LossReason, RedisStreamClientError, RedisUnavailable
from redis_stream_client._model.failures import is_a
from redis_stream_client._model.fence import Fence
from redis_stream_client._model.gaps import Gap
from redis_stream_client._model.poison import PoisonError

T = TypeVar("T")

AGAIN = 0.05
"""Seconds after which a block or a handler says again what got no answer for a lifetime of the lock."""


class Lease:
    """A data stream that this client owns.

    You get it from `StreamAdded`, from ``client.claim()``, or as the argument of a handler. The next owner of the
    stream, even this client, gets a new lease with a greater fence.

    Do the work in ``async with lease:``, once. Leaving the block normally calls `done`. Leaving it by an exception
    or a cancellation calls `release`. When the lease is lost, the block is cancelled, and leaving it raises
    `NotOwner`. In a handler of `run()` the lease is entered already.
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
        """The ``Info`` of the announcement, decoded JSON, or None."""
        return self._state.info

    def decode_info(self, decoder: Callable[[Any], T]) -> T:
        """Have `info` decoded, such as by pydantic's ``TypeAdapter(Model).validate_python``.

        Args:
            decoder: any callable. It gets `info` as it is, and None if nothing was announced.

        Returns:
            What the decoder returns.

        Raises:
            PoisonError: the decoder raised an exception, which is the ``__cause__``. In a handler of `run()` it
                sends the stream to the dead letters.
        """
        try:
            return decoder(self.info)
        except Exception as error:
            raise PoisonError(f"the info of {self.stream!r} cannot be decoded") from error

    @property
    def deliveries(self) -> int:
        """The delivery count of the announcement: 1 for its first owner, and one more for each later owner."""
        return self._state.deliveries

    @property
    def fence(self) -> Fence:
        """The fence of this lease: greater than that of every earlier owner, and equal to no other.

        Use it to guard what you write elsewhere: store it with each write, and refuse a write whose fence is
        smaller than the stored one. The fence can grow while you own the lease, if Redis has lost writes in a
        failover. So read this property for each write, and do not keep its value.
        """
        return self._state.fence

    @property
    def attempts(self) -> int:
        """How many owners have tried, this one included, since the checkpoint last advanced: those whose handlers
        failed, and those that began and died. Owners that ended cleanly do not count.

        It is 0 after a checkpoint of this owner; in `run()` also after the handler has waited for an entry for a
        while, with all entries processed. Until `run()` or the first step of ``entries()`` has read the progress
        record, it is a guess.
        """
        return self._state.tries

    @property
    def position(self) -> str | None:
        """The last checkpoint: the id of the last processed entry. None if there is none, or if `run()` or the
        first step of ``entries()`` has not read the progress record yet."""
        return self._state.position

    @property
    def owned(self) -> bool:
        """Whether this client may still work on the stream. Computed from the local clock: false from the moment
        at which the lock may have expired, or at which peers may have taken this client for dead. Then it becomes
        true again if Redis answers that nobody did. You may read it from any thread: let work that it stops end
        with an exception, since a normal end says done."""
        return self._state.lost is None and self._backend.held

    async def lost(self) -> LossReason:
        """Wait until the lease has ended, and return the reason. Cancelling the wait changes nothing."""
        return await self._state.wait_for_the_end()

    # The data stream.

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The gaps that ``entries()`` has found so far: entries that were trimmed or deleted before they were
        read. Redis 6.2 does not count entries, so nothing is found there."""
        return self._state.gaps

    def entries(self, *, on_gap: OnGap = "warn", idle: float | None = None) -> Entries:
        """The entries of the data stream, for ``async for``. Starts after the last checkpoint and follows the
        stream.

        The loop never ends by itself without `idle`: leave it at your own end marker. When the lease is lost, or
        the client drains or closes, the next step is cancelled; it never ends the loop normally. While the lock is
        in doubt, or Redis does not answer, a step waits. If you cancel a step, no entry is lost. Each call of
        ``entries()`` starts anew after the last checkpoint.

        Each entry comes at least once. The next owner gets the entries without a checkpoint again. So do you after
        a restart or failover of Redis, which may have lost writes: reading goes on after the checkpoint that Redis
        has.

        Args:
            on_gap: what to do if entries were trimmed or deleted before they were read. ``"warn"``: log it once,
                and go on; it can take a second until the gap is found. ``"raise"``: raise `EntriesTrimmed` before
                the first entry behind the gap; the next step returns that entry. This costs a look at the stream
                before each read.
            idle: seconds after which the loop ends by itself, if nothing comes, and the stream can be put to
                sleep: see `done_if_idle`. When the loop has ended, the stream sleeps already, and the lease is
                done; the next entry wakes it, on any member. The time passes while a step waits and every entry
                that you got has a checkpoint; with an entry without one the loop goes on. It starts anew with each
                entry, and when the lock was in doubt or Redis did not answer. It is at least 0.05 s. None: the
                loop never ends by itself.

        Raises:
            NotOwner: at a step of the loop: the lease was lost.
            EntriesTrimmed: there is a gap, with ``on_gap="raise"``.
            RedisUnavailable: no answer about the checkpoint until the lock lapsed.
            RedisRejected: the key of the data stream holds another type, or reading it is not permitted.
        """
        return Entries(self._state, self._backend, _require_on_gap(on_gap), _require_idle(idle))

    def batches(
        self,
        *,
        max_entries: int = 100,
        within: float = 0.05,
        on_gap: OnGap = "warn",
        idle: float | None = None,
    ) -> Batches:
        """The entries of the data stream in batches, for ``async for``: each a list, never empty.

        One ``checkpoint(batch[-1].id)`` covers the whole batch, so an entry costs a small part of what it costs
        with ``entries()`` and a checkpoint for each. Everything else is as for ``entries()``: the loop starts
        after the last checkpoint and never ends by itself without `idle`. When the lease is lost, or the client
        drains or closes, the next step is cancelled; a drain waits until the last entry of your batch has a
        checkpoint. While the lock is in doubt, or Redis does not answer, a step waits. If you cancel a step, no
        entry is lost: the next step returns what it had collected.

        Args:
            max_entries: how many entries a batch has at most.
            within: seconds that a batch waits for more entries after its first one has arrived; 0: return what is
                there. A full batch never waits. In this time the entries count neither as handed out nor as
                processed.
            on_gap: what to do if entries were trimmed or deleted before they were read. ``"warn"``: log it once,
                and go on. ``"raise"``: a batch ends before the gap, the next step raises `EntriesTrimmed`, and the
                one after that returns what is behind the gap.
            idle: as for ``entries()``. While a batch is collected, it does not pass.

        Raises:
            TypeError, ValueError: an argument is not allowed.
            NotOwner, EntriesTrimmed, RedisUnavailable, RedisRejected: at a step of the loop, as for ``entries()``.
        """
        most = options.count(max_entries, "max_entries")
        within = options.seconds(within, "within", at_least=0.0)
        return Batches(self._state, self._backend, most, within, _require_on_gap(on_gap), _require_idle(idle))

    async def checkpoint(self, id: str) -> None:
        """Store that all entries up to this one are processed: the next owner continues after it.

        An id that is not greater than the last checkpoint changes nothing. Neither does the id of an entry that
        you got before a restart or failover of Redis: that entry comes again. If a reply is lost, the client
        repeats the request until its lock lapses. If the wait is cancelled, the request goes on in the background;
        if Redis accepts it, it counts for `position` and `attempts`.

        Args:
            id: the id of an entry, ``entry.id``.

        Raises:
            TypeError, ValueError: it is not an id, or it is beyond the last entry that ``entries()`` or
                ``batches()`` has returned.
                If you read the stream in another way, you may pass any id.
            NotOwner: a newer owner has begun, or the lease was lost; nothing was stored.
            RedisUnavailable: no answer until the lock lapsed; the checkpoint may be stored, and you can safely
                repeat the call.
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
        """Tell `run()` that the handler still makes progress, so that `progress_timeout` starts anew. Reading an
        entry and storing a checkpoint do the same. You may call it from any thread."""
        self._state.progress()

    def pin(self, pinned: bool = True) -> None:
        """Keep this stream when `run()` evens out the load: it is not given to a peer that has fewer, even if it
        was about to be. A drain, a crash or an error hands it over all the same.

        Args:
            pinned: False: the stream may be given away again.
        """
        self._state.pinned = bool(pinned)

    async def done(self) -> None:
        """Finish the stream: acknowledge its announcement and delete it.

        If a reply is lost, the client repeats the request until its lock lapses. If the wait is cancelled, the
        request goes on in the background.

        Raises:
            NotOwner: the lease was lost, and nothing was changed.
            RedisUnavailable: no answer until the lock lapsed; the stream may be finished.
            ClientClosed: the client was closed meanwhile.
        """
        with Asking(self._state, self._backend):
            await self._backend.finish(self._state)

    async def done_if_idle(self) -> bool:
        """Finish the stream unless there is something to read: put it to sleep.

        It is `done` if the data stream has no entry after the stored checkpoint, and you got none without a
        checkpoint. An entry that a producer adds later wakes the stream: `LoadBalancerStream.write` announces it
        again, and so does `LoadBalancerStream.add` after an ``XADD``. The next owner continues after the
        checkpoint.

        If a reply is lost, the client repeats the request until its lock lapses. If the wait is cancelled, the
        attempt goes on in the background; another call waits for it. Whatever breaks off between two steps, no
        entry stays unread: at worst the stream is announced once more than necessary.

        Returns:
            Whether the stream sleeps. True: the lease has ended, and is done; perhaps in favour of a newer
            announcement, whose owner reads on. False: the lease goes on, because there is something to read, or an
            entry has no checkpoint.

        Raises:
            NotOwner: the lease was lost, and nothing was changed.
            RedisUnavailable: no answer until the lock lapsed; the stream may be finished. You can safely repeat
                the call.
            RedisRejected: the key of the data stream holds another type, or Redis does not permit it.
            ClientClosed: the client was closed meanwhile.
        """
        if self._state.lost is None and not self._state.processed:
            return False
        with Asking(self._state, self._backend):
            return await self._backend.put_to_sleep(self._state)

    async def release(self) -> None:
        """Give the stream back without finishing it, so that a peer can claim it at once.

        `owned` is false as soon as you call it. If the wait is cancelled, the request goes on in the background.

        Raises:
            NotOwner: the lease was lost already.
            RedisUnavailable: no answer until the lock lapsed; a peer takes over the stream all the same.
            ClientClosed: the client was closed meanwhile, which released the stream, too.
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
        """Call `done` until there is an answer. The block is over, so nobody else would repeat it."""
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
        """Release after the block failed. Raises nothing: the caller must see the failure of the block."""
        grace = leaving.GRACE if cancelled else float("inf")
        try:
            with anyio.move_on_after(grace, shield=cancelled):
                await self.release()
        except RedisStreamClientError as failure:
            self._backend.log.warning("could not release %s: %s", self.stream, failure, about=self._state)

    def __repr__(self) -> str:
        state = self._state.lost or ("owned" if self.owned else "in doubt")
        return f"<Lease {self.stream!r} {self.lbs_id}/{self.deliveries} {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lease belongs to its client and cannot be pickled; pass lease.fence instead")


def _require_on_gap(on_gap: OnGap) -> OnGap:
    if on_gap not in get_args(OnGap):
        raise ValueError(f"on_gap must be one of {', '.join(get_args(OnGap))}, not {on_gap!r}")
    return on_gap


def _require_idle(idle: float | None) -> float | None:
    return options.seconds(idle, "idle", at_least=0.0, at_most=options.YEAR) if idle is not None else None


def lease_of(state: LeaseState) -> Lease:
    """The lease that users hold of this state: always the same object, as long as the lease is held."""
    assert isinstance(state.face, Lease)
    return state.face
