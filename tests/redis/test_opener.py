"""How long one attempt to connect may take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.asyncio import Redis

from redis_stream_client._redis import wire
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.opener import AttemptTime, Opener
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server


def test_an_attempt_that_took_all_its_time_is_followed_by_a_longer_one() -> None:
    attempt = AttemptTime(2.0, 10.0)
    attempt.failed(0.1)
    assert attempt.seconds == 2.0, "more time would not have helped"
    for expected in (4.0, 8.0, 10.0, 10.0):
        attempt.failed(attempt.seconds)
        assert attempt.seconds == expected


def test_what_an_attempt_took_is_remembered() -> None:
    attempt = AttemptTime(2.0, 10.0)
    attempt.succeeded(3.0)
    assert attempt.seconds == 6.0
    attempt.succeeded(0.1)
    assert attempt.seconds == 2.0
    attempt.succeeded(9.0)
    assert attempt.seconds == 10.0


async def test_connecting_that_takes_longer_than_an_attempt_gets_more_time(
    server: Server, proxy: TcpProxy, service: str
) -> None:
    proxy.delay(requests=0.1, replies=0.1)
    opener = Opener(endpoint_for(Redis.from_url(proxy.url), "key"), "beats", 0.1)
    attempts = 0

    async def opened() -> bool:
        nonlocal attempts
        attempts += 1
        try:
            wire.abort(await opener.open())
        except Unanswered:
            return False
        return True

    await wait_until(opened, "it has enough time", timeout=5)
    assert attempts >= 3
    assert await opened()  # what it took is remembered
