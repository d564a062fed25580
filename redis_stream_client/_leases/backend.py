"""What a lease needs of whoever it belongs to: a client, or, in users' tests, a backend in memory."""

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Protocol

from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.entry import Entry
from redis_stream_client._model.gaps import Gap

if TYPE_CHECKING:
    import asyncio


class Source(Protocol):
    """Where entries come from."""

    careful: bool
    """Whether a gap must be known before an entry behind it is taken."""

    @property
    def stale(self) -> bool:
        """Whether the server may have lost writes: what was read is to be forgotten."""
        ...

    def take(self) -> list[Entry | Gap]:
        """The entries that have arrived, in order, and where some are missing."""
        ...

    def want(self, waiter: "asyncio.Future[None]") -> None:
        """Have `waiter` resolved when there is something to take, or fail with what went wrong for good."""
        ...

    def close(self) -> None:
        """Read no more."""
        ...


class DataPlane(Protocol):
    """The record of a lease's progress, and its data stream."""

    async def begin(self, lease: LeaseState, *, look_only: bool = False) -> None:
        """Become the owner of the record, or, with `look_only`, only if there is one already."""
        ...

    async def checkpoint(self, lease: LeaseState, id: str) -> None:
        """Advance the record."""
        ...

    async def acquit(self, leases: Sequence[LeaseState]) -> None:
        """The attempts of these owners do not count."""
        ...

    async def answered(self, lease: LeaseState) -> None:
        """Wait for what callers who are gone have asked, and has not been answered yet."""
        ...

    def follow(self, lease: LeaseState) -> Source:
        """The stream's entries after the checkpoint."""
        ...


class LeaseBackend(Protocol):
    """Who a lease belongs to, and what is done with it there."""

    @property
    def held(self) -> bool:
        """Whether the consumer lock is held, by the local clock."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it has left: every lease is lost."""
        ...

    def require_here(self) -> None:
        """Raise ``RuntimeError`` in a forked child, and on another event loop."""
        ...

    @property
    def plane(self) -> DataPlane:
        """Its data plane."""
        ...

    async def answered(self, lease: LeaseState) -> None:
        """Wait for what callers who are gone have said about a lease, and has not been answered yet."""
        ...

    def finish(self, lease: LeaseState) -> Awaitable[None]:
        """Acknowledge and delete the announcement."""
        ...

    async def release(self, lease: LeaseState, *, failed_for: float | None = None) -> None:
        """Hand the stream to the peers.

        `failed_for`: this is no graceful end, the attempt counts, and this client leaves the stream alone for so
        many seconds.
        """
        ...

    def start_release(self, lease: LeaseState, *, failed_for: float | None = None) -> "asyncio.Future[None]":
        """`release`, without waiting for it: the lease ends at once."""
        ...

    async def bury(self, lease: LeaseState, reason: str) -> None:
        """Move the announcement to the dead letters."""
        ...

    def skipped(self, entries: int) -> None:
        """So many entries of a data stream are missing."""
        ...

    def keep_place(self, by: int) -> None:
        """One handler more (1) or less (-1) goes on without its lease, and takes up its place."""
        ...


class Asking:
    """A block in which the holder of a lease waits for its backend: whatever time that takes is not the holder's.

    Raises ``RuntimeError`` where the backend may not be asked.
    """

    __slots__ = ("_lease",)

    def __init__(self, lease: LeaseState, backend: LeaseBackend) -> None:
        backend.require_here()
        self._lease = lease

    def __enter__(self) -> None:
        self._lease.start_asking()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._lease.stop_asking(error)
