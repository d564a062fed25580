"""Fixtures of the whole suite: servers, connections, and the checks that follow every test."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib.metadata
import uuid
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests.harness.binaries import SERVERS, ServerMissing, chosen, locate
from tests.harness.cluster import start_cluster
from tests.harness.durations import (  # noqa: F401  hooks of pytest
    pytest_collection_modifyitems,  # pyright: ignore[reportUnusedImport]
    pytest_runtest_logstart,  # pyright: ignore[reportUnusedImport]
    pytest_runtest_makereport,  # pyright: ignore[reportUnusedImport]
    pytest_terminal_summary,  # pyright: ignore[reportUnusedImport]
)
from tests.harness.loops import loop_factory, loop_name, task_kind
from tests.harness.proxy import TcpProxy
from tests.harness.servers import Server
from tests.harness.workers import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection

hypothesis.settings.register_profile("patient", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("patient")


def pytest_configure() -> None:
    """Stop at once when the server to test with is missing, instead of failing every test."""
    try:
        locate(chosen())
    except (ServerMissing, ValueError) as error:
        raise pytest.UsageError(str(error)) from error
    # redis-py reads its own version from the disk for every connection, 1.5 ms each: a tenth of the suite.
    importlib.metadata.version = functools.cache(importlib.metadata.version)


def pytest_report_header() -> str:
    """Say on what the suite runs."""
    return f"server: {chosen()} (of {', '.join(SERVERS)}), loop: {loop_name()}, tasks: {task_kind()}"


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the async tests on the chosen event loop."""
    return {loop_name(): loop_factory()}


def pytest_collection_finish() -> None:
    """Let the collection after every test look only at what came since: else it walks through all that pytest and
    the imported modules made, 100,000 objects, and takes a third of the suite's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def clean_end(request: pytest.FixtureRequest) -> None:
    """Put `_clean_end` around every async test, outside of all its other fixtures."""
    if pytest_asyncio.is_async_test(request.node):
        request.getfixturevalue("_clean_end")


@pytest.fixture
async def _clean_end() -> AsyncIterator[None]:
    """Fail a test that leaves tasks behind, or errors that nobody saw.

    The collection makes both objects that should have been closed (their warnings are errors) and tasks whose
    exception was never retrieved speak up now, in the test that they belong to.
    """
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    yield
    await asyncio.sleep(0)  # what was cancelled in the very last step may end
    leaked = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    gc.collect()
    await asyncio.sleep(0)
    assert not leaked, f"leaked tasks: {leaked}"
    assert not unhandled, f"the event loop's exception handler was called: {unhandled}"


@pytest.fixture(scope="session")
def shared_server() -> Iterator[tuple[Server, dict[bytes, bytes]]]:
    """Run one server for each test process, with the settings that it started with."""
    with Server() as server:
        yield server, _configuration(server.command)


def _configuration(command: Callable[..., Any]) -> dict[bytes, bytes]:
    """All settings of the server; versions of redis-py before 8 give a list."""
    said = command("CONFIG", "GET", "*")
    return said if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=True))


@pytest.fixture
def server(shared_server: tuple[Server, dict[bytes, bytes]]) -> Server:
    """Give the test process's server, emptied and with its settings as at its start.

    A test that stops, freezes or otherwise breaks a server takes `own_server`.
    """
    server, settings = shared_server
    with server.commands() as command:
        now = _configuration(command)
        for name, value in settings.items():
            if now[name] != value:
                command("CONFIG", "SET", name, value)
        command("FLUSHALL")
        command("SCRIPT", "FLUSH")
    return server


@pytest.fixture
def own_server() -> Iterator[Callable[..., Server]]:
    """Give a function, with `Server`'s arguments, that starts servers for this test alone."""
    with contextlib.ExitStack() as servers:
        yield lambda *arguments, name=None: servers.enter_context(Server(*arguments, name=name))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Run one Cluster of three masters for each test process, which takes two seconds to start.

    Slots may move, and stay whole. A test that stops, freezes, adds or removes nodes takes one of its own.
    """
    with start_cluster() as cluster:
        yield cluster


@pytest.fixture
async def redis(server: Server) -> AsyncIterator[Connection]:
    """Give a connection to `server` that returns bytes and repeats nothing."""
    async with Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def service() -> str:
    """Give a service name that no other test uses."""
    return f"orders-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[TcpProxy]:
    """Give a proxy before `server`."""
    async with TcpProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
async def start_worker(server: Server, service: str) -> AsyncIterator[Callable[..., Awaitable[Worker]]]:
    """Give a function that starts a worker process, of `service` on `server` unless told otherwise."""
    async with contextlib.AsyncExitStack() as workers:

        async def start(kind: type[Worker] = Worker, **options: Any) -> Worker:
            options = {"url": server.url, "service": service} | options
            return await workers.enter_async_context(kind(**options))

        yield start
