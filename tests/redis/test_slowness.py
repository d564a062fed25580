"""Requests on a line whose answers take long get more time, and only there."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.slowness import MEMORY, Slowness

if TYPE_CHECKING:
    from tests.harness.proxy import TcpProxy


class Line:
    """A slowness with a clock of its own."""

    def __init__(self, longest: float = 5.0) -> None:
        self.time = 1000.0
        self.slowness = Slowness(longest, lambda: self.time)

    def answers_after(self, seconds: float) -> None:
        sent = self.time
        self.time += seconds
        self.slowness.took(sent)


def test_quick_answers_change_nothing() -> None:
    line = Line()
    for _ in range(3):
        line.answers_after(0.4)
        assert line.slowness.timeout(1.0) == 1.0


def test_a_request_gets_twice_as_long_as_the_slowest_answer_up_to_the_longest_timeout() -> None:
    line = Line()
    line.answers_after(1.2)
    line.answers_after(0.1)
    assert line.slowness.timeout(1.0) == pytest.approx(2.4)
    assert line.slowness.timeout(3.0) == 3.0
    line.answers_after(4.0)
    assert line.slowness.timeout(1.0) == 5.0
    assert line.slowness.timeout(6.0) == 6.0


def test_a_slow_answer_is_forgotten_after_a_while() -> None:
    line = Line()
    line.answers_after(3.0)
    line.time += MEMORY
    assert line.slowness.timeout(1.0) == 1.0
    line.answers_after(0.6)
    assert line.slowness.timeout(1.0) == pytest.approx(1.2)


def test_without_a_longest_timeout_each_request_keeps_its_own() -> None:
    line = Line(0.0)
    line.answers_after(3.0)
    assert line.slowness.timeout(0.5) == 0.5


async def test_a_request_that_no_patience_is_enough_for_gets_through_at_the_second_try(proxy: TcpProxy) -> None:
    endpoint = endpoint_for(Redis.from_url(proxy.url), "x")
    connection = SharedConnection(endpoint, longest_patience=5.0)
    try:
        assert await connection.request("PING", timeout=0.2) == b"PONG"
        proxy.request_delay = 0.3
        with pytest.raises(Unanswered):
            await connection.request("PING", timeout=0.2)
        async with asyncio.timeout(5):
            while connection.connections < 2:  # connecting takes several of these round trips
                with contextlib.suppress(Unanswered):
                    await connection.request("PING", timeout=0.2)
        for _ in range(3):
            assert await connection.request("PING", timeout=0.2) == b"PONG"
        assert connection.losses == 1
    finally:
        await connection.close()
