"""What a handler may be, and what is refused before anything joins."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import Lease, RedisStreamClient
from tests.harness.runs import add, finished
from tests.harness.waiting import wait_until
from tests.run.test_run import CALL, TTL, returns, returns_when_drained, using

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.connection import Connection
    from tests.harness.servers import Server


async def two_arguments(how: str, lease: Lease) -> None:
    """Finish at once."""


class Handlers:
    """Other async callables than functions."""

    async def method(self, lease: Lease) -> None:
        """Finish at once."""

    async def __call__(self, lease: Lease) -> None:
        """Finish at once."""


@pytest.mark.parametrize(
    "handler",
    [
        returns,
        functools.partial(two_arguments, "how"),
        functools.partial(functools.partial(two_arguments), "how"),
        Handlers().method,
        Handlers(),
        functools.partial(Handlers()),
    ],
)
async def test_any_async_callable_is_a_handler(
    server: Server, redis: Connection, service: str, handler: Any
) -> None:
    await add(redis, service, [CALL])
    client = RedisStreamClient.from_url(server.url, service, **TTL)
    async with client.running(handler):
        await wait_until(lambda: client.statistics().streams_done == 1, "it is done")
    assert await finished(redis, service)


def sync(lease: Lease) -> None:
    """No handler."""


async def generator(lease: Lease) -> AsyncIterator[None]:
    """No handler."""
    yield


async def coroutine() -> None:
    """Not a handler, once it is called."""


@pytest.mark.parametrize("run", ["run", "running"])
@pytest.mark.parametrize(
    ("handler", "hint"),
    [
        (sync, "async def"),
        (lambda lease: lease, "async def"),
        (generator, "without yield"),
        (coroutine, None),
        (Handlers, "async def"),
        (None, "async def"),
        ("handler", "async def"),
        (functools.partial(sync), "async def"),
    ],
)
async def test_what_is_no_handler_is_refused_before_anything_joins(
    server: Server, redis: Connection, service: str, run: str, handler: Any, hint: str | None
) -> None:
    client = RedisStreamClient.from_url(server.url, service)
    if handler is coroutine:
        handler, hint = coroutine(), r"leave out the \(\)"
    with pytest.raises(TypeError, match=hint):
        await using(client, run, handler)
    assert not await redis.keys("*")
    await returns_when_drained(client)  # it is as good as new
