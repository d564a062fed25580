"""The producer's side: announcing, alone and in bulk, and what is said when it fails."""

from __future__ import annotations

import asyncio
import json
import pickle
import traceback
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from redis._parsers.resp2 import _AsyncRESP2Parser
from redis._parsers.resp3 import _AsyncRESP3Parser
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster

from redis_stream_client import (
    DeadLetters,
    Lease,
    LoadBalancerStream,
    PoisonError,
    RedisRejected,
    RedisStreamClient,
    RedisUnavailable,
    StreamAdded,
)
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import announcing
from redis_stream_client._protocol.announcing import CHUNK, CHUNK_BYTES
from redis_stream_client._redis import pooled
from tests.harness.connection import EVERY_SETTING, Connection, lent_by
from tests.harness.ports import HOST, free_port
from tests.harness.proxy import TcpProxy
from tests.harness.runs import calls
from tests.harness.scenes import next_event
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.harness.cluster import Cluster
    from tests.harness.servers import Server


ADDS = "announcing again adds another"


@pytest.fixture
def producer(redis: Connection, service: str) -> LoadBalancerStream:
    return LoadBalancerStream(redis, service)


async def announced(redis: Connection, service: str) -> list[tuple[str, Any]]:
    """Id and document of everything on the load balancer stream."""
    entries = await redis.xrange(Keys(service).lbs)
    assert all(list(fields) == [b"lbs-input"] for _, fields in entries)
    return [(lbs_id.decode(), json.loads(fields[b"lbs-input"])) for lbs_id, fields in entries]


