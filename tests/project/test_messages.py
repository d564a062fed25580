"""What users read when something fails, in the log, in errors and in dead letters: words that mean something."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import pkgutil
import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

import redis_stream_client
from redis_stream_client import DeadLetters, Lease, LoadBalancerStream, RedisStreamClient, RedisUnavailable
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from tests.harness.fleet import Member, announce
from tests.harness.ports import HOST, free_port
from tests.harness.runs import Running, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

PACKAGE = Path(redis_stream_client.__file__).parent
TTL = 0.4


def private_names() -> set[str]:
    """Names of the classes that users cannot import, unless they are an ordinary word."""
    names = {Unanswered.__name__, GroupMissing.__name__}
    for module in pkgutil.iter_modules([str(PACKAGE)]):
        if module.name == "__main__":
            continue
        loaded = importlib.import_module(f"redis_stream_client.{module.name}")
        for name, kind in inspect.getmembers(loaded, inspect.isclass):
            if kind.__module__.startswith("redis_stream_client") and name.startswith("_"):
                names.add(name)
    return names


PRIVATE = re.compile(rf"(?<!\w)({'|'.join(sorted(private_names()))})(?!\w)")


def messages(caplog: pytest.LogCaptureFixture, least: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= least]


async def failures(redis: Redis) -> list[BaseException]:
    """What users get from a client that reaches nothing."""
    client = RedisStreamClient(redis, "orders", connect_timeout=0.2)
    errors: list[BaseException] = []
    for call in (
        client.__aenter__,
        lambda: LoadBalancerStream(redis, "orders").add("call-1"),
        lambda: LoadBalancerStream(redis, "orders").add_many(["call-1", "call-2"]),
        DeadLetters(redis, "orders").count,
        lambda: anext(aiter(DeadLetters(redis, "orders"))),
        lambda: DeadLetters(redis, "orders").put_back("1-1"),
    ):
        with pytest.raises(RedisUnavailable) as caught:
            await call()
        errors.append(caught.value)
    return errors


async def refused(proxy: TcpProxy) -> str:
    return f"redis://{HOST}:{free_port()}"


async def unknown(proxy: TcpProxy) -> str:
    return "redis://no-such-host.invalid"


async def frozen(proxy: TcpProxy) -> str:
    proxy.freeze()
    return f"{proxy.url}?socket_timeout=0.2&socket_connect_timeout=0.2"


@pytest.mark.parametrize("where", [refused, unknown, frozen])
async def test_what_cannot_be_reached_is_one_line_with_its_cause_and_one_traceback(
    proxy: TcpProxy, caplog: pytest.LogCaptureFixture, where: Callable[..., Any]
) -> None:
    caplog.set_level(logging.DEBUG, "redis_stream_client")
    async with Redis.from_url(await where(proxy)) as redis:
        errors = await failures(redis)
        host = redis.connection_pool.connection_kwargs["host"]
    for error in errors:
        assert "\n" not in str(error)
        assert host in str(error)
        printed = "".join(traceback.format_exception(error))
        assert printed.count("Traceback") == 1
        assert not PRIVATE.search(printed), printed
        assert not isinstance(error.__cause__, Unanswered)
    for message in messages(caplog, logging.DEBUG):
        assert not PRIVATE.search(message), message
        assert "\n" not in message
    assert not [message for message in messages(caplog) if message.startswith("left")]


async def test_common_failures_name_nothing_private(
    server: Server, redis: Connection, proxy: TcpProxy, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "redis_stream_client")

    async def handle(lease: Lease) -> None:
        if lease.stream == "fails":
            raise KeyError("missing")
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)

    await redis.set("wrong", "no stream")
    await write(server.url, "flows", 3)
    async with Running(proxy.url, service, handle, lock_ttl=TTL, max_attempts=1) as run:
        await announce(server.url, service, "fails", "flows", "wrong")
        await redis.xadd(f"{service}-input", {"no": "announcement"})
        await wait_until(lambda: run.client.statistics().dead_letters == 3, "three are buried")
        proxy.freeze()
        await wait_until(lambda: not run.client.alive, "it lapses")
        proxy.cut()
        proxy.thaw()
        await wait_until(lambda: run.client.alive, "it is back")
        await redis.delete(f"{service}-input")
        await wait_until(lambda: not run.client.leases, "all are lost")
    letters = [letter async for letter in DeadLetters(redis, service)]
    assert len(letters) == 3
    for text in (*messages(caplog, logging.DEBUG), *(letter.reason for letter in letters)):
        assert not PRIVATE.search(text), text
        assert "\n" not in text
    assert any("KeyError" in letter.reason for letter in letters)


async def test_a_server_without_config_and_client_is_joined_and_they_are_named(
    own_server: Callable[..., Server], service: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server("--rename-command", "CONFIG", "", "--rename-command", "CLIENT", "")
    handled: list[str] = []

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            handled.append(entry.id)
            await lease.checkpoint(entry.id)

    await write(server.url, "call-1", 3)
    async with Running(server.url, service, handle, lock_ttl=1.0):
        await announce(server.url, service, "call-1")
        await wait_until(lambda: len(handled) == 3, "they are handled")
        await write(server.url, "call-1", 1)
        await wait_until(lambda: len(handled) == 4, "it is handled")
    warnings = messages(caplog, logging.WARNING)
    assert any("CONFIG is disabled or renamed" in warning for warning in warnings)
    assert not any("6.2" in warning for warning in warnings)
    assert len(warnings) == 2, warnings


# What is written in the package's source.


def texts() -> Iterator[tuple[str, str]]:
    """Every text of the package that is used, so no docstring and no type, and where it is."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        unused = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        unused |= {id(part) for node in ast.walk(tree) for said in types_of(node) for part in ast.walk(said)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in unused:
                yield f"{path.name}:{node.lineno}", node.value


