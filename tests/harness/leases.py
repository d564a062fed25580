"""Leases that need no client, and what is behind those of users."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from redis_stream_client import Lease, RedisStreamClient
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.announcement import Announcement
from redis_stream_client._model.keys import NOBODY
from redis_stream_client.testing._memory import MemoryLease

if TYPE_CHECKING:
    from redis_stream_client._leases.backend import LeaseBackend

BACKEND: Any = SimpleNamespace(held=True)
"""A backend whose lock is always held, and that can do nothing else."""


def new_lease(
    lbs_id: str, deliveries: int = 1, *, unrecorded: int = 0, backend: LeaseBackend = BACKEND
) -> LeaseState:
    """A lease that is held, and its face."""
    state = LeaseState(lbs_id, Announcement(f"stream-{lbs_id}", None), deliveries, unrecorded=unrecorded)
    state.face = Lease(state, backend)
    return state


_open_clients: WeakSet[OpenClient] = WeakSet()


class OpenClient(RedisStreamClient):
    """A client whose leases `state_of` knows, and of which more can be asked than users may."""

    def __init__(self, *args: Any, **parameters: Any) -> None:
        super().__init__(*args, **parameters)
        _open_clients.add(self)

    def state_of(self, lease: Lease) -> LeaseState | None:
        """The state of this lease; None if it has ended, or is not this client's."""
        parts = self._lifecycle.parts
        return parts.table.state_of(lease) if parts is not None else None

    def left_to_others(self) -> list[str]:
        """The LBS ids of released streams that this client leaves to its peers, now or for a moment."""
        parts = self._lifecycle.parts
        return parts.event_queue.held_back(NOBODY, 0.0) if parts is not None else []


def left_to_others(client: RedisStreamClient) -> list[str]:
    """See `OpenClient.left_to_others`."""
    assert isinstance(client, OpenClient)
    return client.left_to_others()


def state_of(lease: Lease) -> LeaseState:
    """The state of a lease in memory, or of one that an `OpenClient` holds."""
    if isinstance(lease, MemoryLease):
        return lease.state
    states = filter(None, (client.state_of(lease) for client in _open_clients))
    state = next(states, None)
    assert state is not None, f"{lease!r} has ended, or its client is no OpenClient"
    return state
