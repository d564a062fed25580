"""What the servers' errors mean: refused for good, to be repeated, or a group that must be made anew.

The texts are those of real servers: either provoked, or sent by one word for word from a script.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from redis._parsers.base import BaseParser  # no other way leads from a reply's text to redis-py's error
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

from redis_stream_client import RedisRejected, RedisStreamClient
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered, map_error, map_probe, map_reply
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.connection import Connection
    from tests.harness.servers import Server


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
        fault = map_reply(error)
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
        assert isinstance(map_reply(error), GroupMissing), error


async def test_a_missing_stream_is_known_when_its_groups_are_asked_for(redis: Connection) -> None:
    for error in await both_refusals(redis, "XINFO", "GROUPS", "lbs"):
        assert isinstance(map_reply(error), GroupMissing), error


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
    assert isinstance(map_reply(await read), GroupMissing)


async def test_a_full_redis_may_take_it_later(redis: Connection) -> None:
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", 1)
    for error in await both_refusals(redis, "SET", "a", "b"):
        fault = map_reply(error)
        assert isinstance(fault, Unanswered), error
        assert not fault.maybe_executed
        assert not fault.elsewhere


async def test_a_redis_without_its_replicas_may_take_it_later(redis: Connection) -> None:
    await redis.config_set("min-replicas-to-write", 1)
    for error in await both_refusals(redis, "SET", "a", "b"):
        fault = map_reply(error)
        assert isinstance(fault, Unanswered), error
        assert not fault.elsewhere


async def test_a_replica_says_that_the_master_is_elsewhere(own_server: Callable[..., Server]) -> None:
    server = own_server("--replicaof", "127.0.0.1", "1")
    async with Redis.from_url(server.url) as redis:
        readonly = await both_refusals(redis, "SET", "a", "b")
        await redis.config_set("replica-serve-stale-data", "no")
        for error in [*readonly, await refusal(redis, "GET", "a")]:
            fault = map_reply(error)
            assert isinstance(fault, Unanswered), error
            assert fault.elsewhere, error
            assert not fault.maybe_executed


async def test_a_cluster_without_the_slot_says_that_it_is_elsewhere(own_server: Callable[..., Server]) -> None:
    server = own_server("--cluster-enabled", "yes")
    async with Redis.from_url(server.url) as redis:
        fault = map_reply(await refusal(redis, "GET", "a"))
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

        fault = map_reply(await wait_until(busy, "the server says that it is busy"))
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
        ("ASK 3999 127.0.0.1:6381", False),
        ("CLUSTERDOWN The cluster is down", True),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", True),
        ("READONLY You can't write against a read only replica.", True),
    ],
    ids=lambda value: value.partition(" ")[0] if isinstance(value, str) else "",
)
async def test_a_passing_refusal_may_be_repeated(redis: Connection, text: str, elsewhere: bool) -> None:
    error = await said(redis, text)
    fault = map_error(error)
    assert isinstance(fault, Unanswered)
    assert fault.elsewhere == elsewhere
    assert not fault.maybe_executed or isinstance(error, ConnectionError)


# Texts of Redis 6.2, 7.0 and 8.2 and of Valkey 9.1, sent by them word for word.

CALLED = "ERR Error running script (call to f_6fbac1200676ca8a9c08a38adc82bcc8e026262e): @user_script:1: "
BY_CALL = f"{CALLED}@user_script: 1: "
IN_7 = " script: 6fbac1200676ca8a9c08a38adc82bcc8e026262e, on @user_script:1."
IN_9 = " script: on @user_script:1."

PASSING = [
    "ASK 3999 127.0.0.1:6381",
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    f"{BY_CALL}-OOM command not allowed when used memory > 'maxmemory'.",
    f"OOM command not allowed when used memory > 'maxmemory'.{IN_7}",
    "NOREPLICAS Not enough good replicas to write.",
    f"{BY_CALL}-NOREPLICAS Not enough good replicas to write.",
    f"NOREPLICAS Not enough good replicas to write.{IN_9}",
    "MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk.",
    f"{BY_CALL}-MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist.",
    "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "ERR max number of clients reached",
    "ERR max number of clients + cluster connections reached",
    "UNBLOCKED client unblocked via CLIENT UNBLOCK",
]
ELSEWHERE = [
    "READONLY You can't write against a read only replica.",
    f"{BY_CALL}-READONLY You can't write against a read only replica.",
    f"READONLY You can't write against a read only replica.{IN_9}",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "MOVED 3999 127.0.0.1:6381",
    "MOVED 3999 :6381",
    "CLUSTERDOWN Hash slot not served",
    "CLUSTERDOWN The cluster is down",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
]
NO_GROUP = [
    "NOGROUP No such key 'lbs' or consumer group 'g' in XREADGROUP with GROUP option",
    f"{CALLED}NOGROUP No such key 'lbs' or consumer group 'g'",
    f"NOGROUP No such consumer group 'g' for key name 'lbs'{IN_7}",
    "NOGROUP the consumer group this client was blocked on no longer exists",
    "UNBLOCKED the stream key no longer exists",
    "ERR no such key",
    f"{CALLED}ERR no such key",
    f"ERR no such key{IN_9}",
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM.",
]
FOR_GOOD = [
    "BUSYGROUP Consumer Group name already exists",
    f"BUSYGROUP Consumer Group name already exists{IN_7}",
    f"{CALLED}BUSYGROUP Consumer Group name already exists",
    "BUSYKEY Target key name already exists.",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "NOPROTO unsupported protocol version",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "ERR DISABLED You can't do that here",
    "ERR SELECT is not allowed in cluster mode",
    "ERR DB index is out of range",
    "ERR unsupported command",
    "ERR Protocol error: invalid bulk length",
    "ERR syntax error",
    # Somebody's own words that look like a code.
    "WRONGTYPE Operation against key 'MOVED' holding the wrong kind of value",
    "NOPERM User LOADING has no permissions to run the 'xlen' command",
    "NOPERM this user has no permissions to access channel NOGROUP",
    "ERR unknown command `XNOSUCH`, with args beginning with: `a`, `MOVED`, ",
    "ERR unknown command 'XNOSUCH', with args beginning with: 'BUSY' 'NOGROUP' 'no such key' ",
    f"{CALLED}user_script:1: MOVED LOADING OOM",
    f"ERR user_script:1: MOVED LOADING OOM{IN_7}",
    "ERR the stream READONLY is not what it seems: no such key",
    "ERR Invalid stream ID: max number of clients",
]


def replied(text: str) -> Exception:
    """What redis-py makes of an error reply."""
    error: Exception = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    return error


@pytest.mark.parametrize("text", [*PASSING, *ELSEWHERE])
def test_refusals_that_pass_are_told_by_their_code(text: str) -> None:
    fault = map_error(replied(text))
    assert isinstance(fault, Unanswered)
    assert not fault.maybe_executed
    assert fault.elsewhere == (text in ELSEWHERE)


@pytest.mark.parametrize("text", NO_GROUP)
def test_a_group_that_is_not_there_is_told_by_its_code(text: str) -> None:
    assert isinstance(map_error(replied(text)), GroupMissing)


@pytest.mark.parametrize("text", FOR_GOOD)
def test_everything_else_is_refused_for_good_whatever_words_it_quotes(text: str) -> None:
    fault = map_error(replied(text))
    assert isinstance(fault, RedisRejected)
    assert "\n" not in str(fault)
    assert "user_script:1." not in str(fault)


@pytest.mark.parametrize(
    "text",
    [
        f"{BY_CALL}Lua script attempted to access a non local key in a cluster node",
        f"ERR Script attempted to access a slot not served{IN_7}",
        f"ERR Attempted to access a non local key in a cluster node{IN_9}",
    ],
)
def test_a_slot_that_leaves_under_a_script_leaves_it_open_what_was_done(text: str) -> None:
    fault = map_error(replied(text))
    assert isinstance(fault, Unanswered)
    assert fault.elsewhere
    assert fault.maybe_executed


@pytest.mark.parametrize(
    ("text", "named", "old"),
    [
        ("ERR unknown command `CONFIG`, with args beginning with: `GET`, `x`, ", "CONFIG", False),
        ("ERR unknown command 'CLIENT', with args beginning with: 'TRACKING' 'ON' ", "CLIENT", False),
        ("ERR unknown command 'CONFIG'", "CONFIG", False),
        ("ERR unknown command 'a', with args beginning with: 'b'. Try XINFO HELP.", "A is", False),
        ("ERR unknown subcommand 'TRACKING'. Try CLIENT HELP.", "CLIENT TRACKING", False),
        (
            "ERR Unknown subcommand or wrong number of arguments for 'TRACKING'. Try CLIENT HELP.",
            "CLIENT TRACKING",
            False,
        ),
        ("ERR unknown command 'PUBLISH', with args beginning with: ", "PUBLISH", False),
        (
            "ERR Unknown subcommand or wrong number of arguments for 'CREATECONSUMER'. Try XGROUP HELP.",
            "XGROUP CREATECONSUMER",
            True,
        ),
        ("ERR unknown command `XAUTOCLAIM`, with args beginning with: `a`, ", "XAUTOCLAIM", True),
        (f"{BY_CALL}Unknown Redis command called from Lua script", "lacks a command", True),
        (f"ERR Unknown Redis command called from script{IN_7}", "lacks a command", True),
        (f"ERR Unknown command called from script{IN_9}", "lacks a command", True),
    ],
)
def test_a_command_that_is_not_there_is_named_and_no_newer_server_is_asked_for_in_vain(
    text: str, named: str, old: bool
) -> None:
    fault = map_error(replied(text))
    assert isinstance(fault, RedisRejected)
    assert named in str(fault)
    assert ("6.2" in (fault.hint or "")) == old
    assert old or "disabled or renamed" in (fault.hint or "")


@pytest.mark.parametrize("command", ["CONFIG", "CLIENT"])
async def test_a_renamed_command_is_said_to_be_one(own_server: Callable[..., Server], command: str) -> None:
    server = own_server("--rename-command", command, "")
    async with Redis.from_url(server.url) as redis:
        fault = map_reply(await refusal(redis, command, "GET", "a"))
    assert isinstance(fault, RedisRejected)
    assert fault.hint is not None
    assert fault.hint.startswith(f"{command} is disabled or renamed")


async def test_a_read_that_ends_with_the_masters_role_is_no_missing_group(
    own_server: Callable[..., Server],
) -> None:
    server = own_server()
    async with Redis.from_url(server.url) as redis, Redis.from_url(server.url) as operator:
        await redis.xgroup_create("lbs", "group", mkstream=True)
        words = ("XREADGROUP", "GROUP", "group", "me", "BLOCK", 9000, "STREAMS", "lbs", ">")
        read = asyncio.create_task(refusal(redis, *words))

        async def blocked() -> bool:
            return bool((await operator.info("clients"))["blocked_clients"])

        await wait_until(blocked, "the read blocks")
        await operator.replicaof("127.0.0.1", "1")
        fault = map_reply(await read)
    assert isinstance(fault, Unanswered)
    assert fault.elsewhere
    assert not fault.maybe_executed


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
        fault = map_reply(error)
        assert isinstance(fault, RedisRejected), error
        assert "permit" in str(fault), error
        assert "ACL" in (fault.hint or ""), error


@pytest.mark.parametrize("command", [("XNOSUCH", "a"), ("XINFO", "NOSUCH", "a"), ("XGROUP", "NOSUCH", "a")])
async def test_a_server_that_lacks_a_command_is_refused_with_the_oldest_version_that_works(
    redis: Connection, command: tuple[str, ...]
) -> None:
    await redis.xadd("a", {"b": "c"})
    fault = map_reply(await refusal(redis, *command))
    assert isinstance(fault, RedisRejected)
    assert fault.hint is not None
    assert "6.2" in fault.hint


@pytest.mark.parametrize(
    "text", ["ERR syntax error", "ERR wrong number of arguments", "BUSYGROUP exists", "NEWCODE x"]
)
async def test_what_is_not_known_is_refused_for_good_with_the_servers_words(redis: Connection, text: str) -> None:
    fault = map_error(await said(redis, text))
    assert isinstance(fault, RedisRejected)
    assert text.partition(" ")[2] in str(fault)


@pytest.mark.parametrize(
    "error", [AuthenticationError("WRONGPASS"), AuthorizationError(""), AuthenticationError("")]
)
def test_a_refused_login_names_the_server_and_what_to_check(error: Exception) -> None:
    fault = map_error(error, "localhost:6379")
    assert isinstance(fault, RedisRejected)
    assert str(fault).startswith("localhost:6379 refuses the login")
    assert "password" in str(fault)
    assert fault.__cause__ is error


def test_what_is_no_redis_is_said_to_be_none() -> None:
    fault = map_error(InvalidResponse("Protocol error, got 'H' as reply type byte"), "localhost:80")
    assert isinstance(fault, RedisRejected)
    assert str(fault).startswith("localhost:80 does not speak the Redis protocol")


def test_a_certificate_that_cannot_be_verified_is_refused_for_good_wherever_it_hides() -> None:
    error = ConnectionError("Error 1 connecting to localhost:6379")
    error.__context__ = OSError("outer")
    error.__context__.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    fault = map_error(error, "localhost:6379")
    assert isinstance(fault, RedisRejected)
    assert "certificate of localhost:6379" in str(fault)


def test_errors_that_cause_each_other_are_survived() -> None:
    one, other = ConnectionError("one"), ConnectionError("other")
    one.__cause__, other.__cause__ = other, one
    assert isinstance(map_error(one), Unanswered)


@pytest.mark.parametrize(
    "error",
    [ConnectionError("reset"), TimeoutError("slow"), ConnectionResetError(), OSError("no route"), EOFError()],
)
def test_a_broken_connection_leaves_open_whether_the_command_was_executed(error: Exception) -> None:
    fault = map_error(error)
    assert isinstance(fault, Unanswered)
    assert fault.maybe_executed
    assert not fault.elsewhere
    assert str(fault)


# What a client asks for when it joins.


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        ([("XINFO", "NOGROUP No such consumer group 'oracle-perm' for key name 'unknown-wrongtype'")], None),
        (
            [
                ("XADD", "ERR The ID specified in XADD must be greater than 0-0"),
                ("SET", "OOM command not allowed"),
            ],
            None,
        ),
        (
            [("XLEN", "NOPERM User WRONGTYPE has no permissions to run the 'xlen' command")],
            "XLEN: User WRONGTYPE has",
        ),
        (
            [("XACK", "@user_script: 1: The user executing the script can't run this command or subcommand")],
            "permit",
        ),
        ([("XDEL", "ERR ACL failure in script: User a has no permissions to run the 'xdel' command")], "permit"),
        ([("XLEN", "WRONGTYPE Operation against a key holding the wrong kind of value")], "another type of value"),
        ([("PUBLISH", "@user_script: 1: Unknown Redis command called from Lua script")], "PUBLISH is disabled"),
        ([("TIME", "ERR Unknown command called from script")], "TIME is disabled or renamed"),
    ],
)
def test_what_cannot_be_used_at_all_is_told_from_what_fails_now(
    failed: list[tuple[str, str]], said: str | None
) -> None:
    fault = map_probe(failed)
    assert (fault is None) == (said is None)
    assert said is None or said in str(fault)


async def test_a_renamed_command_is_named_when_joining(own_server: Callable[..., Server], service: str) -> None:
    server = own_server("--rename-command", "PTTL", "")
    with pytest.raises(RedisRejected, match="PTTL is disabled or renamed"):
        async with RedisStreamClient.from_url(server.url, service, connect_timeout=2.0):
            pytest.fail("joined")
