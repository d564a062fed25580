"""Whatever a handler raises, and whatever logging it does, ends its own attempt and nothing else."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from redis_stream_client import Lease, RedisRejected, RedisStreamClient, testing
from redis_stream_client._model.failures import describe, is_cancellation
from redis_stream_client._model.keys import Keys
from redis_stream_client._model.logs import log
from tests.harness.loops import loop_factory
from tests.harness.runs import Running, add, dead_letters, idle, record
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from redis_stream_client._run.handler import Handler
    from tests.harness.connection import Connection
    from tests.harness.servers import Server


class Ours(BaseException):
    """A program's own, outside of `Exception`."""


class Raises(Exception):
    """Its text cannot be had."""

    def __init__(self, what: BaseException) -> None:
        self.what = what

    def __str__(self) -> str:
        raise self.what

    __repr__ = __str__


class NoText(Exception):
    """Its text is no text."""

    def __str__(self) -> str:
        return 17  # type: ignore[return-value]


class Untrue(Exception):
    """It can be neither compared nor asked whether it is true."""

    def __bool__(self) -> bool:
        raise ZeroDivisionError

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


class Liar(Exception):
    """It does not tell its class, nor anything else."""

    def __getattribute__(self, name: str) -> Any:
        raise Ours


class Nameless(type):
    """The class of classes without a name."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__"):
            raise Ours
        return super().__getattribute__(name)


class Anonymous(Exception, metaclass=Nameless):
    """Its class has no name that could be asked for."""


def noted() -> BaseException:
    """An exception whose notes are none."""
    error = ValueError("noted")
    error.__notes__ = 17  # type: ignore[assignment]
    return error


def endless() -> BaseException:
    """An exception that is its own cause, by a way around."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def nested(inner: BaseException, depth: int = 50) -> BaseException:
    """Groups of groups."""
    for _ in range(depth):
        inner = BaseExceptionGroup("group", [inner])
    return inner


ERRORS: dict[str, Callable[[], BaseException]] = {
    "str-raises": lambda: Raises(AttributeError("response")),
    "str-raises-base": lambda: Raises(Ours()),
    "str-exits": lambda: Raises(SystemExit(3)),
    "str-cancels": lambda: Raises(asyncio.CancelledError()),
    "str-raises-itself": lambda: Raises(Raises(Ours())),
    "no-text": NoText,
    "huge": lambda: ValueError("x" * 30_000_000),
    "surrogates": lambda: ValueError("\udcff\x00\r\n" * 2000),
    "untrue": Untrue,
    "liar": Liar,
    "anonymous": Anonymous,
    "notes": noted,
    "endless": endless,
    "base": lambda: Ours("no exception"),
    "exit": lambda: SystemExit(3),
    "generator": GeneratorExit,
    "cancelled": asyncio.CancelledError,
    "group": lambda: ExceptionGroup("group", [Raises(Ours()), ValueError()]),
    "nested": lambda: nested(Raises(Ours())),
    "group-cancelled": lambda: nested(asyncio.CancelledError()),
    "group-interrupted": lambda: nested(KeyboardInterrupt()),
    "stop": StopIteration,
    "stop-async": StopAsyncIteration,
    "recursion": RecursionError,
    "memory": MemoryError,
    "rejected": lambda: RedisRejected("another client's"),
    "rejected-same-name": lambda: RedisRejected("another client's", stream="rejected-same-name"),
}


