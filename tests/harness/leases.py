"""Leases that need no client, and what is behind those of users."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from redis_stream_client import Lease
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.announcement import Announcement

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


def state_of(lease: Lease) -> LeaseState:
    """The state of a user's lease. It offers no way to it: the package starts from the state."""
    return next(found for found in gc.get_referents(lease) if isinstance(found, LeaseState))
