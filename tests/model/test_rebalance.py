"""How users set rebalancing."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from redis_stream_client import Rebalance, RedisStreamClient


def test_ten_seconds_without_a_change_are_the_default() -> None:
    assert Rebalance() == Rebalance(settle=10.0) == Rebalance(10)


def test_it_is_a_value() -> None:
    rebalance: Any = Rebalance()
    with pytest.raises(FrozenInstanceError):
        rebalance.settle = 1


@pytest.mark.parametrize(
    ("settle", "error"), [(0, ValueError), (-1, ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
def test_what_is_no_duration_is_refused(settle: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="settle"):
        Rebalance(settle)


async def test_run_takes_nothing_else() -> None:
    async def handle(lease: object) -> None: ...

    wrong: Any
    for wrong in (True, 10.0, Rebalance):
        client = RedisStreamClient.from_url("redis://127.0.0.1:1", "orders")
        with pytest.raises(TypeError, match="rebalance"):
            client.running(handle, rebalance=wrong)
