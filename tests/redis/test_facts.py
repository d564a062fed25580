"""The habits of Redis that the design relies on, pinned on whatever server the suite runs.

Nothing here touches the package: a server that fails one of these tests breaks a promise that the package
builds on, and the test's name says which.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio.client import PubSub

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

LBS = "lbs"
GROUP = "group"


@pytest.fixture(autouse=True)
async def group(redis: Connection) -> None:
    await redis.xgroup_create(LBS, GROUP, id="0", mkstream=True)


class Heard:
    """What the keyspace channel of database 0 says."""

    def __init__(self, redis: Connection, pubsub: PubSub) -> None:
        self._redis = redis
        self._pubsub = pubsub

    async def about(self, key: str) -> list[str]:
        """The events of `key` since the last call; a key of our own marks the end."""
        await self._redis.set("marker", "")
        said: list[str] = []
        while True:
            message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=10)
            assert message is not None, f"the marker did not come, only {said}"
            name = message["channel"].decode().partition(":")[2]
            if name == "marker":
                return said
            if name == key:
                said.append(message["data"].decode())


@pytest.fixture
async def heard(redis: Connection) -> AsyncIterator[Heard]:
    await redis.config_set("notify-keyspace-events", "KA")
    async with redis.pubsub() as pubsub:
        await pubsub.psubscribe("__keyspace@0__:*")
        assert await pubsub.get_message(timeout=10), "the confirmation"
        yield Heard(redis, pubsub)


@pytest.fixture
async def no_expiry_cycle(redis: Connection) -> AsyncIterator[None]:
    """Have expired keys deleted only when somebody looks at them."""
    await redis.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    yield
    await redis.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")


async def announce(redis: Connection, count: int = 1) -> list[bytes]:
    return [await redis.xadd(LBS, {"lbs-input": str(number)}) for number in range(count)]


async def read(redis: Connection, consumer: str, start: str = ">", **options: int) -> list[bytes]:
    """XREADGROUP: the ids that came."""
    reply = await redis.xreadgroup(GROUP, consumer, {LBS: start}, **options)
    return [id for _, entries in reply for id, _ in entries]


async def pending(redis: Connection) -> dict[bytes, tuple[bytes, int]]:
    """XPENDING: the owner and the delivery count of each entry."""
    rows = await redis.xpending_range(LBS, GROUP, min="-", max="+", count=1000)
    return {row["message_id"]: (row["consumer"], row["times_delivered"]) for row in rows}


async def until_blocked(redis: Connection, number: int) -> None:
    """Wait until so many clients are blocked."""

    async def blocked() -> bool:
        return bool((await redis.info("clients"))["blocked_clients"] == number)

    await wait_until(blocked, f"{number} clients are blocked")


async def consumers(redis: Connection) -> set[bytes]:
    return {row["name"] for row in await redis.xinfo_consumers(LBS, GROUP)}


# Delivery counts: the fence


async def test_delivery_counts_from_one(redis: Connection) -> None:
    [id] = await announce(redis)
    assert await read(redis, "a") == [id]
    assert await pending(redis) == {id: (b"a", 1)}


async def test_reading_one_s_history_adds_to_the_count(redis: Connection) -> None:
    [id] = await announce(redis)
    await read(redis, "a")
    assert await read(redis, "a", start="0") == [id]
    assert await pending(redis) == {id: (b"a", 2)}


async def test_claiming_adds_to_the_count_but_not_with_justid(redis: Connection) -> None:
    [id] = await announce(redis)
    await read(redis, "a")
    await redis.xclaim(LBS, GROUP, "b", 0, [id])
    assert await pending(redis) == {id: (b"b", 2)}
    await redis.xclaim(LBS, GROUP, "nobody", 0, [id], justid=True)
    assert await pending(redis) == {id: (b"nobody", 2)}
    await redis.xclaim(LBS, GROUP, "b", 0, [id])
    assert await pending(redis) == {id: (b"b", 3)}


async def test_retrycount_sets_the_count(redis: Connection) -> None:
    [id] = await announce(redis)
    await read(redis, "a")
    await redis.xclaim(LBS, GROUP, "a", 0, [id], retrycount=41)
    assert await pending(redis) == {id: (b"a", 41)}


async def test_claiming_registers_the_consumer(redis: Connection) -> None:
    [id] = await announce(redis)
    await read(redis, "a")
    await redis.xclaim(LBS, GROUP, "b", 0, [id])
    assert await consumers(redis) == {b"a", b"b"}


# Entries that are gone


async def test_a_deleted_entry_stays_pending(redis: Connection) -> None:
    [id] = await announce(redis)
    await read(redis, "a")
    await redis.xdel(LBS, id)
    assert await pending(redis) == {id: (b"a", 1)}


@pytest.mark.parametrize("how", ["deleted", "trimmed"])
async def test_claiming_an_entry_that_is_gone(server: Server, redis: Connection, how: str) -> None:
    [id] = await announce(redis)
    await read(redis, "a")
    if how == "deleted":
        await redis.xdel(LBS, id)
    else:
        await redis.xtrim(LBS, maxlen=0, approximate=False)
    script = "return redis.call('XCLAIM', KEYS[1], ARGV[1], 'b', 0, ARGV[2])"
    reply = await redis.eval(script, 1, LBS, GROUP, id)
    if server.binary.version < (7, 0):
        assert reply == [None]
        assert await pending(redis) == {id: (b"b", 2)}, "the claimer owns nothing, for ever"
    else:
        assert reply == []
        assert await pending(redis) == {}


async def test_acknowledging_asks_for_no_owner(redis: Connection) -> None:
    [id] = await announce(redis)
    await read(redis, "a")
    assert await redis.xack(LBS, GROUP, id) == 1
    assert await redis.xack(LBS, GROUP, id) == 0


async def test_deleting_a_consumer_throws_its_pending_entries_away(redis: Connection) -> None:
    await announce(redis, 2)
    await read(redis, "a")
    assert await redis.xgroup_delconsumer(LBS, GROUP, "a") == 2
    assert await pending(redis) == {}
    assert await read(redis, "b") == [], "delivered once, and pending for nobody"
    assert await redis.xlen(LBS) == 2


async def test_an_entry_pending_for_nobody_can_be_claimed_with_force(redis: Connection) -> None:
    [id] = await announce(redis)
    await read(redis, "a")
    await redis.xclaim(LBS, GROUP, "a", 0, [id], retrycount=7)
    await redis.xgroup_delconsumer(LBS, GROUP, "a")
    assert await redis.xclaim(LBS, GROUP, "nobody", 0, [id]) == []
    await redis.xclaim(LBS, GROUP, "nobody", 0, [id], force=True, justid=True)
    assert await pending(redis) == {id: (b"nobody", 1)}, "and counts anew"


# Who gets what


async def test_a_group_from_zero_delivers_what_was_announced_before(redis: Connection) -> None:
    id = await redis.xadd("early", {"lbs-input": "{}"})
    await redis.xgroup_create("early", GROUP, id="0", mkstream=True)
    reply = await redis.xreadgroup(GROUP, "a", {"early": ">"})
    assert reply[0][1][0][0] == id


async def test_blocked_consumers_are_served_first_come_first_served(server: Server, redis: Connection) -> None:
    turns: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def consume(consumer: str) -> None:
        async with Redis.from_url(server.url) as client:
            assert len(await read(client, consumer, count=1, block=10_000)) == 1
            turns.append(consumer)

    def served(number: int) -> bool:
        return len(turns) == number

    for consumer in "abc":
        tasks.append(asyncio.create_task(consume(consumer)))
        await until_blocked(redis, len(tasks))
    for number in (1, 2, 3):
        await announce(redis)
        await wait_until(partial(served, number), f"{number} of them are served")
    await asyncio.gather(*tasks)
    assert turns == ["a", "b", "c"]


async def test_a_backlog_goes_to_whoever_asks(redis: Connection) -> None:
    await announce(redis, 10)
    assert len(await read(redis, "a")) == 10
    assert await read(redis, "b") == []


async def test_a_blocked_newcomer_must_be_registered_explicitly(server: Server, redis: Connection) -> None:
    assert await read(redis, "waiting", block=1) == []
    if server.binary.name in ("redis-6.2", "redis-7.0"):
        assert b"waiting" not in await consumers(redis)
    assert await redis.xgroup_createconsumer(LBS, GROUP, "explicit") == 1
    assert await redis.xgroup_createconsumer(LBS, GROUP, "explicit") == 0
    assert b"explicit" in await consumers(redis)


@pytest.mark.parametrize("event", ["group destroyed", "stream deleted", "type changed"])
async def test_what_a_blocked_read_hears_when_its_group_goes(
    server: Server, redis: Connection, event: str
) -> None:
    async with Redis.from_url(server.url) as client:
        reading = asyncio.create_task(read(client, "a", block=500))
        await until_blocked(redis, 1)
        match event:
            case "group destroyed":
                await redis.xgroup_destroy(LBS, GROUP)
            case "stream deleted":
                await redis.delete(LBS)
            case "type changed":
                await redis.set(LBS, "a string")
        if server.binary.version < (7, 0) and event != "group destroyed":
            assert await reading == [], "it is not told, and learns of it at its next read"
        else:
            with pytest.raises(ResponseError, match=r"NOGROUP|UNBLOCKED|WRONGTYPE|no longer exists"):
                await reading


# Inside scripts


async def test_what_scripts_may_call(redis: Connection) -> None:
    [first, second] = await announce(redis, 2)
    script = """
        local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], 'a', 'COUNT', 1, 'STREAMS', KEYS[1], '>')
        local mine = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 10, 'a')
        local idle = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', 0, '-', '+', 10)
        local consumers = redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
        local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
        local now = redis.call('TIME')
        redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], 'b')
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], 'b')
        redis.call('PUBLISH', 'channel', cjson.encode({now = now[1]}))
        redis.call('PUBSUB', 'NUMSUB', 'channel')
        redis.call('XACK', KEYS[1], ARGV[1], mine[1][1])
        redis.call('XDEL', KEYS[1], mine[1][1])
        return {mine[1][1], mine[1][2], mine[1][4], idle[1][1], #consumers, #groups}
    """
    assert await redis.eval(script, 1, LBS, GROUP) == [first, b"a", 1, first, 1, 1]
    assert await read(redis, "c") == [second]


async def test_pending_by_consumer_is_exact(redis: Connection) -> None:
    ids = await announce(redis, 4)
    for consumer in ("a", "b", "a", "b"):
        await read(redis, consumer, count=1)
    script = "return redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1, ARGV[3])"
    found = await redis.eval(script, 1, LBS, GROUP, ids[1], "b")
    assert [(row[0], row[1], row[3]) for row in found] == [(ids[1], b"b", 1)]
    assert await redis.eval(script, 1, LBS, GROUP, ids[1], "a") == []


async def test_a_flushed_script_is_refused_raw_and_reloaded_when_registered(redis: Connection) -> None:
    script = redis.register_script("return ARGV[1]")
    assert await script(args=["once"]) == b"once"
    await redis.script_flush()
    with pytest.raises(NoScriptError):
        await redis.evalsha(script.sha, 0, "raw")
    assert await script(args=["again"]) == b"again"


async def test_a_full_server_refuses_what_grows_and_allows_the_rest(server: Server, redis: Connection) -> None:
    [first, second] = await announce(redis, 2)
    await read(redis, "a")
    await redis.set("lock", "holder", px=60_000)
    await redis.config_set("maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        await redis.set("lock", "holder", px=60_000)
    with pytest.raises(OutOfMemoryError):
        await announce(redis)
    with pytest.raises(OutOfMemoryError):
        await redis.xgroup_createconsumer(LBS, GROUP, "late")
    # 6.2 wraps the error of a command in a script, and redis-py then knows it by its text alone.
    in_script = ResponseError if server.binary.version < (7, 0) else OutOfMemoryError
    with pytest.raises(in_script, match=r"OOM|memory"):
        await redis.eval("return redis.call('SET', KEYS[1], 'holder')", 1, "lock")

    assert await redis.eval("return redis.call('PEXPIRE', KEYS[1], 60000)", 1, "lock") == 1
    script = """
        redis.call('XCLAIM', KEYS[1], ARGV[1], 'b', 0, ARGV[2])
        redis.call('XCLAIM', KEYS[1], ARGV[1], 'nobody', 0, ARGV[3], 'JUSTID')
        redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
        redis.call('XDEL', KEYS[1], ARGV[2])
        return redis.call('PUBLISH', 'channel', 'hint')
    """
    assert await redis.eval(script, 1, LBS, GROUP, first, second) == 0
    assert await pending(redis) == {second: (b"nobody", 1)}


# Keyspace notifications


@pytest.mark.usefixtures("no_expiry_cycle")
async def test_an_expiry_is_announced_when_somebody_looks(redis: Connection, heard: Heard) -> None:
    look = "return redis.call('EXISTS', KEYS[1])"

    async def expired() -> bool:
        return bool(await redis.eval(look, 1, "lock") == 0)

    await redis.set("lock", "holder", px=1)
    await wait_until(expired, "a script sees that it is gone")
    assert await heard.about("lock") == ["set", "expire", "expired"]


@pytest.mark.usefixtures("no_expiry_cycle")
async def test_without_a_look_an_expiry_is_not_announced(redis: Connection, heard: Heard) -> None:
    async def later_expired() -> bool:
        return not await redis.exists("later")

    await redis.set("lock", "holder", px=1)
    await redis.set("later", "holder", px=20)
    await wait_until(later_expired, "what should live longer is gone")
    assert await heard.about("lock") == ["set", "expire"]


async def test_deleting_and_expiring_into_the_past_are_announced(
    server: Server, redis: Connection, heard: Heard
) -> None:
    await redis.set("lock", "holder")
    await redis.delete("lock")
    assert await heard.about("lock") == ["set", "del"]
    await redis.set("lock", "holder")
    await redis.pexpire("lock", 0)
    gone = "expired" if server.binary.name == "valkey" else "del"
    assert await heard.about("lock") == ["set", gone]


async def test_events_belong_to_their_database(server: Server, heard: Heard) -> None:
    async with Redis.from_url(f"{server.url}/1") as other, other.pubsub() as pubsub:
        await pubsub.psubscribe("__keyspace@1__:*")
        await pubsub.get_message(timeout=5)
        await other.set("lock", "holder")
        message = await wait_until(lambda: pubsub.get_message(timeout=0.1), "its own database says so")
        assert message["channel"] == b"__keyspace@1__:lock"
    assert await heard.about("lock") == []


async def test_patterns_are_globs_unless_escaped(redis: Connection) -> None:
    await redis.config_set("notify-keyspace-events", "KA")
    async with redis.pubsub() as pubsub:
        await pubsub.psubscribe(r"__keyspace@0__:a\[b\]\*:lock:*")
        assert await pubsub.get_message(timeout=10), "the confirmation"
        await redis.set("ab:lock:other", "holder")
        await redis.set("a[b]*:lock:mine", "holder")
        message = await wait_until(lambda: pubsub.get_message(timeout=0.1), "the event comes")
        assert message["channel"] == b"__keyspace@0__:a[b]*:lock:mine"