async def test_an_announcement_is_one_field_of_json_and_its_id_is_returned(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    first = await producer.add("call-17", {"lang": "de"})
    second = await producer.add("call-18")
    assert await announced(redis, service) == [
        (first, {"DataStreamName": "call-17", "Info": {"lang": "de"}}),
        (second, {"DataStreamName": "call-18"}),
    ]


async def test_many_are_announced_in_order_with_or_without_info(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    lbs_ids = await producer.add_many(["a", ("b", {"x": 1}), ("c", None)])
    assert await announced(redis, service) == [
        (lbs_ids[0], {"DataStreamName": "a"}),
        (lbs_ids[1], {"DataStreamName": "b", "Info": {"x": 1}}),
        (lbs_ids[2], {"DataStreamName": "c"}),
    ]


async def test_a_stream_is_announced_once_until_it_is_done(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    lbs_id = await producer.add("call-1", {"n": 1})
    assert await producer.add("call-1", {"n": 2}) == lbs_id
    async with RedisStreamClient(redis, service) as client:
        lease = (await next_event(client, StreamAdded)).payload
        assert lease.info == {"n": 1}, "what was announced stays as it is"
        known, other, same = await producer.add_many(["call-1", ("call-2", None), "call-1"])
        assert known == same == lbs_id < other
        await lease.done()
        again = await producer.add("call-1", {"n": 2})
        assert again > lbs_id
        while lease.lbs_id != again:
            lease = (await next_event(client, StreamAdded)).payload
        assert lease.info == {"n": 2}


async def test_producers_that_announce_a_stream_at_a_time_give_it_one_owner(
    server: Server, redis: Connection, service: str
) -> None:
    """Each of several owners of one stream superseded the one before, and handled entries a second time."""
    handled: list[str] = []

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            handled.append(entry.id)
            await lease.checkpoint(entry.id)

    clients = [RedisStreamClient.from_url(server.url, service) for _ in range(3)]
    async with AsyncExitStack() as stack:
        for client in clients:
            await stack.enter_async_context(client.running(handle))
        producers = [await stack.enter_async_context(Redis.from_url(server.url)) for _ in range(5)]
        written = [(await redis.xadd("call-1", {"n": n})).decode() for n in range(3)]
        lbs_ids = await asyncio.gather(*(LoadBalancerStream(one, service).add("call-1") for one in producers))
        assert len(set(lbs_ids)) == 1
        await wait_until(lambda: len(handled) >= len(written), "all are handled")
        assert sum(client.statistics().streams_added for client in clients) == 1
    assert handled == written


@pytest.mark.parametrize("how", ["finished by an older version", "trimmed", "the stream deleted", "the hash lost"])
async def test_an_announcement_that_is_gone_whoever_ended_it_does_not_count(
    redis: Connection, service: str, producer: LoadBalancerStream, how: str
) -> None:
    keys = Keys(service)
    lbs_id = await producer.add("call-1")
    match how:
        case "finished by an older version":
            await redis.xgroup_create(keys.lbs, keys.group, "0")
            await redis.xreadgroup(keys.group, "older", {keys.lbs: ">"})
            await redis.xack(keys.lbs, keys.group, lbs_id)
            await redis.xdel(keys.lbs, lbs_id)
        case "trimmed":
            await redis.xtrim(keys.lbs, maxlen=0)
        case "the stream deleted":
            await redis.delete(keys.lbs)
        case _:
            await redis.delete(keys.announced)
    again = await producer.add("call-1")  # in the same millisecond, a new stream gives the same id
    there = [known for known, _ in await announced(redis, service)]
    assert there == ([lbs_id, again] if how == "the hash lost" else [again])
    assert await redis.hgetall(keys.announced) == {b"call-1": again.encode()}


async def test_again_adds_another_that_is_not_known(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    first = await producer.add("call-1")
    second, third = await producer.add_many(["call-1", "call-1"], again=True)
    assert [lbs_id for lbs_id, _ in await announced(redis, service)] == [first, second, third]
    assert await producer.add("call-1") == first
    assert await redis.hgetall(Keys(service).announced) == {b"call-1": first.encode()}


async def test_a_dead_letter_is_not_outstanding_until_it_is_put_back(
    server: Server, redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    async def handle(lease: Lease) -> None:
        raise PoisonError("never")

    first = await producer.add("call-1")
    client = RedisStreamClient.from_url(server.url, service)
    async with client.running(handle):
        await wait_until(lambda: client.statistics().dead_letters, "it is buried")
    assert await redis.hgetall(Keys(service).announced) == {}
    letters = DeadLetters(redis, service)
    [letter] = [letter async for letter in letters]
    again = await letters.put_back(letter)
    assert again > first
    assert await producer.add("call-1") == again


async def test_a_repeat_after_a_lost_reply_adds_none(
    proxy: TcpProxy, single: Redis, redis: Connection, service: str
) -> None:
    producer = LoadBalancerStream(single, service)
    await producer.add("before")
    proxy.drop_replies_after(b"EVALSHA")
    with pytest.raises(RedisUnavailable, match=f"it may have been announced; {ADDS} only if"):
        await producer.add("call-1")
    proxy.heal()
    lbs_id = await producer.add("call-1")
    assert [known for known, _ in await announced(redis, service)][1:] == [lbs_id]


async def test_what_was_outstanding_is_known_to_be_announced_when_redis_is_full(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    lbs_id = await producer.add("a")
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", 1)
    with pytest.raises(RedisUnavailable, match=r"OOM .*1 of 3 were announced\)$") as caught:
        await producer.add_many(["b", "a", "c"])
    await redis.config_set("maxmemory", 0)
    assert caught.value.announced == (None, lbs_id, None)


async def test_another_type_under_the_key_of_the_hash_is_refused(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    await redis.set(Keys(service).announced, "text")
    with pytest.raises(RedisRejected, match=r"another type.*the announced ones a hash"):
        await producer.add("a")
    assert not await redis.exists(Keys(service).lbs)
    await producer.add("a", again=True)


async def test_many_large_announcements_that_are_outstanding_are_found_in_several_calls(
    redis: Connection, producer: LoadBalancerStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "SEEN_BYTES", 10_000)
    names = [f"call-{number}" for number in range(100)]
    lbs_ids = await producer.add_many([(name, {"x": "y" * 1000}) for name in names])
    before = await calls(redis, "evalsha")
    assert (await producer.add_many(["new", *names]))[1:] == lbs_ids
    assert await calls(redis, "evalsha") - before == 10


async def test_once_in_a_cluster_too(cluster: Cluster, service: str) -> None:
    async with RedisCluster.from_url(cluster.url) as redis:
        producer = LoadBalancerStream(redis, service)
        lbs_ids = await producer.add_many(["a", "b", "a"])
        assert lbs_ids[0] == lbs_ids[2]
        assert await producer.add("b") == lbs_ids[1]


async def test_more_than_one_pipeline_takes_are_announced_in_order(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    names = [f"call-{number}" for number in range(2 * CHUNK + 1)]
    lbs_ids = await producer.add_many(name for name in names)
    assert [(lbs_id, said["DataStreamName"]) for lbs_id, said in await announced(redis, service)] == list(
        zip(lbs_ids, names, strict=True)
    )


async def test_announcing_nothing_asks_nothing(service: str) -> None:
    async with Redis(host=HOST, port=free_port()) as nowhere:
        assert await LoadBalancerStream(nowhere, service).add_many([]) == []


@pytest.mark.parametrize(
    ("streams", "error"),
    [
        ("call-17", TypeError),
        (None, TypeError),
        (["a", 17], TypeError),
        (["a", ("b",)], TypeError),
        (["a", ("b", {}, 1)], TypeError),
        (["a", ("b", "info")], TypeError),
        (["a", ("b", {"x": {1}})], TypeError),
        (["a", ""], ValueError),
        (["a", "{b"], ValueError),
        (["a", ("b", {"x": float("nan")})], ValueError),
        (["a", ("b", {"x": "y" * 2**20})], ValueError),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_all_are_checked_before_the_first_is_sent(
    redis: Connection, service: str, producer: LoadBalancerStream, streams: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await producer.add_many(streams)
    assert not await redis.exists(Keys(service).lbs)


@EVERY_SETTING
async def test_any_client_will_do_and_gets_its_connection_back(
    server: Server, service: str, settings: dict[str, Any]
) -> None:
    async with Redis(host=HOST, port=server.port, **settings) as redis:
        lent = lent_by(redis)
        producer = LoadBalancerStream(redis, service)
        for number in range(3):
            lbs_id = await producer.add(f"call-{number}")
            assert isinstance(lbs_id, str)
        assert await redis.xlen(Keys(service).lbs) == 3
        assert not lent


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("parser", [_AsyncRESP2Parser, _AsyncRESP3Parser])
async def test_any_parser_will_do(
    redis: Connection, server: Server, service: str, parser: type, decode: bool
) -> None:
    protocol = 3 if parser is _AsyncRESP3Parser else 2
    settings = {"parser_class": parser, "decode_responses": decode, "protocol": protocol}
    async with Redis.from_pool(ConnectionPool.from_url(server.url, **settings)) as other:
        lbs_ids = await LoadBalancerStream(other, service).add_many(["a", "b"])
        assert await other.ping() is True
    assert [lbs_id for lbs_id, _ in await announced(redis, service)] == lbs_ids


@pytest.fixture
async def single(proxy: TcpProxy) -> AsyncIterator[Redis]:
    """A client behind the proxy, with one connection, a short time-out and no retries."""
    url = f"{proxy.url}?max_connections=1&socket_timeout=0.3"
    async with Redis.from_url(url) as redis:
        yield redis


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    "strike",
    [
        pytest.param(lambda proxy, word: proxy.drop_requests_matching(word), id="never executed"),
        pytest.param(lambda proxy, word: proxy.drop_replies_after(word), id="never answered"),
        pytest.param(lambda proxy, word: proxy.drop_replies_after(word, cut=True), id="cut"),
    ],
)
async def test_without_an_answer_the_outcome_is_unknown_and_the_client_can_be_used_on(
    proxy: TcpProxy, single: Redis, service: str, strike: Callable[[TcpProxy, bytes], object], again: bool
) -> None:
    lent = lent_by(single)
    producer = LoadBalancerStream(single, service)
    await producer.add("before")
    strike(proxy, b"XADD" if again else b"EVALSHA")
    only = "" if again else " only if that one is finished by then"
    with pytest.raises(RedisUnavailable, match=f"2 of 2 may have been announced, {ADDS}{only}[);]"):
        await producer.add_many(["a", "b"], again=again)
    proxy.heal()
    assert not lent
    lbs_id = await producer.add("after")
    assert await single.xrange(Keys(service).lbs, lbs_id, lbs_id)


async def test_nothing_is_announced_twice_by_itself(proxy: TcpProxy, service: str) -> None:
    async with Redis(host=HOST, port=proxy.port, socket_timeout=0.3) as retrying:  # redis-py's own default
        producer = LoadBalancerStream(retrying, service)
        proxy.drop_replies_after(b"XADD")
        with pytest.raises(RedisUnavailable):
            await producer.add("call-17", again=True)
        proxy.heal()
        assert await retrying.xlen(Keys(service).lbs) == 1


async def test_a_cancelled_call_gives_back_a_connection_that_answers_nobody_else(
    proxy: TcpProxy, single: Redis, service: str
) -> None:
    lent = lent_by(single)
    producer = LoadBalancerStream(single, service)
    await producer.add("before")
    proxy.freeze(requests=False)
    task = asyncio.create_task(producer.add("cancelled"))
    await wait_until(lambda: lent, "it waits for the reply")
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    proxy.thaw()
    assert not lent
    assert await single.ping() is True


@pytest.mark.parametrize("host", [HOST, "no-such-host.invalid"])
async def test_a_server_that_is_not_there_was_told_nothing_and_the_error_says_so(service: str, host: str) -> None:
    async with Redis.from_url(f"redis://{host}:{free_port()}") as nowhere:
        for streams in (["call-17"], ["call-17", "call-18"]):
            with pytest.raises(RedisUnavailable) as caught:
                await LoadBalancerStream(nowhere, service).add_many(streams)
            assert str(caught.value).startswith("could not announce: ")
            assert host in str(caught.value)
            assert str(caught.value).endswith("(nothing was announced)")
            assert caught.value.announced == (None,) * len(streams)
            assert caught.value.__cause__ is not None
            printed = "".join(traceback.format_exception(caught.value))
            assert printed.count("Traceback") == 1
            assert printed.count("\n\n") <= 2  # the cause in one line, and what it was the cause of


async def test_a_pool_without_a_free_connection_is_named(server: Server, service: str) -> None:
    for pool_class in (ConnectionPool, BlockingConnectionPool):
        settings: dict[str, Any] = {} if pool_class is ConnectionPool else {"timeout": 0.05}
        pool = pool_class.from_url(server.url, max_connections=1, **settings)
        async with Redis.from_pool(pool) as redis, redis.client() as taken:
            await taken.ping()
            with pytest.raises(RedisUnavailable, match=r"nothing was announced; .*max_connections"):
                await LoadBalancerStream(redis, service).add("call-17")


async def test_a_server_that_accepts_and_says_nothing_is_given_up(
    proxy: TcpProxy, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooled, "CONNECT_TIMEOUT", 0.3)
    proxy.freeze()
    settings: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": 0.1, "max_connections": 1}
    async with Redis(host=HOST, port=proxy.port, **settings) as redis:
        lent = lent_by(redis)
        with pytest.raises(RedisUnavailable, match=r"no connection to .* within 0\.3 s \(nothing was announced\)"):
            await LoadBalancerStream(redis, service).add("call-17")
        assert not lent
        proxy.heal()
        assert await redis.ping() is True


async def test_large_announcements_over_a_slow_line_take_the_time_that_they_need(
    proxy: TcpProxy, redis: Connection, service: str
) -> None:
    streams = [(f"call-{number}", {"x": "y" * 250_000}) for number in range(12)]
    async with Redis(host=HOST, port=proxy.port, socket_timeout=0.3) as slow:
        proxy.bandwidth(requests=2_000_000)  # all of it takes 1.5 s
        lbs_ids = await LoadBalancerStream(slow, service).add_many(streams)
        proxy.bandwidth(requests=250_000)  # one takes a second
        lbs_ids.append(await LoadBalancerStream(slow, service).add("another", streams[0][1]))
    assert [lbs_id for lbs_id, _ in await announced(redis, service)] == lbs_ids


async def test_what_is_known_to_be_announced_is_said_when_the_line_breaks(
    proxy: TcpProxy, single: Redis, redis: Connection, service: str
) -> None:
    streams = [(f"call-{number}", {"x": "y" * (CHUNK_BYTES // 3)}) for number in range(20)]
    producer = LoadBalancerStream(single, service)
    await producer.add("before")
    proxy.bandwidth(requests=2_000_000)
    adding = asyncio.create_task(producer.add_many(streams))

    async def some() -> bool:
        return bool(await redis.xlen(Keys(service).lbs) > 5)

    await wait_until(some, "some are announced")
    proxy.cut()
    with pytest.raises(RedisUnavailable) as caught:
        await adding
    known = [lbs_id for lbs_id in caught.value.announced if lbs_id is not None]
    there = [lbs_id for lbs_id, _ in await announced(redis, service)][1:]
    assert len(caught.value.announced) == 20
    assert known == list(caught.value.announced[: len(known)]) == there[: len(known)]
    assert len(known) >= 2
    assert len(there) - len(known) <= 2  # those in one pipeline
    assert f"{len(known)} of 20 were announced" in str(caught.value)
    assert f"of 20 may have been announced, {ADDS} only if" in str(caught.value)


async def test_a_redis_that_gets_full_meanwhile_says_what_it_took(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    await redis.config_set("maxmemory-policy", "noeviction")
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", used + 2_000_000)
    with pytest.raises(RedisUnavailable, match=r"of 30 were announced\)$") as caught:
        await producer.add_many([(f"call-{number}", {"x": "y" * 200_000}) for number in range(30)])
    await redis.config_set("maxmemory", 0)
    known = [lbs_id for lbs_id in caught.value.announced if lbs_id is not None]
    assert 0 < len(known) < 30
    assert [lbs_id for lbs_id, _ in await announced(redis, service)] == known
    assert pickle.loads(pickle.dumps(caught.value)).announced == caught.value.announced


async def test_a_full_redis_is_unavailable_for_now(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", 1)
    with pytest.raises(RedisUnavailable, match="nothing was announced"):
        await producer.add_many(["a", "b"])
    await redis.config_set("maxmemory", 0)
    await producer.add("c")
    assert [said["DataStreamName"] for _, said in await announced(redis, service)] == ["c"]


async def test_a_connection_that_was_closed_while_it_was_idle_is_opened_anew(
    proxy: TcpProxy, single: Redis, redis: Connection, service: str
) -> None:
    lent = lent_by(single)
    producer = LoadBalancerStream(single, service)
    lbs_ids = [await producer.add("call-1")]
    for end in (proxy.cut, proxy.half_close_clients):
        end()
        accepted = proxy.accepted
        await asyncio.sleep(0.05)  # time itself: what the peer did arrives here
        lbs_ids.append(await producer.add(f"call-{end.__name__}"))
        assert proxy.accepted == accepted + 1
        assert not lent
    assert [lbs_id for lbs_id, _ in await announced(redis, service)] == lbs_ids


async def test_a_connection_to_what_is_no_master_any_more_is_not_used_again(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    async with TcpProxy(server.port) as proxy, Redis.from_url(proxy.url) as redis:
        producer = LoadBalancerStream(redis, service)
        await producer.add("call-1")
        server.command("REPLICAOF", HOST, 1)
        with pytest.raises(RedisUnavailable, match=r"READONLY .*nothing was announced"):
            await producer.add("call-2")
        connections = proxy.accepted
        server.command("REPLICAOF", "NO", "ONE")
        await producer.add("call-3")
        assert proxy.accepted == connections + 1


async def test_another_type_under_the_services_key_is_refused_for_good(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    lent = lent_by(redis)
    await redis.set(Keys(service).lbs, "text")
    with pytest.raises(RedisRejected, match="another type"):
        await producer.add_many(["a", "b", "c"])
    assert not lent
    assert await redis.get(Keys(service).lbs) == b"text"


async def test_a_wrong_password_is_refused_for_good(redis: Connection, server: Server, service: str) -> None:
    await redis.acl_setuser("producer", enabled=True, passwords=["+right"], keys=["*"], commands=["+@all"])
    async with Redis.from_url(f"redis://producer:wrong@{HOST}:{server.port}") as guest:
        with pytest.raises(RedisRejected, match="refuses the login"):
            await LoadBalancerStream(guest, service).add("call-17")
    await redis.acl_deluser("producer")


async def test_a_client_that_is_used_on_after_many_failures_leaks_no_connection(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    lent = lent_by(redis)
    await redis.set(Keys(service).lbs, "text")
    received = (await redis.info("stats"))["total_connections_received"]
    for _ in range(20):
        with pytest.raises(RedisRejected):
            await producer.add("a")
    assert not lent
    assert (await redis.info("stats"))["total_connections_received"] == received, "one connection did it all"
