"""The permissions that a client needs: the rules in the documentation, and what happens with less."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from redis_stream_client import (
    Entry,
    Fleet,
    FleetStatus,
    Lease,
    LoadBalancerStream,
    NotInTime,
    RedisRejected,
    RedisStreamClient,
    StreamAdded,
    StreamStatus,
)
from redis_stream_client._model.keys import Keys
from tests.harness.permissions import (
    DATA_RULE,
    FLEET_RULE,
    OPERATOR_RULE,
    PRODUCER_RULE,
    RETENTION_RULE,
    RULE,
    WRITER_RULE,
)
from tests.harness.runs import idle
from tests.harness.scenes import bury_one, claim_next, die_with, live_through_it, next_event, release_and_retake
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

USER = RULE[2]
PASSWORD = next(word.removeprefix(">") for word in RULE if word.startswith(">"))
SERVICE = next(word for word in RULE if word.endswith("-input")).removeprefix("~").removesuffix("-input")
PRESENCE = {"+info", "+pubsub|numsub", "+hget", "+hgetall", "+hlen", "+hset", "+hdel"}
FORGETTING = {"+hmget", "+hscan"}
OPTIONAL = {"+config|get", "+config|set", *PRESENCE, *FORGETTING}
"""What the documentation says may be left out."""


@pytest.fixture
def rule(server: Server) -> Iterator[list[str]]:
    """The words of the rule, in force; a test may take some away with `apply`."""
    apply(server, RULE)
    yield RULE
    server.command("ACL", "DELUSER", USER)


def apply(server: Server, rule: list[str]) -> None:
    server.command("ACL", "DELUSER", USER)
    server.command(*rule)


def user_s_url(server: Server) -> str:
    return server.url.replace("redis://", f"redis://{USER}:{PASSWORD}@")


async def refused(client: RedisStreamClient, because: str = "does not permit") -> None:
    """Check that joining says what Redis does not permit."""
    with pytest.raises(RedisRejected, match=because):
        async with client:
            pass


async def do_everything(client: RedisStreamClient, redis: Connection) -> None:
    """All that a client does with streams, and one sweep of each kind."""
    await live_through_it(client, redis, SERVICE)
    await release_and_retake(client, redis, SERVICE)
    await bury_one(client, redis, SERVICE)


@pytest.mark.usefixtures("rule")
async def test_the_rule_is_enough(server: Server, redis: Connection, caplog: pytest.LogCaptureFixture) -> None:
    async with RedisStreamClient.from_url(user_s_url(server), SERVICE, lock_ttl=0.6) as client:
        await do_everything(client, redis)
        # A sweep that tidies up: what an operator took from a consumer is rescued, and the dead are forgotten.
        keys = Keys(SERVICE)
        ghost = await die_with(redis, SERVICE, "rescued", lock_ttl=5.0)
        await redis.xgroup_delconsumer(keys.lbs, keys.group, ghost)
        await (await claim_next(client, "rescued")).done()
        await wait_until(lambda: only_member(redis, client), "the dead are forgotten", timeout=20)
        assert client.statistics().presence.state == "declared"
    assert not [record for record in caplog.records if "not permit" in record.message]
    assert "notify-keyspace-events" not in caplog.text


async def only_member(redis: Connection, client: RedisStreamClient) -> bool:
    keys = Keys(SERVICE)
    members = {member["name"].decode() for member in await redis.xinfo_consumers(keys.lbs, keys.group)}
    return members == {client.id, "nobody"} or members == {client.id}


async def test_another_database_needs_two_changes(server: Server, rule: list[str]) -> None:
    apply(server, [*(word.replace("@0", "@3") for word in rule), "+select"])
    client = RedisStreamClient.from_url(f"{user_s_url(server)}/3", SERVICE, lock_ttl=1.0)
    async with Redis.from_url(f"{server.url}/3") as redis, client:
        await live_through_it(client, redis, SERVICE)


@pytest.mark.usefixtures("rule")
async def test_leaving_is_permitted(server: Server, redis: Connection) -> None:
    async with RedisStreamClient.from_url(user_s_url(server), SERVICE, lock_ttl=30.0) as client:
        lock = Keys(SERVICE).lock(client.id)
        assert await redis.exists(lock)
    assert not await redis.exists(lock)


async def test_other_services_are_out_of_reach(server: Server, rule: list[str]) -> None:
    assert rule
    await refused(RedisStreamClient.from_url(user_s_url(server), "payments"))


@pytest.mark.parametrize("word", [word for word in RULE if word[0] in "+~&" and word not in OPTIONAL])
async def test_nothing_of_the_rule_can_be_left_out(server: Server, rule: list[str], word: str) -> None:
    apply(server, [other for other in rule if other != word])
    await refused(RedisStreamClient.from_url(user_s_url(server), SERVICE))


BELLS = {"+client|id", "+client|tracking", "&__redis__:invalidate"}
"""What the documentation says may be left out by handlers that read."""


async def read_and_finish(server: Server, redis: Connection, caplog: pytest.LogCaptureFixture) -> list[Entry]:
    """Let a handler read two entries, of which the second comes when it waits for it, and finish the stream."""
    caplog.set_level(logging.WARNING, "redis_stream_client")
    read: list[Entry] = []

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            read.append(entry)
            await lease.checkpoint(entry.id)
            if b"end" in entry.fields:
                return

    await redis.xadd("call-1", {"n": 1})
    await LoadBalancerStream(redis, SERVICE).add("call-1")
    client = RedisStreamClient.from_url(user_s_url(server), SERVICE)
    async with client.running(handle, max_attempts=1):
        await wait_until(lambda: read, "the first entry was read")
        await redis.xadd("call-1", {"n": 2, "end": ""})
        await wait_until(lambda: client.statistics().streams_done, "the stream is done", timeout=5)
    return read


async def test_the_rule_for_reading_is_enough(
    server: Server, rule: list[str], redis: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    apply(server, [*rule, *DATA_RULE[3:]])
    assert len(await read_and_finish(server, redis, caplog)) == 2
    assert not caplog.records


@pytest.mark.parametrize("word", sorted(BELLS))
async def test_without_wake_ups_one_warning_and_entries_arrive_all_the_same(
    server: Server, rule: list[str], redis: Connection, caplog: pytest.LogCaptureFixture, word: str
) -> None:
    apply(server, [other for other in [*rule, *DATA_RULE[3:]] if other != word])
    assert len(await read_and_finish(server, redis, caplog)) == 2
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == ["CLIENT"]


@pytest.mark.parametrize("word", [word for word in DATA_RULE[3:] if word not in BELLS and word[0] != "~"])
async def test_no_other_command_of_the_rule_for_reading_can_be_left_out(
    server: Server, rule: list[str], redis: Connection, caplog: pytest.LogCaptureFixture, word: str
) -> None:
    apply(server, [other for other in [*rule, *DATA_RULE[3:]] if other != word])
    with pytest.raises(RedisRejected, match="permi"):
        await read_and_finish(server, redis, caplog)
    assert await redis.xlen(Keys(SERVICE).dead) == 0


@pytest.mark.parametrize("word", [word for word in DATA_RULE[3:] if word[0] == "~"])
async def test_a_key_that_is_not_permitted_is_the_fault_of_its_stream_alone(
    server: Server, rule: list[str], redis: Connection, caplog: pytest.LogCaptureFixture, word: str
) -> None:
    apply(server, [other for other in [*rule, *DATA_RULE[3:]] if other != word])
    await redis.xadd("call-1", {"n": 1})
    await LoadBalancerStream(redis, SERVICE).add("call-1")
    client = RedisStreamClient.from_url(user_s_url(server), SERVICE)
    async with client.running(idle, max_attempts=1):
        await wait_until(lambda: client.statistics().dead_letters, "the stream is given up")
        assert client.alive
        assert not client.leases
    assert await redis.xlen(Keys(SERVICE).dead) == 1
    assert "permi" in caplog.text


async def finish_with(server: Server, redis: Connection, on_done: str) -> int:
    """Have a handler finish a stream, some entries of which came after it; returns how many are left."""

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)
            if b"end" in entry.fields:
                return

    for fields in ({"n": 1}, {"end": ""}, {"n": 2}):
        await redis.xadd("call-1", fields)
    await redis.xadd("call-2", {"end": ""})
    await LoadBalancerStream(redis, SERVICE).add_many(["call-1", "call-2"])
    client = RedisStreamClient.from_url(user_s_url(server), SERVICE)
    async with client.running(handle, on_done=on_done, trim=True):  # type: ignore[arg-type]
        await wait_until(lambda: client.statistics().streams_done == 2, "the streams are done", timeout=5)
        await wait_until(lambda: not client.statistics().records_unsettled, "nothing is left to do")
    return int(await redis.xlen("call-1")) + int(await redis.xlen("call-2"))


def about_retention(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "could not be trimmed" in record.getMessage()]


@pytest.mark.parametrize(("on_done", "rule_for_it"), [("trim", ["+xtrim"]), ("delete", RETENTION_RULE[3:])])
async def test_the_rule_for_trimming_and_deleting_is_enough(
    server: Server,
    rule: list[str],
    redis: Connection,
    on_done: str,
    rule_for_it: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    apply(server, [*rule, *DATA_RULE[3:], *rule_for_it])
    assert await finish_with(server, redis, on_done) == 1
    assert not about_retention(caplog)


@pytest.mark.parametrize("word", RETENTION_RULE[3:])
async def test_what_may_not_be_trimmed_or_deleted_is_kept_and_that_is_said(
    server: Server, rule: list[str], redis: Connection, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    apply(server, [*rule, *DATA_RULE[3:], *(other for other in RETENTION_RULE[3:] if other != word)])
    assert await finish_with(server, redis, "delete") > 1
    assert len(about_retention(caplog)) == 1


async def test_without_config_one_warning_and_the_sweeper(
    server: Server, rule: list[str], redis: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    apply(server, [word for word in rule if word not in OPTIONAL])
    caplog.set_level(logging.WARNING, "redis_stream_client")
    async with RedisStreamClient.from_url(user_s_url(server), SERVICE, lock_ttl=1.0) as client:
        await live_through_it(client, redis, SERVICE)
        gaps = client.statistics().reconnects
        await redis.client_kill_filter(_type="pubsub")
        await wait_until(lambda: client.statistics().reconnects > gaps, "the listener subscribes again")
        await live_through_it(client, redis, SERVICE)
    warnings = [record.getMessage() for record in caplog.records if "notify-keyspace" in record.getMessage()]
    assert len(warnings) == 1
    assert "'Kx'" in warnings[0]
    assert await redis.config_get("notify-keyspace-events") == {"notify-keyspace-events": ""}


@pytest.mark.parametrize("word", sorted(PRESENCE))
async def test_without_a_permission_for_presence_all_is_as_without_presence_which_is_said_once(
    server: Server, rule: list[str], redis: Connection, caplog: pytest.LogCaptureFixture, word: str
) -> None:
    apply(server, [other for other in rule if other != word])
    caplog.set_level(logging.INFO, "redis_stream_client")
    async with RedisStreamClient.from_url(user_s_url(server), SERVICE, lock_ttl=1.0) as client:
        await wait_until(lambda: client.statistics().presence.state == "impossible", "it has noticed", timeout=5)
        await redis.client_kill_filter(_type="pubsub")
        await wait_until(lambda: client.statistics().reconnects, "the listener subscribes again")
        await live_through_it(client, redis, SERVICE)
        assert client.statistics().lapses == 0
    said = [record for record in caplog.records if "by its lock alone" in record.getMessage()]
    assert len(said) == 1
    assert "permi" in said[0].getMessage()


async def test_without_config_set_the_warning_names_what_is_missing(
    server: Server, rule: list[str], redis: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    apply(server, [word for word in rule if word != "+config|set"])
    await redis.config_set("notify-keyspace-events", "Kg")
    async with RedisStreamClient.from_url(user_s_url(server), SERVICE, lock_ttl=1.0) as client:
        await live_through_it(client, redis, SERVICE)
    [warning] = [record.getMessage() for record in caplog.records if "notify-keyspace" in record.getMessage()]
    assert "lacks 'x', and cannot be set" in warning


@pytest.mark.parametrize("word", [None, *sorted(FORGETTING)])
async def test_what_is_done_is_forgotten_where_that_is_permitted_and_done_otherwise_too(
    server: Server, rule: list[str], redis: Connection, caplog: pytest.LogCaptureFixture, word: str | None
) -> None:
    apply(server, [other for other in rule if other != word])
    keys = Keys(SERVICE)
    await LoadBalancerStream(redis, SERVICE).add("call-1")
    await redis.hset(keys.announced, "trimmed", "1-1")
    async with RedisStreamClient.from_url(user_s_url(server), SERVICE, lock_ttl=0.4) as client:
        await (await next_event(client, StreamAdded)).payload.done()
        assert await redis.hexists(keys.announced, "call-1") == (word == "+hmget")
        if word == "+hscan":
            await wait_until(lambda: "cannot be forgotten" in caplog.text, "that is said")
        else:
            await wait_until(lambda: nothing_left(redis, keys.announced), "the rest is tidied up")
        assert client.alive
        await live_through_it(client, redis, SERVICE)
    assert len([record for record in caplog.records if "permi" in record.getMessage()]) == (word == "+hscan")


async def nothing_left(redis: Connection, key: str) -> bool:
    return not await redis.exists(key)


PRODUCER = [word for word in PRODUCER_RULE[3:] if word[0] in "+~"]


def apply_to_producer(server: Server, words: list[str]) -> None:
    apply(server, [*RULE[:5], "resetchannels", *words])


async def test_the_rule_for_a_producer_is_enough(server: Server, rule: list[str], redis: Connection) -> None:
    assert rule
    apply_to_producer(server, PRODUCER)
    async with Redis.from_url(user_s_url(server)) as user, RedisStreamClient(redis, SERVICE) as client:
        producer = LoadBalancerStream(user, SERVICE)
        lbs_id = await producer.add("call-1")
        assert await producer.add("call-1") == lbs_id
        lease = (await next_event(client, StreamAdded)).payload
        await lease.done()
        assert lease.lbs_id == lbs_id
        assert await producer.add("call-1") > lbs_id


@pytest.mark.parametrize("word", PRODUCER)
async def test_a_producer_that_lacks_one_is_told_which_rule_and_what_else_it_can_do(
    server: Server, rule: list[str], redis: Connection, word: str
) -> None:
    assert rule
    if word == "+xrange":
        await LoadBalancerStream(redis, SERVICE).add("call-1")
    await redis.script_flush()
    apply_to_producer(server, [other for other in PRODUCER if other != word])
    async with Redis.from_url(user_s_url(server)) as user:
        with pytest.raises(
            RedisRejected, match=r"operations/permissions in .*; the rule there for a producer .* again=True"
        ) as caught:
            await LoadBalancerStream(user, SERVICE).add("call-1")
    assert [lbs_id is not None for lbs_id in caught.value.announced] == [word == "+hset"]


async def test_a_producer_that_announces_again_needs_one_command_on_one_key(
    server: Server, rule: list[str], redis: Connection
) -> None:
    assert rule
    apply_to_producer(server, [f"~{SERVICE}-input", "+xadd"])
    async with Redis.from_url(user_s_url(server)) as user, RedisStreamClient(redis, SERVICE) as client:
        producer = LoadBalancerStream(user, SERVICE)
        with pytest.raises(RedisRejected, match="again=True"):
            await producer.add("call-1")
        await producer.add("call-1", again=True)
        await (await next_event(client, StreamAdded)).payload.done()
        assert not await redis.exists(Keys(SERVICE).announced)


WRITER = [word for word in WRITER_RULE[3:] if word[0] in "+~"]


async def write_and_wake(producer: Connection) -> None:
    """Write to a stream that has a record, and to one whose record has expired."""
    lbs = LoadBalancerStream(producer, SERVICE)
    await lbs.write("call-1", {"n": 1}, id="1-1")
    await lbs.write_many([("call-2", {"n": 1}), ("call-3", {"n": 1})], maxlen=100)


async def prepare_streams(redis: Connection) -> None:
    for stream in ("call-1", "call-2"):
        await redis.delete(stream)
    await redis.xadd("call-2", {"n": 0})
    await redis.hset(Keys(SERVICE).progress("call-3"), "fence", "f")


async def test_a_producer_that_writes_needs_some_more(server: Server, rule: list[str], redis: Connection) -> None:
    assert rule
    await prepare_streams(redis)
    apply_to_producer(server, [*PRODUCER, *WRITER])
    async with Redis.from_url(user_s_url(server)) as producer:
        await write_and_wake(producer)
    assert await redis.hget(Keys(SERVICE).progress("call-2"), "since") is not None


@pytest.mark.parametrize("word", [*PRODUCER, *WRITER])
async def test_nothing_of_the_rule_for_writing_can_be_left_out(
    server: Server, rule: list[str], redis: Connection, word: str
) -> None:
    assert rule
    await prepare_streams(redis)
    apply_to_producer(server, [other for other in [*PRODUCER, *WRITER] if other != word])
    async with Redis.from_url(user_s_url(server)) as producer:
        with pytest.raises(RedisRejected, match=r"does not permit .*/permissions .*for a producer") as raised:
            await write_and_wake(producer)
    written = [id for id in raised.value.written if id is not None]
    there = [id.decode() for stream in ("call-1", "call-2", "call-3") for id, _ in await redis.xrange(stream)]
    assert set(written) <= set(there), "what was written is said, although something else could not be done"
    assert len(there) <= 4


ON_CALL = [word for word in FLEET_RULE[3:] if word[0] in "+~"]
WITHOUT = {
    "+hkeys": ["presence"],
    "+mget": ["descriptions", "pause"],
    "+hmget": ["call-2", "call-3"],
    "~call-*": ["call-2", "call-3"],
    f"~{{call-*}}:{SERVICE}:progress": ["call-2", "call-3"],
    "+hget": [],
}
"""What the documentation says may be left out by whoever looks at the fleet, and what cannot be read then."""


async def prepare_fleet(redis: Connection, client: RedisStreamClient) -> None:
    """A stream that was given back and whose name is not permitted, one that is owned, and one that waits."""
    producer = LoadBalancerStream(redis, SERVICE)
    await producer.add("other")
    await (await next_event(client, StreamAdded)).payload.release()
    await producer.write("call-2", {"n": 1})
    await next_event(client, StreamAdded, "call-2")
    await producer.write("call-3", {"n": 1})


async def look_at_everything(server: Server) -> tuple[FleetStatus, list[StreamStatus]]:
    async with Redis.from_url(user_s_url(server)) as user:
        fleet = Fleet(user, SERVICE)
        status, streams = await fleet.status(), [stream async for stream in fleet.streams()]
        assert (await fleet.lag()).streams == len(streams)
        for stream in streams:
            found = await fleet.owner(str(stream.stream))
            assert found is not None
            assert (found.lbs_id, found.owner) == (stream.lbs_id, stream.owner)
    return status, streams


@pytest.mark.parametrize("word", [None, *WITHOUT])
async def test_the_rule_for_the_fleet_is_enough(
    server: Server, rule: list[str], redis: Connection, word: str | None
) -> None:
    assert rule
    async with RedisStreamClient(redis, SERVICE, max_streams=1, lock_ttl=30.0) as client:
        await prepare_fleet(redis, client)
        apply_to_producer(server, [other for other in ON_CALL if other != word])
        status, streams = await look_at_everything(server)
        assert (status.owned, status.released, status.waiting) == (1, 1, 1)
        assert [stream.deliveries for stream in streams] == [1, 1, 0]
        said = {unread.what: unread.why for unread in status.unread}
        said.update({str(stream.stream): stream.unread for stream in streams if stream.unread})
        unread = set(WITHOUT[word]) if word else set()
        assert said.keys() == unread | {"other"}
        assert all("permi" in why for why in said.values())


async def test_the_fleet_without_the_keys_beside_the_locks(
    server: Server, rule: list[str], redis: Connection
) -> None:
    assert rule
    async with RedisStreamClient(redis, SERVICE, lock_ttl=30.0):
        locks = f"~{{{SERVICE}-input}}:lock:*"
        apply_to_producer(server, [locks if word == f"~{{{SERVICE}-input}}:*" else word for word in ON_CALL])
        status, _ = await look_at_everything(server)
        assert [member.alive for member in status.members] == [True]
        assert [unread.what for unread in status.unread] == ["dead letters", "presence", "pause"]


@pytest.mark.parametrize("word", [word for word in ON_CALL if word not in WITHOUT])
async def test_nothing_else_of_the_rule_for_the_fleet_can_be_left_out(
    server: Server, rule: list[str], redis: Connection, word: str
) -> None:
    assert rule
    await redis.script_flush()
    async with RedisStreamClient(redis, SERVICE, max_streams=1, lock_ttl=30.0) as client:
        await prepare_fleet(redis, client)
        apply_to_producer(server, [other for other in ON_CALL if other != word])
        with pytest.raises(RedisRejected, match="operations/permissions in the documentation"):
            await look_at_everything(server)


OPERATOR = OPERATOR_RULE[3:]


async def do_everything_of_an_operator(server: Server, redis: Connection) -> None:
    """Each call must do what it is for."""
    async with Redis.from_url(user_s_url(server)) as user, RedisStreamClient(redis, SERVICE) as client:
        fleet = Fleet(user, SERVICE)
        await LoadBalancerStream(redis, SERVICE).add("call-1")
        await next_event(client, StreamAdded)
        assert await fleet.pause("a migration") == ()
        assert await fleet.resume() is not None
        with pytest.raises(NotInTime):
            await fleet.release("call-1", timeout=0.1)
        assert (await fleet.release("call-1", timeout=0.0, force=True)).outcome == "forced"
        await (await claim_next(client, "call-1")).done()
        await LoadBalancerStream(redis, SERVICE).add("call-2")
        await next_event(client, StreamAdded)
        await fleet.drain(client.id, timeout=0.0)
        assert await fleet.evict(client.id) == 1


async def test_the_rule_for_an_operator_is_enough(server: Server, rule: list[str], redis: Connection) -> None:
    assert rule
    apply_to_producer(server, [*ON_CALL, *OPERATOR])
    await do_everything_of_an_operator(server, redis)


@pytest.mark.parametrize("word", OPERATOR)
async def test_nothing_of_the_rule_for_an_operator_can_be_left_out(
    server: Server, rule: list[str], redis: Connection, word: str
) -> None:
    assert rule
    await redis.script_flush()
    apply_to_producer(server, [other for other in [*ON_CALL, *OPERATOR] if other != word])
    with pytest.raises(RedisRejected, match="permi"):
        await do_everything_of_an_operator(server, redis)


async def test_the_rule_for_who_looks_permits_no_order(server: Server, rule: list[str], redis: Connection) -> None:
    assert rule
    apply_to_producer(server, ON_CALL)
    async with Redis.from_url(user_s_url(server)) as user, RedisStreamClient(redis, SERVICE) as client:
        fleet = Fleet(user, SERVICE)
        await LoadBalancerStream(redis, SERVICE).add("call-1")
        await next_event(client, StreamAdded)
        lock = await redis.get(Keys(SERVICE).lock(client.id))
        orders: list[Callable[[], Awaitable[object]]] = [
            partial(fleet.pause, "a migration"),
            fleet.resume,
            partial(fleet.drain, client.id),
            partial(fleet.evict, client.id),
            partial(fleet.release, "call-1", timeout=0.1),
            partial(fleet.release, "call-1", timeout=0.0, force=True),
        ]
        for order in orders:
            with pytest.raises(RedisRejected, match="permi"):
                await order()
        assert await redis.get(Keys(SERVICE).lock(client.id)) == lock
        assert not await redis.exists(Keys(SERVICE).paused)
        assert [lease.stream for lease in client.leases.values()] == ["call-1"]


async def test_a_consumer_that_may_not_read_the_orders_goes_on_which_is_said_once(
    server: Server, rule: list[str], redis: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    all_keys, keys = f"~{{{SERVICE}-input}}:*", Keys(SERVICE)
    named = [
        f"~{key}" for key in (keys.lock("*"), keys.dead, keys.present, keys.watch, keys.announced, *keys.turns)
    ]
    less = [other for word in rule for other in (named if word == all_keys else [word])]
    apply(server, less)
    caplog.set_level(logging.WARNING, "redis_stream_client")
    await redis.set(keys.paused, '{"since": 1, "reason": "not for this one"}')
    async with RedisStreamClient.from_url(user_s_url(server), SERVICE, lock_ttl=0.4) as client:
        await live_through_it(client, redis, SERVICE)
        beats = client.statistics().beats
        await wait_until(lambda: client.statistics().beats > beats + 5, "it beats on")
        assert client.statistics().paused is None
        assert client.statistics().lapses == 0
    [said] = [record.getMessage() for record in caplog.records if "permi" in record.getMessage()]
    assert said.startswith("cannot read the orders of operators: pauses and drains are not obeyed")


async def test_a_wrong_password(server: Server, rule: list[str]) -> None:
    assert rule
    url = user_s_url(server).replace(PASSWORD, "guess")
    await refused(RedisStreamClient.from_url(url, SERVICE), "password")


@pytest.mark.parametrize("word", ["+hget", "+hset"])
async def test_who_may_not_withhold_an_announcement_does_not_sleep(
    server: Server, rule: list[str], redis: Connection, word: str
) -> None:
    """Producers would count on it."""
    less = [other for other in [*rule, *DATA_RULE[3:]] if other != word]
    apply(server, less)
    async with RedisStreamClient(Redis.from_url(user_s_url(server)), SERVICE) as client:
        await LoadBalancerStream(redis, SERVICE).add("call-1")
        lease = (await next_event(client, StreamAdded)).payload
        with pytest.raises(RedisRejected, match="permi"):
            await lease.done_if_idle()
        assert client.alive
        assert lease.owned
        apply(server, [*less, word])
        assert await lease.done_if_idle() is True
