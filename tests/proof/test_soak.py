"""Ring 3: what goes through a client leaves nothing behind. `nox -s soak` does it with 100,000 streams."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.proof.soak import Footprint, left_behind, soak

if TYPE_CHECKING:
    from tests.harness.servers import Server


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_streams_leave_nothing_behind(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "redis_stream_client")  # what is captured is kept
    footprints = [footprint async for footprint in soak(server.url, streams=2_000, waves=2)]
    assert footprints[-1].streams >= 2_000
    assert left_behind(footprints) == []


def test_what_is_left_behind_is_said() -> None:
    empty = Footprint(1, 0.1, 40_000_000, 40_000, 18, 7, 1, 2, 0, 0.1)
    warm = dataclasses.replace(empty, streams=10_000, rss=45_000_000, objects=41_000)
    end = dataclasses.replace(warm, streams=100_000, rss=46_000_000, objects=41_100)
    assert left_behind([empty, warm, end]) == []
    changes: dict[str, Any] = {
        "tasks": 19,
        "connections": 8,
        "consumers": 2,
        "keys": 7,
        "undying": 1,
        "waited": 3.1,
        "objects": 43_000,
        "rss": 52_000_000,
    }
    for name, value in changes.items():
        [_] = left_behind([empty, warm, dataclasses.replace(end, **{name: value})])
