"""Asking the backend for something: the time is not the holder's, and a refusal is the lease's own."""

from __future__ import annotations

from typing import Any

import pytest

from redis_stream_client import RedisRejected
from redis_stream_client._leases.backend import Asking
from tests.harness.leases import new_lease


class Backend:
    """One that may be asked, or not."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def require_here(self) -> None:
        if self._error is not None:
            raise self._error


def test_as_long_as_it_asks_the_holder_waits_for_its_client() -> None:
    lease, backend = new_lease("7-0"), Backend()
    asking: Any = Asking(lease, backend)  # type: ignore[arg-type]
    with asking:
        assert lease.asking == 1
    assert lease.asking == 0


def test_what_was_refused_is_remembered_and_goes_on_its_way() -> None:
    lease, refused = new_lease("7-0"), RedisRejected("no permission")
    asking: Any = Asking(lease, Backend())  # type: ignore[arg-type]
    with pytest.raises(RedisRejected), asking:
        raise refused
    assert lease.refused is refused
    assert lease.asking == 0


def test_where_the_backend_is_not_at_home_nothing_is_asked() -> None:
    lease = new_lease("7-0")
    with pytest.raises(RuntimeError, match="another event loop"):
        Asking(lease, Backend(RuntimeError("another event loop")))  # type: ignore[arg-type]
    assert lease.asking == 0
