"""What the parts of one joined client share."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.table import LeaseTable, SharedLock
from redis_stream_client._model.errors import ClientClosed
from redis_stream_client._model.options import Options
from redis_stream_client._model.statistics import Counters
from redis_stream_client._protocol.operations import Operations
from redis_stream_client._redis.outage import OutageLog
from redis_stream_client._redis.server import ServerIdentity


class Waiting:
    """Since when the oldest announcement waits that nobody has read, as far as this client knows.

    A census asks Redis; a read that finds nothing knows that none waits.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def seen(self, age: float | None, now: float) -> None:
        """The oldest one has waited for `age` seconds; None: none waits."""
        self._since = None if age is None else now - age

    def age(self, now: float) -> float | None:
        """Seconds that the oldest one has waited; None: none waits, as far as is known."""
        return None if self._since is None else now - self._since


class Supervisor(Protocol):
    """Who owns the tasks, and hears what the parts have to tell each other."""

    @property
    def leaving(self) -> bool:
        """Whether the end has begun."""
        ...

    def require_here(self) -> None:
        """Raise ``RuntimeError`` in a forked child, and on another event loop than the one it joined on."""
        ...

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run I/O that a user waits for, in a task that is not the user's. Raises `ClientClosed`."""
        ...

    def gone(self) -> ClientClosed:
        """The error of every call after the end."""
        ...

    def request_audit(self) -> None:
        """Something may have happened that never reached us."""
        ...

    def room_changed(self) -> None:
        """A stream was taken from the inbox, or ended."""
        ...


@dataclass(frozen=True, slots=True)
class Membership:
    """One client's membership of the fleet: its settings, its state, and its way to Redis."""

    options: Options
    operations: Operations
    identity: ServerIdentity
    lock_state: LockState
    event_queue: EventQueue
    table: LeaseTable
    audit_lock: SharedLock
    counters: Counters
    supervisor: Supervisor
    waiting: Waiting
    outage: OutageLog
    departing: set[str]
    """The peers that are draining: they take nothing new."""

    @property
    def patience(self) -> float:
        """Seconds until an unanswered request is given up, and its connection with it."""
        return self.options.lock_ttl / 2

    def backoff(self) -> Backoff:
        """Pauses between attempts: short, and so that all are back before a lapse's quiet time is over."""
        return Backoff(0.005, self.options.heartbeat_interval / 2)