async def test_a_handler_s_error_ends_its_attempt_and_no_other(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is logged here other plugins of pytest would stumble over.
    monkeypatch.setattr(logging.getLogger("redis_stream_client"), "disabled", True)

    async def handle(lease: Lease) -> None:
        if lease.stream in ERRORS:
            error = ERRORS[lease.stream]()
            raise error
        await idle(lease)

    async with Running(server.url, service, handle, max_attempts=1, lock_ttl=2.0) as run:
        await add(redis, service, [*ERRORS, "good"])
        await wait_until(lambda: run.client.statistics().dead_letters == len(ERRORS), "all have failed")
        await run.handles("good")
        assert not run.task.done()
        await wait_until(lambda: run.client.statistics().handlers_failed == len(ERRORS), "all are counted")
    reasons = [letter["reason"] for letter in await dead_letters(redis, service)]
    assert all("failed 1 times" in reason for reason in reasons)
    assert max(map(len, reasons)) < 600
    assert any("Raises (its text cannot be had: __str__ raised AttributeError)" in reason for reason in reasons)


@pytest.mark.parametrize("error", ERRORS)
async def test_run_handler_says_what_was_raised(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("redis_stream_client"), "disabled", True)

    async def handle(lease: Lease) -> None:
        raised = ERRORS[error]()
        raise raised

    outcome = await testing.run_handler(handle, testing.lease(error), max_attempts=1)
    assert outcome.status == "dead"
    assert testing.controller(testing.lease("other")).dead is None
    assert outcome.failed


async def test_a_keyboard_interrupt_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        describe(Raises(KeyboardInterrupt()))


# The end of the program.


class Crash(Exception):
    """Of the program's main coroutine."""


async def beside(client: RedisStreamClient, handler: Handler, working: Awaitable[object]) -> None:
    """`run()` in a task that nobody looks after."""
    running = asyncio.create_task(client.run(handler))
    await working
    assert not running.done()
    raise Crash


async def in_a_group(client: RedisStreamClient, handler: Handler, working: Awaitable[object]) -> None:
    """`run()` beside a sibling that fails."""
    async with asyncio.TaskGroup() as group:
        group.create_task(client.run(handler))
        await working
        raise Crash


async def in_a_block(client: RedisStreamClient, handler: Handler, working: Awaitable[object]) -> None:
    """`run()` in the background of a block that fails."""
    async with client.running(handler, drain_timeout=0.1):
        await working
        raise Crash


async def in_the_client_s_block(client: RedisStreamClient, handler: Handler, working: Awaitable[object]) -> None:
    """`run()` in a task that outlives the client's own block."""
    async with client:
        running = asyncio.create_task(client.run(handler))
        await working
        assert not running.done()
        raise Crash


@pytest.mark.parametrize("program", [beside, in_a_group, in_a_block, in_the_client_s_block])
def test_a_crash_of_the_program_is_no_failure_of_its_handlers(
    server: Server,
    service: str,
    caplog: pytest.LogCaptureFixture,
    program: Callable[[RedisStreamClient, Handler, Awaitable[object]], Awaitable[None]],
) -> None:
    streams = [f"call-{i}" for i in range(20)]
    client = RedisStreamClient.from_url(server.url, service)
    working: list[str] = []

    async def handle(lease: Lease) -> None:
        await lease.checkpoint("1-0")
        working.append(lease.stream)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:  # whose cancellation takes some turns
            group.create_task(asyncio.sleep(60))
            await idle(lease)

    async def main() -> None:
        async with Redis.from_url(server.url) as redis:
            await add(redis, service, streams)
        await program(client, handle, wait_until(lambda: len(working) == len(streams), "all are handled"))

    async def left_behind() -> None:
        async with Redis.from_url(server.url) as redis:
            assert not await redis.exists(Keys(service).lock(client.id))
            records = [await record(redis, service, stream) for stream in streams]
            assert {fields["attempts"] for fields in records} == {"0"}

    with pytest.raises((Crash, ExceptionGroup)), asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(left_behind())
    assert client.statistics().handlers_failed == 0
    ours = [entry for entry in caplog.records if entry.name == "redis_stream_client"]
    assert [entry.getMessage() for entry in ours if entry.levelno >= logging.WARNING] == []


async def test_a_handler_that_cancels_itself_has_failed(server: Server, redis: Connection, service: str) -> None:
    async def handle(lease: Lease) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async with Running(server.url, service, handle, max_attempts=1, lock_ttl=2.0) as run:
        await add(redis, service, ["call-1"])
        await wait_until(lambda: run.client.statistics().dead_letters == 1, "it has failed")
        assert not run.task.done()


# The log.


class Broken(logging.Handler):
    """A handler that fails on every record with an exception, or on every record at all."""

    def __init__(self, failure: Callable[[], BaseException], always: bool) -> None:
        super().__init__()
        self._failure = failure
        self._always = always
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Fail, as handlers of the user's may."""
        if self._always or record.exc_info:
            raise self._failure()
        self.messages.append(record.getMessage())


@pytest.fixture
def broken() -> Iterator[Callable[..., Broken]]:
    """A function that adds a broken handler to the package's logger for this test."""
    log = logging.getLogger("redis_stream_client")
    added: list[Broken] = []

    def add_broken(failure: Callable[[], BaseException], *, always: bool = False) -> Broken:
        added.append(Broken(failure, always))
        log.addHandler(added[-1])
        return added[-1]

    yield add_broken
    for handler in added:
        log.removeHandler(handler)


@pytest.mark.parametrize("failure", [ZeroDivisionError, RecursionError, Ours, SystemExit, asyncio.CancelledError])
async def test_a_log_handler_that_fails_costs_its_record_and_nothing_else(
    failure: Callable[[], BaseException],
    broken: Callable[..., Broken],
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = broken(failure)

    async def handle(lease: Lease) -> None:
        raise ValueError("the handler's")

    outcome = await testing.run_handler(handle, testing.lease("call-1"))
    assert outcome.status == "failed"
    assert any("the handler of call-1 failed" in text and "the handler's" in text for text in handler.messages)
    assert f"a log handler failed: {failure.__name__}" in capsys.readouterr().err


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_logged(error: str, caplog: pytest.LogCaptureFixture) -> None:
    raised = ERRORS[error]()
    log.error("it failed: %s", "call-1", error=raised)
    [record] = caplog.records
    assert record.getMessage() == "it failed: call-1"
    text = logging.Formatter().format(record)
    assert len(text) < 100_000
    text.encode()


# Descriptions.


def test_a_description_names_the_class_that_users_know() -> None:
    from redis_stream_client._redis.error_mapping import WrongType

    assert describe(WrongType("no stream")) == "RedisRejected: no stream"
    assert describe(ValueError()) == "ValueError"
    assert describe(Anonymous("text")) == "Anonymous: text"


def test_what_is_a_cancellation() -> None:
    assert is_cancellation(asyncio.CancelledError())
    assert is_cancellation(nested(asyncio.CancelledError()))
    assert not is_cancellation(None)
    assert not is_cancellation(Liar())
    assert not is_cancellation(BaseExceptionGroup("group", [asyncio.CancelledError(), ValueError()]))
    assert not is_cancellation(nested(KeyboardInterrupt()))
