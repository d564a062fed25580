"""What a lease needs of whoever it belongs to: a client, or, in users' tests, a backend in memory."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from redis_stream_client._leases.entry_iterator import Source

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from redis_stream_client._leases.lease import Lease


class Plane(Protocol):
    """The record of a lease's progress, and its data stream."""

    async def begin(self, lease: "Lease", *, look_only: bool = False) -> None:
        """Become the owner of the record, or, with `look_only`, only if there is one already."""
        ...

    async def checkpoint(self, lease: "Lease", id: str) -> None:
        """Advance the record."""
        ...

    async def acquit(self, leases: "Sequence[Lease]") -> None:
        """The attempts of these owners do not count."""
        ...

    async def answered(self, lease: "Lease") -> None:
        """Wait for what callers who are gone have asked, and has not been answered yet."""
        ...

    def follow(self, lease: "Lease") -> Source:
        """The stream's entries after the checkpoint."""
        ...


class Host(Protocol):
    """What a lease needs of the client that owns it."""

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
    def plane(self) -> Plane:
        """Its data plane."""
        ...

    async def answered(self, lease: "Lease") -> None:
        """Wait for what callers who are gone have said about a lease, and has not been answered yet."""
        ...

    def finish(self, lease: "Lease") -> Awaitable[None]:
        """Acknowledge and delete the announcement."""
        ...

    async def release(self, lease: "Lease", *, failed_for: float | None = None) -> None:
        """Hand the stream to the peers.

        `failed_for`: this is no graceful end, the attempt counts, and this client leaves the stream alone for so
        many seconds.
        """
        ...

    def start_release(self, lease: "Lease", *, failed_for: float | None = None) -> "asyncio.Future[None]":
        """`release`, without waiting for it: the lease ends at once."""
        ...

    async def bury(self, lease: "Lease", reason: str) -> None:
        """Move the announcement to the dead letters."""
        ...

    def skipped(self, entries: int) -> None:
        """So many entries of a data stream are missing."""
        ...

    def tell(self, tell: Callable[[], None]) -> None:
        """Tell who waits for a lease, or works on it, that it has ended: now, or when others have been told."""
        ...

    def keep_place(self, by: int) -> None:
        """One handler more (1) or less (-1) goes on without its lease, and takes up its place."""
        ...
