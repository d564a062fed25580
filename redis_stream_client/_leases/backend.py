"""What a lease needs from its backend: a client, or, in the tests of users, a backend in memory."""

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Protocol

from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.entry import Entry
from redis_stream_client._model.gaps import Gap
from redis_stream_client._model.letter_details import LetterDetails
from redis_stream_client._model.logs import Log

if TYPE_CHECKING:
    import asyncio


class Source(Protocol):
    """Where ``entries()`` gets its entries from."""

    careful: bool
    """Whether to look for a gap before any entry behind it is handed out."""

    @property
    def stale(self) -> bool:
        """Whether the server may have lost writes, so that reading must begin again at the checkpoint."""
        ...

    @property
    def ready(self) -> bool:
        """Whether there is something to take."""
        ...

    @property
    def caught_up(self) -> bool:
        """Whether everything was read and taken, as far as is known."""
        ...

    def take(self) -> list[Entry | Gap]:
        """The entries that have arrived, in order, with a `Gap` where some are missing."""
        ...

    def want(self, waiter: "asyncio.Future[None]") -> None:
        """Resolve `waiter` when there is something to take. It fails if Redis refuses for good."""
        ...

    def close(self) -> None:
        """Stop reading."""
        ...


class DataPlane(Protocol):
    """The progress record and the data stream of a lease."""

    async def begin(
        self,
        lease: LeaseState,
        *,
        look_only: bool = False,
        most_deaths: int | None = None,
        trial: bool = False,
    ) -> None:
        """Take over the progress record. With `look_only`, do not create one. With `most_deaths`, do not take it
        over if more of its owners have died: the lease is suspected then. With `trial`, the record says so if this
        owner dies."""
        ...

    async def checkpoint(self, lease: LeaseState, id: str) -> None:
        """Store a checkpoint in the progress record."""
        ...

    async def acquit(self, leases: Sequence[LeaseState]) -> None:
        """These owners have nothing left to do: their attempts and earlier failures do not count."""
        ...

    async def fail(self, lease: LeaseState, error: str) -> None:
        """Have the record say that the handler has failed. The lease ends next."""
        ...

    async def answered(self, lease: LeaseState) -> None:
        """Wait for the replies to requests whose callers were cancelled."""
        ...

    def follow(self, lease: LeaseState) -> Source:
        """The stream's entries after the checkpoint."""
        ...


class LeaseBackend(Protocol):
    """The owner of a lease, as far as the lease needs it."""

    @property
    def log(self) -> Log:
        """The log of the consumer."""
        ...

    @property
    def observation(self) -> Observation | None:
        """Is told of handlers; None: nobody observes them."""
        ...

    @property
    def held(self) -> bool:
        """Whether the consumer lock is held, by the local clock."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the client has left, so that every lease is lost."""
        ...

    def require_here(self) -> None:
        """Raise ``RuntimeError`` in a forked child, and on another event loop."""
        ...

    @property
    def plane(self) -> DataPlane:
        """The data plane of this backend."""
        ...

    async def answered(self, lease: LeaseState) -> None:
        """Wait for the replies to requests about this lease whose callers were cancelled."""
        ...

    def finish(self, lease: LeaseState) -> Awaitable[None]:
        """Acknowledge and delete the announcement."""
        ...

    async def put_to_sleep(self, lease: LeaseState) -> bool:
        """Acknowledge and delete the announcement, unless the data stream has an entry after the checkpoint.
        Returns whether the lease has ended. If the caller is cancelled, it goes on."""
        ...

    async def release(
        self, lease: LeaseState, *, pause: float | None = None, graceful: bool = True, untried: bool = False
    ) -> None:
        """Hand the stream to the peers.

        Args:
            lease: ends at once.
            pause: seconds for which this client leaves the stream to its peers; by default a lifetime of its lock.
            graceful: its attempt does not count, nor do the deaths of owners before it.
            untried: where it is graceful, those deaths still count.
        """
        ...

    def start_release(
        self, lease: LeaseState, *, pause: float | None = None, graceful: bool = True, untried: bool = False
    ) -> "asyncio.Future[None]":
        """Start a `release`. The lease ends at once."""
        ...

    async def bury(self, lease: LeaseState, reason: str, details: LetterDetails) -> None:
        """Move the announcement to the dead letters."""
        ...

    def skipped(self, entries: int) -> None:
        """Count `entries` that are missing from a data stream."""
        ...

    def keep_place(self, by: int) -> None:
        """One handler more (1) or less (-1) goes on without its lease; it still takes up room."""
        ...


class Asking:
    """A block in which the holder of a lease waits for its backend. `progress_timeout` does not count this time.

    Raises ``RuntimeError`` in a forked child, and on another event loop.
    """

    __slots__ = ("_lease",)

    def __init__(self, lease: LeaseState, backend: LeaseBackend) -> None:
        backend.require_here()
        self._lease = lease

    def __enter__(self) -> None:
        self._lease.start_asking()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._lease.stop_asking(error)
