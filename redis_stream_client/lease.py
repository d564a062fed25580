"""A lease: one data stream that this client owns, under one fence."""

import asyncio
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn, Protocol

import anyio

from redis_stream_client.announcement import Announcement
from redis_stream_client.errors import LossReason, NotOwner, RedisStreamClientError
from redis_stream_client.fence import Fence

log = logging.getLogger("redis_stream_client")

LEAVING_GRACE = 0.5
"""Seconds that leaving a block by cancellation, or leaving the client, may wait for Redis."""


class Host(Protocol):
    """What a lease needs of the client that owns it."""

    @property
    def held(self) -> bool:
        """Whether the consumer lock is held, by the local clock."""
        ...

    async def finish(self, lease: "Lease") -> None:
        """Acknowledge and delete the announcement."""
        ...

    async def release(self, lease: "Lease") -> None:
        """Hand the stream to the peers."""
        ...


class _Guard:
    """The task that runs a lease's block, and how it is told that the lease was lost."""

    __slots__ = ("_baseline", "_fired", "_left", "_task")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "what is awaited runs in a task"
        self._task = task
        self._baseline = task.cancelling()
        self._fired = False
        self._left = False

    def fire(self) -> None:
        """Cancel the block, once."""
        if not self._left and not self._fired:
            self._fired = True
            self._task.cancel("the lease was lost")

    async def leave(self, cancelled: bool) -> tuple[bool, bool]:
        """End the block, which `cancelled` says was cancelled by whomever.

        Returns whether `fire` cancelled it, and whether a cancellation by others must go on its way.
        """
        self._left = True
        if not self._fired:
            return False, cancelled
        try:  # a cancellation that is asked for but not delivered yet must not escape the block
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            cancelled = True
        by_others = self._task.uncancel() > self._baseline
        return True, cancelled and by_others


class Lease:
    """A data stream that this client owns.

    Comes from `StreamAdded` or from ``client.claim()``. Two leases are never equal: a stream that was lost
    and comes back comes as a new lease, with a greater fence.

    ``async with lease:`` runs the work, once, in the task that enters: leaving normally says `done`; leaving
    by an exception or a cancellation says `release`; when the lease is lost the block is cancelled, and
    leaving it raises `NotOwner`.
    """

    __slots__ = (
        "_announcement",
        "_deliveries",
        "_done_sent",
        "_guard",
        "_handed_out",
        "_host",
        "_lbs_id",
        "_lost",
        "_waiters",
    )

    def __init__(self, host: Host, lbs_id: str, announcement: Announcement, deliveries: int) -> None:
        self._host = host
        self._lbs_id = lbs_id
        self._announcement = announcement
        self._deliveries = deliveries
        self._lost: LossReason | None = None
        self._handed_out = False
        self._guard: _Guard | None = None
        self._waiters: list[asyncio.Future[LossReason]] | None = None
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
        """Greater than the fence of every earlier owner of this stream's announcement."""
        return Fence.of(self._lbs_id, self._deliveries)

    @property
    def owned(self) -> bool:
        """Whether this client may still work on the stream, computed from the local clock: false the moment
        the lock's local deadline passes. May be asked from any thread."""
        return self._lost is None and self._host.held

    async def lost(self) -> LossReason:
        """Wait until the lease is no longer owned, and return why. Cancelling the wait changes nothing."""
        if self._lost is not None:
            return self._lost
        waiter: asyncio.Future[LossReason] = asyncio.get_running_loop().create_future()
        self._waiters = [*(self._waiters or ()), waiter]
        try:
            return await waiter
        finally:
            self._waiters = [other for other in self._waiters or () if other is not waiter] or None

    async def done(self) -> None:
        """The stream is finished: acknowledge its announcement and delete it.

        A lost reply is repeated until the lock's deadline. Cancelling the wait does not take it back: it goes
        on in the background.

        Raises:
            NotOwner: the lease is no longer ours; nothing was changed.
            RedisUnavailable: no answer until the lock lapsed; it may have been done.
            ClientClosed: the client was closed meanwhile.
        """
        await self._host.finish(self)

    async def release(self) -> None:
        """Give the stream back without finishing it: a peer may claim it at once.

        `owned` is false from the first moment. Cancelling the wait does not take it back.

        Raises:
            NotOwner: the lease was no longer ours.
            RedisUnavailable: no answer until the lock lapsed; a peer takes the stream all the same.
            ClientClosed: the client was closed meanwhile, which released the stream too.
        """
        await self._host.release(self)

    async def __aenter__(self) -> "Lease":
        if self._guard is not None:
            raise RuntimeError(f"the block of {self!r} was entered before; a lease is entered once")
        self._guard = _Guard()
        if self._lost is not None:
            raise self._not_owner()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._guard is not None
        cancelled = isinstance(error, asyncio.CancelledError)
        lost, cancelled_by_others = await self._guard.leave(cancelled)
        if lost:
            if cancelled_by_others:
                raise asyncio.CancelledError
            if error is None or cancelled:
                raise self._not_owner() from error
        elif error is None:
            if self._lost not in ("done", "released"):
                await self.done()
        elif self._lost is None:
            await self._hand_back(cancelled)

    async def _hand_back(self, cancelled: bool) -> None:
        """Release after a failure of the block, which is what the caller is to see."""
        grace = LEAVING_GRACE if cancelled else float("inf")
        try:
            with anyio.move_on_after(grace, shield=cancelled):
                await self.release()
        except RedisStreamClientError as failure:
            log.warning("could not release %s: %s", self.stream, failure, extra=self._log_fields())

    def _lose(self, reason: LossReason) -> None:
        """End the lease: state first, then whoever waits is told."""
        if self._lost is not None:
            return
        self._lost = reason
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(reason)
        self._waiters = None
        if self._guard is not None and reason not in ("done", "released"):
            self._guard.fire()

    def _not_owner(self, *, gone: bool = False, owner: str | None = None) -> NotOwner:
        reason = self._lost or "expired"
        return NotOwner(
            f"{self.stream!r} is no longer ours: {reason}",
            reason=reason,
            gone=gone,
            stream=self.stream,
            lbs_id=self.lbs_id,
            owner=owner,
        )

    def _log_fields(self) -> dict[str, str]:
        return {"stream": self.stream, "lbs_id": self.lbs_id, "fence": str(self.fence)}

    def __repr__(self) -> str:
        state = self._lost or ("owned" if self.owned else "in doubt")
        return f"<Lease {self.stream!r} {self.lbs_id}/{self.deliveries} {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lease belongs to its client and cannot be pickled; pass lease.fence instead")