def types_of(node: ast.AST) -> list[ast.expr]:
    """What a definition says about types."""
    match node:
        case ast.FunctionDef(returns=said) | ast.AsyncFunctionDef(returns=said):
            return [said] if said else []
        case ast.arg(annotation=said):
            return [said] if said else []
        case ast.AnnAssign(annotation=annotation):
            return [annotation]
        case _:
            return []


def test_no_message_names_a_class_that_users_cannot_import() -> None:
    found = [(where, text) for where, text in texts() if " " in text and PRIVATE.search(text)]
    assert found == []


async def test_joining_losing_and_leaving_are_logged_with_who_and_what(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "redis_stream_client")
    async with Member(server.url, service, lock_ttl=0.4) as member:
        (lbs_id,) = await announce(server.url, service, "call-1")
        await member.owns("call-1")
        fence = str(member.lease("call-1").fence)
        await redis.xclaim(f"{service}-input", f"{service}-group", "peer", 0, [lbs_id], justid=True)
        await redis.set(f"{{{service}-input}}:lock:peer", '{"ttl": 60000}', px=60_000)
        await wait_until(lambda: member.disowned, "the loss is told")
    records = {(record.levelname, record.getMessage()): record for record in caplog.records}
    assert ("INFO", f"joined {service} as {member.client.id}") in records
    assert ("INFO", f"left {service}") in records
    loss = records[("WARNING", "lost call-1: claimed by peer")]
    assert (
        vars(loss).items()
        >= {
            "consumer": member.client.id,
            "stream": "call-1",
            "lbs_id": lbs_id,
            "fence": fence,
        }.items()
    )
    assert all(record.name == "redis_stream_client" for record in caplog.records)


async def test_neither_info_nor_passwords_are_logged(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "redis_stream_client")
    await redis.execute_command("ACL", "SETUSER", "member", "on", ">hush-hush", "~*", "&*", "+@all")
    url = server.url.replace("://", "://member:hush-hush@")
    try:
        async with Member(url, service, lock_ttl=0.4) as member:
            await redis.xadd(
                f"{service}-input", {"lbs-input": '{"DataStreamName": "call-1", "Info": {"card": "4711-0815"}}'}
            )
            await member.owns("call-1")
            await redis.xadd(f"{service}-input", {"lbs-input": '{"Info": {"card": "4711-0815"}}'})
            await wait_until(lambda: member.client.statistics().dead_letters, "it is buried")
            await redis.execute_command("CLIENT", "KILL", "USER", "member")
            await wait_until(lambda: member.client.statistics().reconnects >= 3, "it reconnects")
    finally:
        await redis.execute_command("ACL", "DELUSER", "member")
    text = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "hush-hush" not in text
    assert "4711-0815" not in text
