"""The event loop as the user made it: eager tasks, task factories of their own, debug mode, warnings as errors."""

from __future__ import annotations

import ast
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import redis_stream_client
from redis_stream_client import Lease, LoadBalancerStream, RedisStreamClient
from redis_stream_client._concurrency.tasks import start_task
from tests.harness.runs import Ledger, add, finished, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

PACKAGE = Path(redis_stream_client.__file__).parent
STARTS = {"create_task", "ensure_future", "run_coroutine_threadsafe"}
"""What makes tasks, by the loop's factory or past `start_task`, whoever has it."""

OF_ASYNCIO = {"TaskGroup", "Task", "wait_for", "as_completed", "gather"}
"""The same, of asyncio itself."""

PROGRAMS = {PACKAGE / "cli", PACKAGE / "demo"}


def starts(path: Path) -> Iterator[str]:
    """Where a module starts tasks itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of_asyncio = isinstance(node.func.value, ast.Name) and node.func.value.id == "asyncio"
            if node.func.attr in STARTS or (of_asyncio and node.func.attr in OF_ASYNCIO):
                yield f"{path.name}:{node.lineno} {node.func.attr}"


def test_every_task_of_the_package_is_started_in_one_place() -> None:
    modules = [
        path for path in PACKAGE.rglob("*.py") if path.name != "tasks.py" and not PROGRAMS & {*path.parents}
    ]
    assert [start for path in modules for start in starts(path)] == []


class Own(asyncio.Task[Any]):
    """A task of the user's own class."""


def logging_factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    """A factory that only knows what its author knew."""
    return Own(work, loop=loop, **options)


def eager_factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    """A factory of eager tasks."""
    return Own(work, loop=loop, eager_start=True, **options)  # type: ignore[call-arg, unused-ignore]


FACTORIES = [
    pytest.param(logging_factory, id="own"),
    pytest.param(
        eager_factory,
        id="eager",
        marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12"),
    ),
]


@pytest.mark.parametrize("factory", FACTORIES)
async def test_a_life_under_a_task_factory(server: Server, redis: Connection, service: str, factory: Any) -> None:
    asyncio.get_running_loop().set_task_factory(factory)
    await write(server.url, "call-1", 3, end=True)
    ledger = Ledger()
    client = RedisStreamClient.from_url(server.url, service, lock_ttl=2.0)
    async with client.running(ledger.follow), asyncio.timeout(20):
        await add(redis, service, ["call-1"])
        await wait_until(lambda: client.statistics().streams_done == 1, "it is done")
    assert len(ledger.accepted["call-1"]) == 3

    async def use() -> None:
        async with RedisStreamClient.from_url(server.url, service, lock_ttl=2.0) as other:
            await add(redis, service, ["call-2", "call-3", "call-4"])
            leases: list[Lease] = [(await anext(other.events())).payload for _ in range(3)]  # type: ignore[misc]
            await asyncio.gather(*(lease.checkpoint("1-0") for lease in leases))
            await leases[0].done()
            async with leases[1]:
                pass
            await other.done()

    async with asyncio.timeout(20):
        await asyncio.create_task(use())
    assert await finished(redis, service)


async def test_our_tasks_do_not_begin_before_their_creator_goes_on() -> None:
    if sys.version_info >= (3, 12):
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    began = asyncio.Event()

    async def work() -> None:
        began.set()

    task = start_task(work(), "work")
    assert not began.is_set()
    await task
    assert began.is_set()


PROGRAM = """
import asyncio, sys
from redis_stream_client import LoadBalancerStream, RedisStreamClient
from redis.asyncio import Redis
url, service = sys.argv[1:]

async def handle(lease):
    async for entry in lease.entries():
        await lease.checkpoint(entry.id)
        return

async def main():
    client = RedisStreamClient.from_url(url, service, lock_ttl=2.0)
    async with Redis.from_url(url) as redis, client.running(handle, progress_timeout=5.0):
        for i in range(20):
            await redis.xadd(f"call-{i}", {"n": i})
        await LoadBalancerStream(redis, service).add_many([f"call-{i}" for i in range(20)])
        while client.statistics().streams_done < 20:
            await asyncio.sleep(0.01)
    async with RedisStreamClient.from_url(url, service) as client:
        pass

asyncio.run(main())
"""


@pytest.mark.parametrize("flags", [["-W", "error"], ["-X", "dev", "-W", "error"]], ids=["warnings", "dev"])
async def test_a_program_in_debug_mode_with_warnings_as_errors(
    server: Server, service: str, flags: list[str]
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *flags, "-c", PROGRAM, server.url, service,
        stdout=-1, stderr=-1, env={**os.environ, "PYTHONASYNCIODEBUG": "1"},
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    errors = [line for line in err.decode().splitlines() if not line.startswith("Executing <")]  # a slow machine
    assert (process.returncode, out, errors) == (0, b"", [])


async def test_announcing_under_a_task_factory(server: Server, redis: Connection, service: str) -> None:
    asyncio.get_running_loop().set_task_factory(logging_factory)
    await LoadBalancerStream(redis, service).add("call-1")
    assert not await finished(redis, service)
