"""Writing: an entry and its announcement, alone and in bulk, and what is said when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import random
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster

from redis_stream_client import (
    Lease,
    LoadBalancerStream,
    RedisRejected,
    RedisStreamClient,
    RedisUnavailable,
    StreamAdded,
)
from redis_stream_client._model.announcement import encode
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.writing import CHUNK, CHUNK_BYTES
from tests.harness.cluster import Cluster, start_cluster
from tests.harness.cluster_proxies import ClusterProxies
from tests.harness.connection import EVERY_SETTING, lent_by
from tests.harness.ports import HOST, free_port
from tests.harness.processes import die_with_parent
from tests.harness.proxy import TcpProxy
from tests.harness.scenes import next_event
from tests.harness.servers import Server, clients_of
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.harness.connection import Connection

WRITE, APPEND = (scripts.load(name).sha.encode() for name in ("write", "append"))


@pytest.fixture
def producer(redis: Connection, service: str) -> LoadBalancerStream:
    return LoadBalancerStream(redis, service)


@pytest.fixture(params=["server", "cluster"], ids=["one server", "cluster"])
def place(request: pytest.FixtureRequest) -> Server | Cluster:
    found: Server | Cluster = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def anywhere(place: Server | Cluster) -> AsyncIterator[Connection]:
    """A client of one server, or of a cluster."""
    redis: Connection = (Redis if isinstance(place, Server) else RedisCluster).from_url(place.url)
    yield redis
    await redis.aclose()


@pytest.fixture
async def single(proxy: TcpProxy) -> AsyncIterator[Redis]:
    """A client behind the proxy, with one connection, a short time-out and no retries."""
    async with Redis.from_url(f"{proxy.url}?max_connections=1&socket_timeout=0.3") as redis:
        yield redis


async def test_a_consumer_gets_the_stream_and_the_entry(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    fields: dict[str | bytes, str | bytes | int | float] = {"n": 1, b"\xff": b"\0", "e": ""}
    entry_id = await producer.write("call-1", fields, info={"lang": "de"})
    assert await producer.write("call-1", {"n": 2}, info={"lang": "en"}) > entry_id
    async with RedisStreamClient(redis, service) as client:
        lease = (await next_event(client, StreamAdded, "call-1")).payload
        assert lease.info == {"lang": "de"}
        async with lease:
            entries = lease.entries()
            first, second = await anext(entries), await anext(entries)
            assert (first.id, first.fields) == (entry_id, {b"n": b"1", b"\xff": b"\0", b"e": b""})
            assert second.fields == {b"n": b"2"}
            await lease.checkpoint(second.id)
        assert not client.leases
        await producer.write("call-1", {"n": 3})
        lease = (await next_event(client, StreamAdded, "call-1")).payload
        assert lease.info is None
        await lease.done()
    assert not await redis.xlen(Keys(service).lbs)


@EVERY_SETTING
async def test_any_client_will_do_and_gets_its_connection_back(
    server: Server, service: str, settings: dict[str, Any]
) -> None:
    async with Redis(host=HOST, port=server.port, **settings) as redis:
        lent = lent_by(redis)
        producer = LoadBalancerStream(redis, service)
        ids = [await producer.write("call-1", {"n": n}) for n in range(3)]
        ids += await producer.write_many([("call-1", {"n": n}) for n in range(3)])
        assert all(isinstance(id, str) for id in ids)
        assert await redis.xlen("call-1") == 6
        assert not lent


@pytest.mark.parametrize("settings", [{}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}], ids=repr)
async def test_any_client_of_a_cluster_will_do(cluster: Cluster, service: str, settings: dict[str, Any]) -> None:
    stream = cluster.key_apart_from(Keys(service).lbs, f"{service}-{{}}")
    redis = RedisCluster.from_url(cluster.url, **settings)
    ids = [await LoadBalancerStream(redis, service).write(stream, {"n": n}) for n in range(2)]
    assert cluster.owner_of(stream).command("XLEN", stream) == 2
    assert sorted(ids) == ids
    await redis.aclose()


async def test_writing_nothing_asks_nothing(service: str) -> None:
    async with Redis(host=HOST, port=free_port()) as nowhere:
        assert await LoadBalancerStream(nowhere, service).write_many([]) == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((17, {"n": 1}, {}), TypeError),
        (("", {"n": 1}, {}), ValueError),
        (("{a", {"n": 1}, {}), ValueError),
        (("a", {}, {}), ValueError),
        (("a", [("n", 1)], {}), TypeError),
        (("a", {"n": None}, {}), TypeError),
        (("a", {str(n): n for n in range(4_000)}, {}), ValueError),
        (("a", {"n": 1}, {"info": "x"}), TypeError),
        (("a", {"n": 1}, {"info": {"x": "y" * 2**20}}), ValueError),
        (("a", {"n": 1}, {"id": "123-*"}), ValueError),
        (("a", {"n": 1}, {"id": "*"}), ValueError),
        (("a", {"n": 1}, {"id": 17}), TypeError),
        (("a", {"n": 1}, {"maxlen": 0}), ValueError),
        (("a", {"n": 1}, {"maxlen": "9"}), TypeError),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_wrong_argument_is_refused_before_anything_is_sent(
    redis: Connection, service: str, producer: LoadBalancerStream, arguments: Any, error: type[Exception]
) -> None:
    stream, fields, options = arguments
    with pytest.raises(error):
        await producer.write(stream, fields, **options)
    if not options.keys() & {"id", "maxlen"}:
        with pytest.raises(error):
            await producer.write_many([("good", {"n": 1}), (stream, fields, *options.values())])
    assert await redis.keys() == []


@pytest.mark.parametrize("key", ["lbs", "dead"])
async def test_a_stream_of_the_service_itself_is_no_data_stream(
    redis: Connection, service: str, producer: LoadBalancerStream, key: str
) -> None:
    """Its owner would trim what belongs to all."""
    own = getattr(Keys(service), key)
    with pytest.raises(ValueError, match="must be a data stream"):
        await producer.write(own, {"n": 1})
    for again in (False, True):
        with pytest.raises(ValueError, match="must be a data stream"):
            await producer.add_many(["a", own], again=again)
    assert await redis.keys() == []


@pytest.mark.parametrize("entries", [["a"], [("a",)], [("a", {"n": 1}, {}, 1)], [None], ["ab"]], ids=repr)
async def test_what_is_no_entry_is_refused(redis: Connection, producer: LoadBalancerStream, entries: Any) -> None:
    with pytest.raises(TypeError, match=r"entries must hold \(stream, fields\)"):
        await producer.write_many([("good", {"n": 1}), *entries])
    assert await redis.keys() == []


async def test_many_entries_of_many_streams_in_few_round_trips(anywhere: Connection, service: str) -> None:
    """10,000 entries of 1,000 streams, ten of each, by turns."""
    redis = anywhere
    producer = LoadBalancerStream(redis, service)
    entries = [(f"{service}-{n % 1_000}", {"n": n}) for n in range(10_000)]
    ids = await producer.write_many(entries)
    assert len(ids) == 10_000
    for number in (0, 1, 500, 999):
        written = await redis.xrange(f"{service}-{number}")
        assert written == [(ids[n].encode(), {b"n": str(n).encode()}) for n in range(number, 10_000, 1_000)]
    assert await redis.xlen(Keys(service).lbs) == await redis.hlen(Keys(service).announced) == 1_000


async def test_a_request_has_bounded_bytes(proxy: TcpProxy, single: Redis, service: str) -> None:
    """Each is on a line of 1 MB/s within the time-out, and not all of them together."""
    producer = LoadBalancerStream(single, service)
    await producer.write("call-1", {"n": 0})
    proxy.bandwidth(requests=1_000_000)
    large = b"x" * CHUNK_BYTES
    ids = await producer.write_many([("call-1", {"x": large}) for _ in range(8)])
    assert len(ids) == 8
    assert await single.xlen("call-1") == 9


@pytest.mark.parametrize("clustered", [False, True], ids=["one server", "cluster"])
async def test_large_entries_over_a_slow_line_take_the_time_that_they_need(
    request: pytest.FixtureRequest, service: str, clustered: bool
) -> None:
    """An entry of 256 KiB takes a quarter of a second or more, with a time-out of 0.1 s."""
    large = {"x": b"x" * CHUNK_BYTES}
    if not clustered:
        server: Server = request.getfixturevalue("server")
        async with TcpProxy(server.port) as proxy, Redis.from_url(f"{proxy.url}?socket_timeout=0.1") as redis:
            producer = LoadBalancerStream(redis, service)
            await producer.write("call-1", {"n": 0})
            proxy.bandwidth(requests=1_000_000)
            await producer.write("call-1", large)
            assert await redis.xlen("call-1") == 2
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    stream = cluster.key_apart_from(Keys(service).lbs, f"{service}-{{}}")
    proxies = ClusterProxies(cluster)
    async with proxies.opened(socket_timeout=0.1) as through:
        producer = LoadBalancerStream(through, service)
        await producer.write(stream, {"n": 0})
        proxies.before(stream).bandwidth(requests=50_000)  # five seconds, as long as the silence that ends it
        await producer.write(stream, large)
    assert cluster.owner_of(stream).command("XLEN", stream) == 2


# Failures.


@pytest.mark.parametrize(
    ("strike", "there"),
    [
        pytest.param(lambda proxy: proxy.drop_requests_matching(WRITE), 0, id="never executed"),
        pytest.param(lambda proxy: proxy.drop_replies_after(WRITE), 1, id="never answered"),
        pytest.param(lambda proxy: proxy.drop_replies_after(WRITE, cut=True), 1, id="cut"),
    ],
)
async def test_without_an_answer_the_outcome_is_unknown_and_nothing_is_repeated(
    proxy: TcpProxy, single: Redis, service: str, strike: Callable[[TcpProxy], object], there: int
) -> None:
    lent = lent_by(single)
    producer = LoadBalancerStream(single, service)
    await producer.write("before", {"n": 0})
    strike(proxy)
    with pytest.raises(
        RedisUnavailable, match="it may have been written; written again, it is there twice"
    ) as one:
        await producer.write("call-1", {"n": 1})
    assert one.value.written == (None,)
    with pytest.raises(RedisUnavailable, match="2 of 2 may have been written") as two:
        await producer.write_many([("call-2", {"n": 1}), ("call-3", {"n": 1})])
    assert two.value.written == (None, None)
    assert pickle.loads(pickle.dumps(two.value)).written == two.value.written
    proxy.heal()
    assert not lent
    assert [await single.xlen(f"call-{n}") for n in (1, 2, 3)] == [there] * 3
    assert await single.xlen(Keys(service).lbs) == 1 + 3 * there


async def test_an_id_of_the_caller_makes_a_repeat_safe(proxy: TcpProxy, single: Redis, service: str) -> None:
    producer = LoadBalancerStream(single, service)
    await producer.write("before", {"n": 0})
    proxy.drop_replies_after(WRITE, connections=1)
    with pytest.raises(RedisUnavailable, match="repeating the call with this id is safe"):
        await producer.write("call-1", {"n": 1}, id="17-1")
    for same in ("17-1", "017-01"):
        assert await producer.write("call-1", {"n": 1}, id=same) == "17-1"
    assert await single.xlen("call-1") == 1
    with pytest.raises(RedisRejected, match="equal or smaller"):
        await producer.write("call-1", {"n": 1}, id="16-1")


async def test_a_server_that_is_not_there_was_told_nothing(service: str) -> None:
    async with Redis(host=HOST, port=free_port()) as nowhere:
        producer = LoadBalancerStream(nowhere, service)
        with pytest.raises(RedisUnavailable, match=rf"could not write: .*{HOST}.*\(nothing was written\)$"):
            await producer.write("call-1", {"n": 1})


async def test_a_pool_without_a_free_connection_is_named(server: Server, service: str) -> None:
    async with Redis.from_url(server.url, max_connections=1) as redis, redis.client() as taken:
        await taken.ping()
        with pytest.raises(RedisUnavailable, match=r"nothing was written; .*max_connections"):
            await LoadBalancerStream(redis, service).write("call-1", {"n": 1})


async def test_a_full_redis_is_unavailable_for_now(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", 1)
    with pytest.raises(RedisUnavailable, match=r"OOM .*nothing was written"):
        await producer.write("call-1", {"n": 1})
    assert await redis.keys() == []
    await redis.config_set("maxmemory", 0)
    await producer.write("call-1", {"n": 1})


async def test_a_redis_that_gets_full_meanwhile_says_what_it_took(
    redis: Connection, service: str, producer: LoadBalancerStream
) -> None:
    await redis.config_set("maxmemory-policy", "noeviction")
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", used + 2_000_000)
    with pytest.raises(RedisUnavailable, match=r"of 40 were written\)$") as caught:
        await producer.write_many([(f"call-{n % 2}", {"x": b"y" * 200_000}) for n in range(40)])
    await redis.config_set("maxmemory", 0)
    written = caught.value.written
    for n in (0, 1):
        known = [id for id in written[n::2] if id is not None]
        assert known
        assert known == list(written[n::2][: len(known)]), "no later entry without the ones before"
        assert [id.decode() for id, _ in await redis.xrange(f"call-{n}")] == known


@pytest.mark.parametrize("key", ["call-1", "record", "lbs", "announced"])
async def test_a_key_of_another_type_is_refused_for_good(
    redis: Connection, service: str, producer: LoadBalancerStream, key: str
) -> None:
    keys = Keys(service)
    wrong = {"record": keys.progress("call-1"), "lbs": keys.lbs, "announced": keys.announced}.get(key, key)
    await redis.set(wrong, "text")
    with pytest.raises(RedisRejected, match=r"another type.*'call-1' must be a stream") as caught:
        await producer.write("call-1", {"n": 1})
    assert caught.value.written == (None,)
    assert await redis.keys() == [wrong.encode()]


async def test_what_was_written_is_said_when_one_stream_is_refused(
    redis: Connection, producer: LoadBalancerStream
) -> None:
    await redis.set("wrong", "text")
    with pytest.raises(RedisRejected, match=r"2 of 4 were written") as caught:
        await producer.write_many([("a", {"n": 1}), ("wrong", {"n": 1}), ("b", {"n": 1}), ("wrong", {"n": 2})])
    a, wrong, b, again = caught.value.written
    assert (wrong, again) == (None, None)
    assert [[id.decode()] for id in (a and a.encode(), b and b.encode()) if id] == [
        [id.decode() for id, _ in await redis.xrange(stream)] for stream in ("a", "b")
    ]


async def test_after_a_failure_no_more_is_sent(redis: Connection, producer: LoadBalancerStream) -> None:
    await redis.set("wrong", "text")
    with pytest.raises(RedisRejected, match=f"{CHUNK - 1} of {2 * CHUNK} were written"):
        await producer.write_many([("wrong", {"n": 1}), *(("a", {"n": n}) for n in range(2 * CHUNK - 1))])
    assert await redis.xlen("a") == CHUNK - 1


async def test_what_a_cluster_has_written_is_said(cluster: Cluster, service: str) -> None:
    """The data node answers no more, and then the one of the load balancer stream."""
    lbs = Keys(service).lbs
    stream = cluster.key_apart_from(lbs, f"{service}-{{}}")
    proxies = ClusterProxies(cluster)
    async with proxies.opened() as through:
        producer = LoadBalancerStream(through, service)
        await producer.write(stream, {"n": 0})
        proxies.before(stream).drop_replies_after(APPEND, cut=True)
        with pytest.raises(RedisUnavailable, match="it may have been written") as caught:
            await producer.write(stream, {"n": 1})
        assert caught.value.written == (None,)
        proxies.before(stream).heal()
        held = proxies.before(stream).hold_replies_after(APPEND, connections=1)
        writing = asyncio.create_task(producer.write(stream, {"n": 2}))

        async def written() -> bool:
            return bool(cluster.owner_of(stream).command("XLEN", stream) == 3)

        await wait_until(written, "it is written")
        proxies.before(lbs).drop_replies_after(scripts.load("announce").sha.encode(), cut=True)
        held.release()
        with pytest.raises(RedisUnavailable, match=r"it was written; .*add\(\) makes sure of that") as other:
            await writing
        assert other.value.written[0] is not None


# Cancellation, and many at once.


async def test_a_cancelled_call_gives_back_a_connection_that_answers_nobody_else(
    proxy: TcpProxy, single: Redis, service: str
) -> None:
    lent = lent_by(single)
    producer = LoadBalancerStream(single, service)
    await producer.write("before", {"n": 0})
    proxy.freeze(requests=False)
    tasks = asyncio.all_tasks()
    writing = asyncio.create_task(producer.write("call-1", {"n": 1}))
    await wait_until(lambda: lent, "it waits for the reply")
    writing.cancel()
    await asyncio.wait((writing,))
    assert writing.cancelled()
    assert asyncio.all_tasks() == tasks
    proxy.thaw()
    assert not lent
    assert await single.ping() is True


@pytest.mark.parametrize("pool", [ConnectionPool, BlockingConnectionPool])
async def test_a_thousand_at_once_share_the_connections_of_the_pool(
    server: Server, service: str, pool: type[ConnectionPool]
) -> None:
    async with Redis.from_pool(pool.from_url(server.url, max_connections=5)) as redis:
        producer = LoadBalancerStream(redis, service)
        before = len(clients_of(server))
        ids = await asyncio.gather(*(producer.write(f"call-{n % 10}", {"n": n}) for n in range(1_000)))
        assert len(clients_of(server)) - before <= 5
        assert len(ids) == 1_000
        assert await redis.xlen(Keys(service).lbs) == 10


async def test_five_hundred_at_once_in_a_cluster(cluster: Cluster, service: str) -> None:
    async with RedisCluster.from_url(cluster.url) as redis:
        producer = LoadBalancerStream(redis, service)
        names = [f"{service}-{n}" for n in range(50)]
        await asyncio.gather(*(producer.write(names[n % 50], {"n": n}) for n in range(500)))
        assert [await redis.xlen(name) for name in names] == [10] * 50
        assert await redis.xlen(Keys(service).lbs) == 50


async def test_nobody_finishes_what_others_write(
    place: Server | Cluster, anywhere: Connection, service: str
) -> None:
    """Producers write while the announcement is finished again and again: at the end one is outstanding."""
    redis, keys = anywhere, Keys(service)
    stream = place.key_apart_from(keys.lbs, f"{service}-{{}}") if isinstance(place, Cluster) else "call-1"
    producer = LoadBalancerStream(redis, service)
    writing = asyncio.gather(*(write_some(producer, stream) for _ in range(10)))
    seen = 0
    while not writing.done():
        for lbs_id, _ in await redis.xrange(keys.lbs):
            await redis.xdel(keys.lbs, lbs_id)
            seen += 1
        await asyncio.sleep(0.002)
    await writing
    await producer.write(stream, {"n": -1})
    assert await redis.xlen(stream) == 301
    [(lbs_id, fields)] = await redis.xrange(keys.lbs)
    assert fields == {b"lbs-input": encode(stream)}
    assert await redis.hget(keys.announced, stream) == lbs_id
    assert seen


async def test_whatever_is_written_is_read_by_a_fleet_whose_streams_sleep(
    anywhere: Connection, service: str
) -> None:
    """The gaps between entries are about as long as the idle time: many come as their stream falls asleep."""
    redis = anywhere
    streams = [f"{service}-{n}" for n in range(12)]
    handled: dict[str, list[int]] = {stream: [] for stream in streams}
    begun = 0

    async def handle(lease: Lease) -> None:
        nonlocal begun
        begun += 1
        async for entry in lease.entries(idle=0.02):
            handled[lease.stream].append(int(entry.fields[b"n"]))
            await lease.checkpoint(entry.id)

    lbs = LoadBalancerStream(redis, service)

    async def write(stream: str) -> None:
        for n in range(30):
            await lbs.write(stream, {"n": n})
            await asyncio.sleep(random.choice((0.0, 0.015, 0.02, 0.025, 0.1)))

    async with (
        RedisStreamClient(redis, service).running(handle),
        RedisStreamClient(redis, service).running(handle),
    ):
        await asyncio.gather(*(write(stream) for stream in streams))
        await wait_until(lambda: all(len(seen) >= 30 for seen in handled.values()), "all are handled", timeout=20)
        await wait_until(partial(nothing_announced, redis, service), "all sleep", timeout=20)
    assert handled == {stream: list(range(30)) for stream in streams}
    assert begun > len(streams), "they slept, and woke again"


async def nothing_announced(redis: Connection, service: str) -> bool:
    return not await redis.xlen(Keys(service).lbs)


@pytest.mark.parametrize("which", ["load balancer stream", "data stream"])
async def test_it_writes_on_while_a_slot_moves(cluster: Cluster, service: str, which: str) -> None:
    keys = Keys(service)
    stream = cluster.key_apart_from(keys.lbs, f"{service}-{{}}")
    moved = keys.lbs if which == "load balancer stream" else stream
    async with RedisCluster.from_url(cluster.url) as redis:
        producer = LoadBalancerStream(redis, service)
        await producer.write(stream, {"n": 0})
        await redis.hset(keys.progress(stream), "fence", "f")
        move = cluster.start_to_move(moved)
        await producer.write(stream, {"n": 1})
        while move.keys():
            pass
        await producer.write(stream, {"n": 2})
        move.finish()
        await producer.write(stream, {"n": 3})
        written = cluster.owner_of(stream).command("XRANGE", stream, "-", "+")
        assert len(written) == 4
        assert await redis.xlen(keys.lbs) == 1


async def test_it_writes_on_after_a_failover(service: str) -> None:
    """A node dies: what certainly was not written is sent to its replica."""
    with contextlib.ExitStack() as stack:
        cluster = await asyncio.to_thread(stack.enter_context, start_cluster(1))
        lbs = Keys(service).lbs
        stream = cluster.key_apart_from(lbs)
        redis = RedisCluster.from_url(cluster.url)
        producer = LoadBalancerStream(redis, service)
        await producer.write(stream, {"n": 0})
        for key, n in ((stream, 1), (lbs, 2)):
            cluster.owner_of(key).command("WAIT", 1, 1000)
            cluster.owner_of(key).kill()
            await asyncio.sleep(0.05)  # time itself: the end of the connection arrives here
            await producer.write(stream, {"n": n})
        assert cluster.owner_of(stream).command("XLEN", stream) == 3
        await redis.aclose()


async def test_a_producer_that_is_killed_leaves_nothing_unread(
    place: Server | Cluster, anywhere: Connection, service: str
) -> None:
    """While it writes, its streams are put to sleep again and again."""
    redis, clustered = anywhere, isinstance(place, Cluster)
    seen: set[tuple[str, bytes]] = set()

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries(idle=0.01):
            seen.add((lease.stream, entry.id.encode()))
            await lease.checkpoint(entry.id)

    async with RedisStreamClient(redis, service).running(handle):
        for _ in range(8):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", WRITER, place.url, service, str(int(clustered))),
                stdout=asyncio.subprocess.PIPE,
                preexec_fn=die_with_parent(),
            )
            assert process.stdout is not None
            await process.stdout.readline()
            await asyncio.sleep(random.uniform(0, 0.1))
            process.kill()
            await process.wait()
            await process.stdout.read()

        async def all_read() -> bool:
            streams = [f"{service}-{n}" for n in range(5)]
            return {(stream, id) for stream in streams for id, _ in await redis.xrange(stream)} == seen

        await wait_until(all_read, "all that was written is read", timeout=20)
    assert seen


WRITER = """
import asyncio, random, sys
from redis.asyncio import Redis, RedisCluster
from redis_stream_client import LoadBalancerStream

