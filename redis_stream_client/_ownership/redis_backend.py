"""The Redis backend: what every `Lease` of a client calls."""

from typing import TYPE_CHECKING

from redis_stream_client._concurrency.home import Home
from redis_stream_client._concurrency.owned_tasks import OwnedTasks
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.errors import ClientClosed
from redis_stream_client._model.letter_details import LetterDetails
from redis_stream_client._model.logs import Log
from redis_stream_client._model.statistics import Counters
from redis_stream_client._ownership.checkpoints import Progress
from redis_stream_client._ownership.endings import Endings
from redis_stream_client._ownership.sleeping import Sleeping

if TYPE_CHECKING:
    import asyncio


class RedisBackend:
    """The `LeaseBackend` of one client. It passes each call to the part that does the work."""

    def __init__(
        self,
        *,
        log: Log,
        lock_state: LockState,
        capacity: Capacity,
        home: Home,
        tasks: OwnedTasks[ClientClosed],
        counters: Counters,
        progress: Progress,
        endings: Endings,
        sleeping: Sleeping,
        observation: Observation | None = None,
    ) -> None:
        self.log = log
        self._lock_state = lock_state
        self._capacity = capacity
        self._home = home
        self._tasks = tasks
        self._counters = counters
        self._endings = endings
        self._sleeping = sleeping
        self.plane = progress
        self.observation = observation

    @property
    def held(self) -> bool:
        """Whether the consumer lock is held, by the local clock."""
        return self._lock_state.held

    @property
    def closed(self) -> bool:
        """Whether the client has left or is leaving, so that it holds no lease any more."""
        return self._tasks.ended

    def require_here(self) -> None:
        """See `LeaseBackend.require_here`."""
        self._home.require_here()

    async def answered(self, lease: LeaseState) -> None:
        """Wait for the operations on this lease whose callers were cancelled."""
        await self.plane.answered(lease)
        await self._sleeping.answered(lease)
        await self._endings.answered(lease)

    def finish(self, lease: LeaseState) -> "asyncio.Future[None]":
        """See `Endings.finish`."""
        return self._endings.finish(lease)

    async def put_to_sleep(self, lease: LeaseState) -> bool:
        """See `Sleeping.put_to_sleep`."""
        return await self._sleeping.put_to_sleep(lease)

    async def release(
        self, lease: LeaseState, *, pause: float | None = None, graceful: bool = True, untried: bool = False
    ) -> None:
        """See `Endings.release`."""
        await self._endings.release(lease, pause=pause, graceful=graceful, untried=untried)

    def start_release(
        self, lease: LeaseState, *, pause: float | None = None, graceful: bool = True, untried: bool = False
    ) -> "asyncio.Future[None]":
        """See `Endings.start_release`."""
        return self._endings.start_release(lease, pause=pause, graceful=graceful, untried=untried)

    async def bury(self, lease: LeaseState, reason: str, details: LetterDetails) -> None:
        """See `Endings.bury`."""
        await self._endings.bury(lease, reason, details)

    def skipped(self, entries: int) -> None:
        """Count `entries` that are missing from a data stream."""
        self._counters.gaps += 1
        self._counters.entries_skipped += entries

    def keep_place(self, by: int) -> None:
        """See `Capacity.keep_place`."""
        self._capacity.keep_place(by)
