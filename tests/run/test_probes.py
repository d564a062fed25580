"""The probes of a client in `run()`: what they say when its network, its handlers or itself are in trouble."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import Fleet, Lease, RedisRejected, RedisStreamClient, RedisUnavailable
from redis_stream_client._model.keys import Keys
from tests.harness.ports import HOST, free_port
from tests.harness.probing import ask, says
from tests.harness.runs import Ledger, Running, add, at_the_end, idle, write
from tests.harness.suspensions import How, Strikes, When
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

CALL = "call-1"
NEVER = "redis://127.0.0.1:1"


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def live_and_ready(run: Running) -> tuple[tuple[int, str], tuple[int, str]]:
    port = run.client.health_port
    return await says(port, "/livez"), await says(port, "/readyz")


async def becomes(run: Running, path: str, *answer: object) -> None:
    """Wait for an answer."""

    async def is_it() -> bool:
        return await says(run.client.health_port, path) == answer

    await wait_until(is_it, f"{path} answers {answer}")


async def test_from_joining_to_the_end_of_a_drain(
    server: Server, redis: Connection, service: str, tmp_path: Path
) -> None:
    [first] = await write(server.url, CALL, 1)
    go_on = asyncio.Event()
    file = tmp_path / "health"

    async def handle(lease: Lease) -> None:
        await anext(lease.entries())
        await go_on.wait()
        await lease.checkpoint(first)
        await idle(lease)

    async with Running(server.url, service, handle, health_port=0, health_file=file) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        await becomes(run, "/readyz", 200, "ready")
        assert await live_and_ready(run) == ((200, "live"), (200, "ready"))
        await wait_until(lambda: file.exists() and file.read_text() == "ready\n", "the file says so")
        port = run.client.health_port
        run.client.drain()
        assert await live_and_ready(run) == ((200, "live"), (503, "not ready: draining"))
        await wait_until(lambda: file.read_text() == "not ready: draining\n", "the file says so")
        go_on.set()
        await run.task
        assert run.client.health_port is None
    with pytest.raises(ConnectionRefusedError):
        await ask(port, "/livez")
    assert names(tmp_path) == []


async def test_redis_is_away(
    server: Server, proxy: TcpProxy, service: str, tmp_path: Path, redis: Connection
) -> None:
    file = tmp_path / "health"
    async with Running(proxy.url, service, lock_ttl=0.5, health_port=0, health_file=file) as run:
        await becomes(run, "/readyz", 200, "ready")
        await proxy.refuse()
        proxy.cut()
        await becomes(run, "/readyz", 503, "not ready: does not hold its consumer lock")
        assert await says(run.client.health_port, "/livez") == (200, "live")
        await wait_until(lambda: file.read_text().startswith("not ready: does not hold"), "the file says so")
        before = file.stat().st_mtime_ns
        await wait_until(lambda: file.stat().st_mtime_ns > before, "it is live: its file is renewed")
        await proxy.accept()
        await becomes(run, "/readyz", 200, "ready")


async def test_what_handlers_depend_on_is_away(server: Server, redis: Connection, service: str) -> None:
    async def handle(_: Lease) -> None:
        raise ConnectionError("the database is away")

    async with Running(server.url, service, handle, health_port=0) as run:
        await add(redis, service, [f"call-{number}" for number in range(5)])
        await wait_until(lambda: run.client.statistics().outage, "it is an outage")
        assert await live_and_ready(run) == ((200, "live"), (200, "ready"))


async def test_an_operator_pauses_the_fleet_and_drains_the_member(
    server: Server, redis: Connection, service: str
) -> None:
    release = asyncio.Event()

    async def handle(_: Lease) -> None:
        await release.wait()

    fleet = Fleet(redis, service)
    async with at_the_end(release.set), Running(server.url, service, handle, health_port=0) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        await fleet.pause("a migration")
        await becomes(run, "/readyz", 503, "not ready: paused by an operator")
        assert await says(run.client.health_port, "/livez") == (200, "live")
        await fleet.resume()
        await becomes(run, "/readyz", 200, "ready")
        await fleet.drain(run.client.id, timeout=0)
        await becomes(run, "/readyz", 503, "not ready: draining")
        assert await says(run.client.health_port, "/livez") == (200, "live")


async def test_a_member_that_starts_in_a_pause_is_not_restarted_for_it(
    server: Server, redis: Connection, service: str, tmp_path: Path
) -> None:
    file = tmp_path / "health"
    await Fleet(redis, service).pause("a migration", timeout=0)
    async with Running(server.url, service, health_port=0, health_file=file) as run:
        await wait_until(lambda: file.exists(), "it has its file")
        await wait_until(lambda: file.read_text() == "not ready: paused by an operator\n", "the file says so")
        assert await says(run.client.health_port, "/livez") == (200, "live")


async def test_a_handler_that_blocks_the_event_loop(server: Server, redis: Connection, service: str) -> None:
    answered: list[object] = []

    def probe(port: int) -> None:
        """What a prober of another process does, with a time-out."""
        connection = http.client.HTTPConnection(HOST, port, timeout=0.3)
        try:
            connection.request("GET", "/livez")
            answered.append(connection.getresponse().status)
        except TimeoutError as error:
            answered.append(type(error))
        finally:
            connection.close()

    async def handle(_: Lease) -> None:
        assert run.client.health_port is not None
        blocked = threading.Thread(target=probe, args=(run.client.health_port,))
        blocked.start()
        blocked.join()  # for so long the loop stands still

    async with Running(server.url, service, handle, health_port=0) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: answered, "the prober has its answer, or none")
        assert answered == [TimeoutError]
        assert await says(run.client.health_port, "/livez") == (200, "live")


async def test_a_client_that_has_ended_for_good(server: Server, redis: Connection, service: str) -> None:
    """A handler holds the end up, and so the failure can be seen."""
    go_on = asyncio.Event()
    said: list[str] = []

    async def handle(_: Lease) -> None:
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            said.extend(text for _, text in await live_and_ready(run))
            raise

    run = Running(server.url, service, handle, health_port=0)
    async with at_the_end(go_on.set), run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        await redis.delete(Keys(service).lbs)
        await redis.set(Keys(service).lbs, "another type")
        with pytest.raises(RedisRejected):
            await run.task
    assert said == [
        "not live: ended by RedisRejected, see the log",
        "not ready: not live: ended by RedisRejected, see the log",
    ]


async def test_a_client_that_is_closed(server: Server, redis: Connection, service: str) -> None:
    said: list[str] = []

    async def handle(_: Lease) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            said.append((await says(run.client.health_port, "/livez"))[1])

    async with Running(server.url, service, handle, health_port=0) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        await run.client.aclose()
        await run.task
    assert said == ["not live: closed"]


async def test_a_port_in_use_ends_run_before_it_joins(server: Server, redis: Connection, service: str) -> None:
    client = RedisStreamClient.from_url(server.url, service)
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"health_port={port} with health_host='{HOST}' cannot be opened"):
            await client.run(idle, health_port=port)
        assert await redis.keys("*") == []
        with pytest.raises(OSError, match=f"health_port={port}"):
            async with client.running(idle, health_port=port):
                pass
    async with client.running(idle, health_port=port):
        assert client.health_port == port
        assert await says(port, "/livez") == (200, "live")
    assert client.health_port is None


async def test_something_else_in_the_files_place_ends_run_before_it_joins(
    server: Server, redis: Connection, service: str, tmp_path: Path
) -> None:
    client = RedisStreamClient.from_url(server.url, service)
    port = free_port()
    with pytest.raises(FileExistsError):
        await client.run(idle, health_file=tmp_path, health_port=port)
    assert await redis.keys("*") == []
    with pytest.raises(ConnectionRefusedError):
        await ask(port, "/livez")
    async with client.running(idle, health_file=tmp_path / "health"):
        await wait_until((tmp_path / "health").exists, "it is ready")


async def test_while_it_joins_it_is_live(proxy: TcpProxy, service: str) -> None:
    proxy.freeze()
    client = RedisStreamClient.from_url(proxy.url, service)
    running = asyncio.create_task(client.run(idle, health_port=0))
    await wait_until(lambda: client.health_port, "the port is open")
    assert await says(client.health_port, "/livez") == (200, "live")
    assert await says(client.health_port, "/readyz") == (503, "not ready: has not joined yet")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert client.health_port is None


async def test_a_client_that_cannot_join_leaves_neither_port_nor_file(service: str, tmp_path: Path) -> None:
    client = RedisStreamClient.from_url(NEVER, service, connect_timeout=0.05)
    port = free_port()
    with pytest.raises(RedisUnavailable):
        await client.run(idle, health_port=port, health_file=tmp_path / "health")
    with pytest.raises(ConnectionRefusedError):
        await ask(port, "/livez")
    assert names(tmp_path) == []


@pytest.mark.parametrize(("how", "when"), [("native", "suspended"), ("twice", "woken"), ("anyio", "executed")])
async def test_cancelled_at_any_moment_it_leaves_neither_port_nor_file(
    server: Server, redis: Connection, service: str, tmp_path: Path, how: How, when: When
) -> None:
    port = free_port()
    file = tmp_path / "health"
    for strike in Strikes(server, how, when):
        client = RedisStreamClient.from_url(server.url, service)

        async def live(client: RedisStreamClient = client) -> None:
            async with client.running(idle, health_port=port, health_file=file):
                await wait_until(file.exists, "it is ready")

        await strike.on(live())
        await strike.settled()
        await client.aclose()
        with pytest.raises(ConnectionRefusedError):
            await ask(port, "/livez")
        await wait_until(lambda: names(tmp_path) == [], "the file is removed, by its thread")


async def test_a_thousand_connections_that_say_nothing_do_not_harm_the_client(
    server: Server, redis: Connection, service: str
) -> None:
    ledger = Ledger()
    async with Running(server.url, service, ledger.follow, lock_ttl=2.0, health_port=0) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        port = run.client.health_port
        assert port is not None
        with contextlib.ExitStack() as silent:
            for number in range(1, 11):
                for _ in range(100):
                    one = silent.enter_context(socket.socket())
                    one.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(one, (HOST, port))
                await write(server.url, CALL, 1)
                await ledger.reached({CALL: number})
                assert await live_and_ready(run) == ((200, "live"), (200, "ready"))
        assert run.client.statistics().lapses == 0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"health_file": 17}, TypeError, "health_file must be a path or None, not int"),
        ({"health_file": b"health"}, TypeError, "health_file must be a path or None, not bytes"),
        ({"health_file": ""}, ValueError, "health_file must be the path of a file, not ''"),
        ({"health_file": "/"}, ValueError, "health_file must be the path of a file"),
        ({"health_file": "a\0b"}, ValueError, "health_file must be the path of a file"),
        ({"health_file": "\ud800"}, ValueError, "health_file must be the path of a file"),
        ({"health_port": "8080"}, TypeError, "health_port must be an int or None, not str"),
        ({"health_port": True}, TypeError, "health_port must be an int or None, not bool"),
        ({"health_port": 65536}, ValueError, "health_port must be between 0 and 65535, not 65536"),
        ({"health_port": -1}, ValueError, "health_port must be between 0 and 65535"),
        ({"health_host": None}, TypeError, "health_host must be a str, not NoneType"),
        (
            {"health_host": "localhost"},
            ValueError,
            "health_host must be an IP address, such as .* not 'localhost'",
        ),
        ({"health_host": ""}, ValueError, "health_host must be an IP address"),
    ],
)
async def test_what_is_not_allowed(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    client = RedisStreamClient.from_url(NEVER, "orders")
    with pytest.raises(error, match=text):
        client.running(idle, **arguments)
    with pytest.raises(error, match=text):
        await client.run(idle, **arguments)


async def test_without_probes_there_is_no_port(server: Server, service: str) -> None:
    async with Running(server.url, service) as run:
        assert run.client.health_port is None
    assert RedisStreamClient.from_url(NEVER, service).health_port is None


async def test_the_file_lies_where_it_was_when_run_was_called(
    server: Server, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    running = RedisStreamClient.from_url(server.url, service).running(idle, health_file="health")
    monkeypatch.chdir(elsewhere)
    async with running:
        await wait_until((tmp_path / "health").exists, "it is ready")
    assert names(tmp_path) == ["elsewhere"]