async def main():
    redis = (RedisCluster if sys.argv[3] == "1" else Redis).from_url(sys.argv[1])
    producer = LoadBalancerStream(redis, sys.argv[2])
    async def write(stream):
        while True:
            await producer.write(stream, {"n": 1})
            print(flush=True)
            await asyncio.sleep(random.choice((0.0, 0.01, 0.012)))
    await asyncio.gather(*(write(f"{sys.argv[2]}-{n}") for n in range(5)))

asyncio.run(main())
"""


async def write_some(producer: LoadBalancerStream, stream: str) -> None:
    for n in range(30):
        await producer.write(stream, {"n": n})


async def test_a_connection_to_what_is_no_master_any_more_is_not_used_again(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    async with TcpProxy(server.port) as proxy, Redis.from_url(proxy.url) as redis:
        producer = LoadBalancerStream(redis, service)
        await producer.write("call-1", {"n": 1})
        server.command("REPLICAOF", HOST, 1)
        with pytest.raises(RedisUnavailable, match=r"READONLY .*nothing was written"):
            await producer.write_many([("call-1", {"n": 2}), ("call-2", {"n": 2})])
        connections = proxy.accepted
        server.command("REPLICAOF", "NO", "ONE")
        await producer.write("call-1", {"n": 3})
        assert proxy.accepted == connections + 1
