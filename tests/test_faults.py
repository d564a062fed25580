"""What the servers' errors mean: refused for good, to be repeated, or a group that must be made anew.

The texts are those of real servers: either provoked, or sent by one word for word from a script.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,  # noqa: A004 - redis-py's own
    InvalidResponse,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004
)

from redis_stream_client import RedisRejected
from redis_stream_client.faults import GroupMissing, Unanswered, of, of_reply
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.connection import Connection
    from tests.servers import Server


async def refusal(redis: Connection, *command: Any) -> ResponseError:
    with pytest.raises(ResponseError) as caught:
        await redis.execute_command(*command)
    return caught.value


async def both_refusals(redis: Connection, *command: Any) -> list[ResponseError]:
    """The error of a command that is sent, and of one that a script calls."""
    words = ", ".join(f"'{word}'" for word in command)
    return [
        await refusal(redis, *command),
        await refusal(redis, "EVAL", f"return redis.call({words})", 0),
    ]


async def said(redis: Connection, text: str) -> RedisError:
    """The error that redis-py makes of this text, sent by a server."""
    with pytest.raises(RedisError) as caught:
        await redis.eval(f"return redis.error_reply({text!r})", 0)
    return caught.value


async def test_a_key_of_another_type_is_refused_for_good(redis: Connection) -> None:
    await redis.set("lbs", "text")
    for error in await both_refusals(redis, "XLEN", "lbs"):
        fault = of_reply(error)
        assert isinstance(fault, RedisRejected)
        assert "another type" in str(fault)
        assert fault.__cause__ is error


@pytest.mark.parametrize(
    "command",
    [
        ("XREADGROUP", "GROUP", "group", "me", "STREAMS", "lbs", ">"),
        ("XPENDING", "lbs", "group", "-", "+", 10),
        ("XPENDING", "lbs", "group", "-", "+", 10, "me"),
        ("XCLAIM", "lbs", "group", "me", 0, "1-1"),
        ("XINFO", "CONSUMERS", "lbs", "group"),
        ("XGROUP", "DELCONSUMER", "lbs", "group", "me"),
        ("XGROUP", "CREATECONSUMER", "lbs", "group", "me"),
    ],
    ids=lambda command: " ".join(map(str, command[:2])),
)
@pytest.mark.parametrize("stream", ["no stream", "no group"])
async def test_a_missing_stream_or_group_is_known_as_such(
    redis: Connection, command: tuple[Any, ...], stream: str
) -> None:
    if stream == "no group":
        await redis.xadd("lbs", {"a": "b"})
    for error in await both_refusals(redis, *command):
        assert isinstance(of_reply(error), GroupMissing), error


async def test_a_missing_stream_is_known_when_its_groups_are_asked_for(redis: Connection) -> None:
    for error in await both_refusals(redis, "XINFO", "GROUPS", "lbs"):
        assert isinstance(of_reply(error), GroupMissing), error


async def test_a_stream_that_is_deleted_under_a_blocked_read_is_known_as_missing(redis: Connection) -> None:
    await redis.xgroup_create("lbs", "group", mkstream=True)

    async def read_until_refused() -> ResponseError:
        while True:  # Redis 6.2 lets a blocked read time out
            try:
                await redis.xreadgroup("group", "me", {"lbs": ">"}, block=2000)
            except ResponseError as error:
                return error

    read = asyncio.create_task(read_until_refused())

    async def blocked() -> bool:
        return bool((await redis.info("clients"))["blocked_clients"])

    await wait_until(blocked, "the read blocks")
    await redis.delete("lbs")
    assert isinstance(of_reply(await read), GroupMissing)


async def test_a_full_redis_may_take_it_later(redis: Connection) -> None:
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", 1)
    for error in await both_refusals(redis, "SET", "a", "b"):
        fault = of_reply(error)
        assert isinstance(fault, Unanswered), error
        assert not fault.maybe_executed
        assert not fault.elsewhere


async def test_a_redis_without_its_replicas_may_take_it_later(redis: Connection) -> None:
    await redis.config_set("min-replicas-to-write", 1)
    for error in await both_refusals(redis, "SET", "a", "b"):
        fault = of_reply(error)
        assert isinstance(fault, Unanswered), error
        assert not fault.elsewhere


async def test_a_replica_says_that_the_master_is_elsewhere(own_server: Callable[..., Server]) -> None:
    server = own_server("--replicaof", "127.0.0.1", "1")
    async with Redis.from_url(server.url) as redis:
        readonly = await both_refusals(redis, "SET", "a", "b")
        await redis.config_set("replica-serve-stale-data", "no")
        for error in [*readonly, await refusal(redis, "GET", "a")]:
            fault = of_reply(error)
            assert isinstance(fault, Unanswered), error
            assert fault.elsewhere, error
            assert not fault.maybe_executed


async def test_a_cluster_without_the_slot_says_that_it_is_elsewhere(own_server: Callable[..., Server]) -> None:
    server = own_server("--cluster-enabled", "yes")
    async with Redis.from_url(server.url) as redis:
        fault = of_reply(await refusal(redis, "GET", "a"))
    assert isinstance(fault, Unanswered)
    assert fault.elsewhere


async def test_a_server_that_is_busy_with_a_script_may_take_it_later(own_server: Callable[..., Server]) -> None:
    server = own_server("--lua-time-limit", "1")
    async with Redis.from_url(server.url) as redis, Redis.from_url(server.url) as other:
        script = asyncio.create_task(refusal(redis, "EVAL", "while true do end", 0))

        async def busy() -> ResponseError | None:
            try:
                await other.get("a")
            except ResponseError as error:
                return error
            return None

        fault = of_reply(await wait_until(busy, "the server says that it is busy"))
        await other.script_kill()
        await script
    assert isinstance(fault, Unanswered)
    assert not fault.maybe_executed


@pytest.mark.parametrize(
    ("text", "elsewhere"),
    [
        ("LOADING Redis is loading the dataset in memory", False),
        ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist.", False),
        ("ERR max number of clients reached", False),
        ("TRYAGAIN Multiple keys request during rehashing of slot", False),
        ("MOVED 3999 127.0.0.1:6381", True),
        ("ASK 3999 127.0.0.1:6381", True),
        ("CLUSTERDOWN The cluster is down", True),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", True),
        ("READONLY You can't write against a read only replica.", True),
    ],
    ids=lambda value: value.partition(" ")[0] if isinstance(value, str) else "",
)
async def test_a_passing_refusal_may_be_repeated(redis: Connection, text: str, elsewhere: bool) -> None:
    error = await said(redis, text)
    fault = of(error)
    assert isinstance(fault, Unanswered)
    assert fault.elsewhere == elsewhere
    assert not fault.maybe_executed or isinstance(error, ConnectionError)


async def test_a_missing_permission_is_refused_for_good_and_the_acl_rule_is_hinted_at(
    redis: Connection, server: Server
) -> None:
    await redis.acl_setuser(
        "guest",
        enabled=True,
        passwords=["+p"],
        keys=["mine"],
        reset_channels=True,
        channels=["x"],
        commands=["+@all", "-xlen"],
    )
    async with Redis(port=server.port, username="guest", password="p") as guest:
        errors = await both_refusals(guest, "XLEN", "mine")
        errors += [await refusal(guest, "GET", "yours"), await refusal(guest, "PUBLISH", "y", "")]
        errors += [await refusal(guest, "EVAL", "return redis.call('GET', 'yours')", 0)]
        errors += [await refusal(guest, "EVAL", "return redis.call('PUBLISH', 'y', '')", 0)]
    await redis.acl_deluser("guest")
    for error in errors:
        fault = of_reply(error)
        assert isinstance(fault, RedisRejected), error
        assert "permit" in str(fault), error
        assert "ACL" in (fault.hint or ""), error


@pytest.mark.parametrize("command", [("XNOSUCH", "a"), ("XINFO", "NOSUCH", "a"), ("XGROUP", "NOSUCH", "a")])
async def test_a_server_that_lacks_a_command_is_refused_with_the_oldest_version_that_works(
    redis: Connection, command: tuple[str, ...]
) -> None:
    await redis.xadd("a", {"b": "c"})
    fault = of_reply(await refusal(redis, *command))
    assert isinstance(fault, RedisRejected)
    assert fault.hint is not None
    assert "6.2" in fault.hint


@pytest.mark.parametrize(
    "text", ["ERR syntax error", "ERR wrong number of arguments", "BUSYGROUP exists", "NEWCODE x"]
)
async def test_what_is_not_known_is_refused_for_good_with_the_servers_words(redis: Connection, text: str) -> None:
    fault = of(await said(redis, text))
    assert isinstance(fault, RedisRejected)
    assert text.partition(" ")[2] in str(fault)


@pytest.mark.parametrize(
    "error", [AuthenticationError("WRONGPASS"), AuthorizationError(""), AuthenticationError("")]
)
def test_a_refused_login_names_the_server_and_what_to_check(error: Exception) -> None:
    fault = of(error, "localhost:6379")
    assert isinstance(fault, RedisRejected)
    assert str(fault).startswith("localhost:6379 refuses the login")
    assert "password" in str(fault)
    assert fault.__cause__ is error


def test_what_is_no_redis_is_said_to_be_none() -> None:
    fault = of(InvalidResponse("Protocol error, got 'H' as reply type byte"), "localhost:80")
    assert isinstance(fault, RedisRejected)
    assert str(fault).startswith("localhost:80 does not speak the Redis protocol")


def test_a_certificate_that_cannot_be_verified_is_refused_for_good_wherever_it_hides() -> None:
    error = ConnectionError("Error 1 connecting to localhost:6379")
    error.__context__ = OSError("outer")
    error.__context__.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    fault = of(error, "localhost:6379")
    assert isinstance(fault, RedisRejected)
    assert "certificate of localhost:6379" in str(fault)


def test_errors_that_cause_each_other_are_survived() -> None:
    one, other = ConnectionError("one"), ConnectionError("other")
    one.__cause__, other.__cause__ = other, one
    assert isinstance(of(one), Unanswered)


@pytest.mark.parametrize(
    "error",
    [ConnectionError("reset"), TimeoutError("slow"), ConnectionResetError(), OSError("no route"), EOFError()],
)
def test_a_broken_connection_leaves_open_whether_the_command_was_executed(error: Exception) -> None:
    fault = of(error)
    assert isinstance(fault, Unanswered)
    assert fault.maybe_executed
    assert not fault.elsewhere
    assert str(fault)
