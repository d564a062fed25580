"""What a handler may be, and what is refused before anything joins."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import Lease, RedisStreamClient, testing
from redis_stream_client._run.handler import LONGEST_SIGNATURE, require_handler
from tests.harness.runs import add, finished
from tests.harness.waiting import wait_until
from tests.run.test_run import CALL, TTL, returns, returns_when_drained, using

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

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


class Unshowable:
    """A default that has no representation."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


async def no_argument() -> None:
    """Takes nothing."""


async def two_positions(lease: Lease, database: str, /) -> None:
    """Takes too much."""


async def keyword_needed(lease: Lease, *, database: str, pool: object = Unshowable()) -> None:
    """Takes too much."""


async def with_default(how: str = "how") -> None:
    """Takes one argument, which is no lease."""


async def keywords_only(*, lease: Lease) -> None:
    """Takes it in another way."""


async def anything(*args: Any, **kwargs: Any) -> None:
    """Takes whatever there is."""


async def with_defaults(lease: Lease, database: str = "main", *more: str, pool: int = 5) -> None:
    """Takes a lease, and perhaps more."""


def injecting(handler: Callable[..., Awaitable[None]]) -> Callable[[Lease], Awaitable[None]]:
    """Give a handler what it needs besides the lease."""

    @functools.wraps(handler)
    async def wrapper(lease: Lease) -> None:
        await handler(lease, "main")

    return wrapper


def saying(signature: object, handler: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Have a function say this of itself."""

    async def wrapper(lease: Lease) -> None:
        await handler(lease)

    wrapper.__signature__ = signature  # type: ignore[attr-defined]
    return wrapper


class Awkward:
    """Its signature cannot be had."""

    @property
    def __signature__(self) -> object:
        raise ZeroDivisionError

    async def __call__(self, lease: Lease) -> None:
        """Finish at once."""

    @staticmethod
    async def static(lease: Lease) -> None:
        """Finish at once."""

    @classmethod
    async def by_class(cls, lease: Lease) -> None:
        """Finish at once."""

    async def without(self) -> None:
        """Take nothing."""

    @staticmethod
    async def static_without() -> None:
        """Take nothing."""


class CallWithout:
    """Called with nothing."""

    async def __call__(self) -> None:
        """Take nothing."""


@pytest.mark.parametrize(
    "handler",
    [
        anything,
        with_defaults,
        injecting(two_positions),
        saying(inspect.signature(no_argument), returns),
        saying("no signature", returns),
        saying(inspect.signature(returns), returns),
        Awkward(),
        Awkward().static,
        Awkward.by_class,
        functools.partial(keyword_needed, database="main"),
        functools.partial(functools.partial(two_arguments, "how")),
        functools.partial(Awkward.__call__, Awkward()),
    ],
)
def test_what_takes_one_argument_or_may_do_so_is_a_handler(handler: Any) -> None:
    assert require_handler(handler) is handler


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (no_argument, r"; no_argument\(\) cannot be called so: too many positional arguments"),
        (two_arguments, r"two_arguments\(how, lease\) cannot be called so: missing a required argument: 'lease'"),
        (two_positions, r"two_positions\(lease, database, /\) .*'database'"),
        (keyword_needed, r"keyword_needed\(…\) .*'database'"),
        (keywords_only, r"keywords_only\(\*, lease\) .*too many positional"),
        (functools.partial(with_default, "how"), r"with_default\(\) .*too many positional"),
        (functools.partial(with_default, how="how"), r"with_default\(\*, how='how'\) .*too many positional"),
        (Awkward().without, r"Awkward\.without\(\) .*too many positional"),
        (Awkward.static_without, r"Awkward\.static_without\(\)"),
        (Handlers.method, r"Handlers\.method\(self, lease\) .*missing a required argument: 'lease'"),
        (CallWithout(), r"CallWithout\.__call__\(\)"),
    ],
)
async def test_what_cannot_take_one_argument_is_refused_with_its_name_and_signature(
    handler: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        RedisStreamClient.from_url("redis://localhost", "orders").running(handler)
    with pytest.raises(TypeError, match=message):
        await testing.run_handler(handler, testing.lease(CALL))


def test_a_signature_is_shown_in_part_if_it_is_long() -> None:
    async def handle(lease: Lease, database: str, text: str = "x" * 10_000) -> None: ...

    with pytest.raises(TypeError) as caught:
        require_handler(handle)
    assert len(str(caught.value)) < 2 * LONGEST_SIGNATURE + 200


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
