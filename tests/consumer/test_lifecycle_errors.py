"""Joining that cannot succeed: one error, soon, that names the cause; and nothing is left behind."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from redis_stream_client import ClientClosed, RedisRejected, RedisStreamClient, RedisUnavailable
from redis_stream_client._model.keys import Keys
from redis_stream_client._redis.server import check_version
from tests.harness.ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

USER = "member"

ENOUGH = ["allkeys", "allchannels", "+@all"]

NEEDED = {
    *("xreadgroup", "xclaim", "xack", "xdel", "xpending", "xrange", "xinfo", "xadd", "xlen", "xgroup"),
    *("set", "get", "exists", "del", "pexpire", "pttl", "time", "ping"),
    *("eval", "evalsha", "publish", "subscribe", "psubscribe"),
}
"""Every command without which a member cannot do its part."""


async def join(client: RedisStreamClient) -> None:
    async with client:
        pytest.fail("joined")


async def refusal(client: RedisStreamClient, error: type[Exception], how: str = "block") -> str:
    """The text of the one error that joining gives within 5 s."""
    started = time.monotonic()
    with pytest.raises(error) as caught:
        await (join(client) if how == "block" else anext(client.events()))
    assert time.monotonic() - started < 5.0
    assert not client.alive
    return str(caught.value)


@pytest.fixture
async def log_in(redis: Connection, server: Server) -> AsyncIterator[Callable[..., Awaitable[Redis]]]:
    """Make a user with these ACL rules, and give a client that logs in as it."""
    clients: list[Redis] = []

    async def make(*rules: str, password: str = "right") -> Redis:
        await redis.execute_command("ACL", "SETUSER", USER, "reset", "on", ">right", *rules)
        clients.append(Redis(host=HOST, port=server.port, username=USER, password=password))
        return clients[-1]

    yield make
    await redis.acl_deluser(USER)
    for client in clients:
        await client.aclose()


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Awaitable[RedisStreamClient]]]:
    """Start something that is no Redis, and give a client of it."""
    servers: list[asyncio.Server] = []
    silent: list[asyncio.StreamWriter] = []

    async def start(reply: bytes | None) -> RedisStreamClient:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if reply is None:
                silent.append(writer)
                return
            if reply:
                await reader.read(1)
                writer.write(reply)
            writer.close()

        port = free_port()
        servers.append(await asyncio.start_server(connected, HOST, port))
        return RedisStreamClient.from_url(f"redis://{HOST}:{port}", "orders", connect_timeout=0.5)

    yield start
    for server in servers:
        server.close()
    for writer in silent:
        writer.close()


# Who may.


@pytest.mark.parametrize("how", ["block", "iterator"])
async def test_a_wrong_password_is_said_to_be_one(log_in: Any, service: str, how: str) -> None:
    redis = await log_in(*ENOUGH, password="wrong")
    said = await refusal(RedisStreamClient(redis, service), RedisRejected, how)
    assert "refuses the login" in said
    assert "check user name and password" in said
    assert "wrong" not in said.replace("wrong user name or password", "")


async def test_a_missing_password_is_said_to_be_one(redis: Connection, server: Server, service: str) -> None:
    await redis.config_set("requirepass", "secret")
    try:
        said = await refusal(RedisStreamClient.from_url(server.url, service), RedisRejected)
    finally:
        async with Redis(host=HOST, port=server.port, password="secret") as allowed:
            await allowed.config_set("requirepass", "")
    assert "password" in said


@pytest.mark.parametrize("command", sorted(NEEDED))
async def test_a_command_that_is_not_permitted_is_named_when_joining(
    log_in: Any, service: str, command: str
) -> None:
    redis = await log_in(*ENOUGH, f"-{command}")
    said = await refusal(RedisStreamClient(redis, service, connect_timeout=2.0), RedisRejected)
    assert "permi" in said
    assert "ACL" in said
    # Servers before 7.2 do not say what it was that a script may not run.
    assert command in said.lower() or command in ("xgroup", "set")


@pytest.mark.parametrize("missing", ["lbs", "lock", "dead", "sweep"])
async def test_keys_that_are_not_permitted_are_refused_when_joining(
    log_in: Any, service: str, missing: str
) -> None:
    keys = Keys(service)
    patterns = {"lbs": keys.lbs, "lock": keys.lock("*"), "dead": keys.dead, "sweep": keys.sweep}
    allowed = [f"~{pattern}" for name, pattern in patterns.items() if name != missing]
    redis = await log_in(*allowed, "allchannels", "+@all")
    said = await refusal(RedisStreamClient(redis, service, connect_timeout=2.0), RedisRejected)
    assert "permi" in said
    assert "ACL" in said


async def test_a_channel_that_is_not_permitted_is_refused_when_joining(log_in: Any, service: str) -> None:
    redis = await log_in("allkeys", "resetchannels", "+@all")
    said = await refusal(RedisStreamClient(redis, service, connect_timeout=2.0), RedisRejected)
    assert "permi" in said


async def test_with_all_permissions_of_its_own_keys_and_channels_it_joins(log_in: Any, service: str) -> None:
    keys = Keys(service)
    rules = [f"~{keys.lbs}", f"~{{{keys.lbs}}}:*", "resetchannels", f"&{keys.control}", "+@all"]
    rules.append(f"&{keys.lock_events(0)}")
    async with RedisStreamClient(await log_in(*rules), service) as client:
        assert client.alive


# What is there.


async def test_a_web_server_is_said_not_to_be_a_redis(listen: Any) -> None:
    client = await listen(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    assert "does not speak the Redis protocol" in await refusal(client, RedisRejected)


@pytest.mark.parametrize("reply", [pytest.param(None, id="says nothing"), pytest.param(b"", id="closes at once")])
@pytest.mark.parametrize("how", ["block", "iterator"])
async def test_what_never_answers_is_unavailable_after_the_connect_timeout(
    listen: Any, reply: bytes | None, how: str
) -> None:
    started = time.monotonic()
    said = await refusal(await listen(reply), RedisUnavailable, how)
    assert time.monotonic() - started < 2.0
    assert "could not join 'orders' within 0.5 s" in said
    assert HOST in said
    assert "connect_timeout" in said


async def test_a_server_that_is_not_there_is_named(service: str) -> None:
    port = free_port()
    client = RedisStreamClient.from_url(f"redis://{HOST}:{port}", service, connect_timeout=0.3)
    assert f"{HOST}:{port}" in await refusal(client, RedisUnavailable)


async def test_a_database_that_does_not_exist_is_refused_for_good(server: Server, service: str) -> None:
    said = await refusal(RedisStreamClient.from_url(f"{server.url}/9999", service), RedisRejected)
    assert "range" in said or "invalid" in said.lower()


async def test_a_load_balancer_stream_of_another_type_is_said_to_be_one(redis: Connection, service: str) -> None:
    await redis.set(Keys(service).lbs, "text")
    said = await refusal(RedisStreamClient(redis, service), RedisRejected)
    assert "another type" in said
    assert await redis.get(Keys(service).lbs) == b"text"


async def test_a_server_that_comes_up_while_joining_is_joined(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    server.stop()
    client = RedisStreamClient.from_url(server.url, service, connect_timeout=20.0)
    joining = asyncio.create_task(client.__aenter__())
    await asyncio.sleep(0)
    await asyncio.to_thread(server.start)
    await joining
    assert client.alive
    await client.aclose()


async def test_the_key_becoming_another_type_later_closes_the_client_and_everybody_is_told(
    redis: Connection, service: str
) -> None:
    client = RedisStreamClient(redis, service, lock_ttl=0.4)
    await client.__aenter__()
    await redis.set(Keys(service).lbs, "text")
    with pytest.raises(RedisRejected, match="another type") as at_the_iterator:
        await anext(client.events())
    with pytest.raises(ClientClosed) as at_a_call:
        await client.done()
    with pytest.raises(RedisRejected) as at_the_end:
        await client.__aexit__(None, None, None)
    assert at_the_iterator.value is at_the_end.value is at_a_call.value.__cause__
    assert not client.alive


# What is left behind.


async def test_a_client_that_could_not_join_cannot_be_used_on(service: str) -> None:
    client = RedisStreamClient.from_url(f"redis://{HOST}:{free_port()}", service, connect_timeout=0.1)
    await refusal(client, RedisUnavailable)
    with pytest.raises(ClientClosed):
        await client.__aenter__()
    await client.aclose()


async def test_a_refused_client_leaves_no_lock_behind(redis: Connection, log_in: Any, service: str) -> None:
    keys = Keys(service)
    client = RedisStreamClient(await log_in(*ENOUGH, "-xpending"), service)
    await refusal(client, RedisRejected)
    assert not await redis.exists(keys.lock(client.id))


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 20, 40])
async def test_a_cancelled_join_leaves_no_lock_behind(redis: Connection, service: str, steps: int) -> None:
    client = RedisStreamClient(redis, service, lock_ttl=60.0)
    joining = asyncio.create_task(client.__aenter__())
    for _ in range(steps):
        await asyncio.sleep(0)
    joining.cancel()
    await asyncio.wait((joining,))
    if not joining.cancelled():  # it was quicker
        await client.aclose()
    assert not client.alive
    assert not await redis.exists(Keys(service).lock(client.id))


# Where it runs.


@pytest.mark.parametrize("how", ["block", "iterator"])
def test_without_a_running_asyncio_loop_as_under_trio_joining_says_so(how: str) -> None:
    client = RedisStreamClient(Redis(), "orders")
    joining = client.__aenter__() if how == "block" else client.events().__anext__()
    with pytest.raises(RuntimeError, match=r"asyncio.*trio is not supported"):
        joining.send(None)


async def test_a_fake_redis_is_refused_when_joining(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Redis()
    fake_class = type("FakeConnection", (), {"__module__": "fakeredis.aioredis"})
    monkeypatch.setattr(fake.connection_pool, "connection_class", fake_class)
    with pytest.raises(RedisRejected, match="fake Redis"):
        async with RedisStreamClient(fake, "orders"):
            pass


async def test_dead_letters_of_another_type_are_named_when_joining(
    server: Server, redis: Connection, service: str
) -> None:
    await redis.set(Keys(service).dead, "not a stream")
    with pytest.raises(RedisRejected, match="another type"):
        async with RedisStreamClient.from_url(server.url, service):
            pass


async def test_a_replica_is_not_joined(server: Server, own_server: Callable[..., Server], service: str) -> None:
    replica = own_server("--replicaof", "127.0.0.1", str(server.port))
    with pytest.raises(RedisUnavailable, match=r"replica|READONLY|MASTERDOWN"):
        async with RedisStreamClient.from_url(replica.url, service, connect_timeout=0.5):
            pass


@pytest.mark.parametrize("version", ["2.8.24", "5.0.14", "6.0.16"])
def test_a_server_that_is_too_old_is_named(version: str) -> None:
    """No such server can be had here: what it says of itself is what is tested."""
    with pytest.raises(RedisRejected, match=f"Redis {version} is too old.*6.2 or later"):
        check_version(version)


@pytest.mark.parametrize("version", ["6.2.0", "7.2.4", "10.0", "255.255.255", "unreadable", ""])
def test_a_server_that_is_new_enough_or_unknown_is_let_pass(version: str) -> None:
    check_version(version)
