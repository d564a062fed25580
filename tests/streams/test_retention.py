"""Rings 2 and 3: what becomes of data streams and records when streams are done, and what is trimmed before.

No entry is lost that nobody has processed, whoever announces or writes meanwhile, and whatever is not answered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import RedisCluster

from redis_stream_client import LoadBalancerStream, NotOwner, RedisUnavailable
from redis_stream_client._model.keys import Keys
from redis_stream_client._model.options import PROGRESS_TTL
from redis_stream_client._protocol import scripts
from tests.harness.binaries import chosen
from tests.harness.fleet import Member
from tests.harness.retention import Reader, done, ids, settled, warnings
from tests.harness.runs import END, Running, add, record, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from redis_stream_client import Lease
    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

CALL = "call-1"
TTL: dict[str, Any] = {"lock_ttl": 1.0}
RETAIN = scripts.load("retain").sha.encode()

counts = pytest.mark.skipif(chosen() == "redis-6.2", reason="Redis 6.2 does not count what was ever added")


async def lifetime(redis: Connection, service: str) -> float:
    """Seconds that the record stays; -2: there is none, -1: for ever."""
    left: int = await redis.pttl(Keys(service).progress(CALL))
    return left if left < 0 else left / 1000


# The record.


@pytest.mark.parametrize("progress_ttl", [PROGRESS_TTL, 30 * 86_400.0, 60.0, 0.5])
async def test_the_record_of_a_finished_stream_stays_for_progress_ttl(
    server: Server, redis: Connection, service: str, progress_ttl: float
) -> None:
    written = await write(server.url, CALL, 3, end=True)
    async with Running(server.url, service, Reader(), progress_ttl=progress_ttl) as running:
        await add(redis, service, [CALL])
        await done(running)
        await settled(running)
        left = await lifetime(redis, service)
        assert progress_ttl - 60 < left <= progress_ttl
        if progress_ttl < 1:
            await wait_until(lambda: no_record(redis, service), "the record has expired")
    assert await ids(redis, CALL) == written


async def no_record(redis: Connection, service: str) -> bool:
    return not await redis.exists(Keys(service).progress(CALL))


async def test_with_0_the_record_goes_and_the_stream_begins_at_its_start_when_it_is_announced_again(
    server: Server, redis: Connection, service: str
) -> None:
    written = await write(server.url, CALL, 3, end=True)
    reader = Reader()
    async with Running(server.url, service, reader, progress_ttl=0) as running:
        for times in (1, 2):
            await add(redis, service, [CALL])
            await done(running, times)
            await wait_until(lambda: no_record(redis, service), "the record has gone")
            assert reader.read == times * written


async def test_the_checkpoint_stays_until_the_stream_is_done_indeed(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """The process dies when it is about to say so."""
    written = await write(server.url, CALL, 3, end=True)
    lost = proxy.drop_requests_matching(scripts.load("done").sha.encode())
    dying = Member(proxy.url, service, progress_ttl=0, **TTL)
    async with dying:
        await add(redis, service, [CALL])
        await dying.owns(CALL)
        lease = dying.lease(CALL)
        entries = lease.entries()
        await lease.checkpoint([(await anext(entries)).id for _ in range(2)][-1])
        finishing = asyncio.create_task(lease.done())
        await wait_until(lambda: lost.matched, "it was about to say so")
        assert await lifetime(redis, service) > PROGRESS_TTL - 60
        proxy.freeze()
        with pytest.raises(RedisUnavailable):
            await finishing
    proxy.heal()
    proxy.thaw()
    reader = Reader()
    async with Running(server.url, service, reader, progress_ttl=0, **TTL) as running:
        await done(running)
        assert reader.read == written[2:]
        await wait_until(lambda: no_record(redis, service), "the record has gone")


@pytest.mark.parametrize("how", ["no record", "deleted"])
async def test_a_zombie_is_refused_though_there_is_no_record(
    server: Server, redis: Connection, service: str, proxy: TcpProxy, how: str
) -> None:
    await write(server.url, CALL, 3, end=True)
    async with Member(proxy.url, service, lock_ttl=30.0) as zombie:
        await add(redis, service, [CALL])
        await zombie.owns(CALL)
        lease = zombie.lease(CALL)
        first = await anext(lease.entries())
        proxy.freeze()  # it does not hear what becomes of its lock
        await redis.delete(Keys(service).lock(zombie.client.id))
        rules: dict[str, Any] = {"progress_ttl": 0} if how == "no record" else {"on_done": "delete"}
        async with Running(server.url, service, Reader(), **TTL, **rules) as peer:
            await done(peer)
            await wait_until(lambda: no_record(redis, service), "the record has gone")
            proxy.thaw()
            with pytest.raises(NotOwner):
                await lease.checkpoint(first.id)
            assert await no_record(redis, service)


async def test_a_zombie_that_begins_late_is_refused_though_there_is_no_record(
    server: Server, redis: Connection, service: str, proxy: TcpProxy
) -> None:
    """It had not begun, and has not heard yet that it owns nothing."""
    await write(server.url, CALL, 3, end=True)
    async with Member(proxy.url, service, lock_ttl=30.0, progress_ttl=0) as zombie:
        await add(redis, service, [CALL])
        await zombie.owns(CALL)
        lease = zombie.lease(CALL)
        proxy.freeze()
        await redis.delete(Keys(service).lock(zombie.client.id))
        async with Running(server.url, service, Reader(), **TTL, on_done="delete") as peer:
            await done(peer)
            await wait_until(lambda: no_record(redis, service), "the record has gone")
            [first, _] = await write(server.url, CALL, 2)
            proxy.thaw()
            with pytest.raises(NotOwner):
                await lease.checkpoint(first)
            await wait_until(lambda: no_record(redis, service), "its record has gone, too")


# Trimmed.


async def test_by_default_a_stream_is_kept(server: Server, redis: Connection, service: str) -> None:
    written = await write(server.url, CALL, 3, end=True)
    async with Running(server.url, service, Reader()) as running:
        await add(redis, service, [CALL])
        await done(running)
    assert await ids(redis, CALL) == written


async def test_a_stream_is_trimmed_up_to_its_checkpoint_and_that_is_no_gap(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    written = await write(server.url, CALL, 5, end=True)
    reader = Reader()
    async with Running(server.url, service, reader, on_done="trim", progress_ttl=0) as running:
        await add(redis, service, [CALL])
        await done(running)
        await settled(running)
        assert await ids(redis, CALL) == written[-1:]  # the end has no checkpoint
        more = await write(server.url, CALL, 2, end=True)
        await add(redis, service, [CALL])
        await done(running, 2)
        assert reader.read == [*written, written[-1]]
        await add(redis, service, [CALL])
        await redis.xdel(CALL, written[-1])
        await done(running, 3)
        assert reader.read == [*written, written[-1], *more]
        await asyncio.sleep(1.2)  # a look for gaps
        assert [gap for lease in reader.leases for gap in lease.gaps] == []
    assert warnings(caplog) == []


# Deleted.


async def test_stream_and_record_are_deleted_and_begin_anew(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader()
    async with Running(server.url, service, reader, on_done="delete") as running:
        written: list[str] = []
        for times in (1, 2, 3):
            written += await write(server.url, CALL, 3, end=True)
            await add(redis, service, [CALL])
            await done(running, times)
            await settled(running)
            assert await redis.keys(f"*{CALL}*") == []
        assert reader.read == written
        assert [gap for lease in reader.leases for gap in lease.gaps] == []
    assert warnings(caplog) == []


async def test_what_a_handler_says_is_done_itself_is_deleted_too(
    server: Server, redis: Connection, service: str
) -> None:
    async def handle(lease: Lease) -> None:
        async for _ in lease.entries():
            await lease.done()
            return

    await write(server.url, CALL, 1)
    async with Running(server.url, service, handle, on_done="delete") as running:
        await add(redis, service, [CALL])
        await done(running)
        await settled(running)
        assert await redis.keys(f"*{CALL}*") == []


async def test_a_stream_that_fails_or_is_released_is_not_touched(
    server: Server, redis: Connection, service: str
) -> None:
    async def fail(lease: Lease) -> None:
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)
            raise ValueError

    written = await write(server.url, CALL, 2)
    async with Running(server.url, service, fail, on_done="delete", max_attempts=1) as running:
        await add(redis, service, [CALL])
        await wait_until(lambda: running.client.statistics().handlers_failed, "it has failed")
        await settled(running)
    assert await ids(redis, CALL) == written


class Held:
    """A client whose request to delete a stream is on its way, and does not arrive. It takes no other stream."""

    def __init__(self, server: Server, proxy: TcpProxy, redis: Connection, service: str) -> None:
        self._server = server
        self._redis = redis
        self._service = service
        self._proxy = proxy
        self.reader = Reader()
        self.running = Running(proxy.url, service, self._handle, on_done="delete", max_streams=1)
        self.written: list[str] = []

    async def _handle(self, lease: Lease) -> None:
        if lease.stream == CALL:
            await self.reader(lease)
        else:
            await lease.lost()

    async def on_its_way(self, *, executed: bool = False, end: bool = True) -> None:
        """Finish the stream; with `executed` only the reply does not arrive."""
        self.written = await write(self._server.url, CALL, 3, end=end)
        await self._redis.script_load(scripts.load("retain").text)
        lost = self._proxy.drop_replies_after(RETAIN) if executed else self._proxy.drop_requests_matching(RETAIN)
        await add(self._redis, self._service, [CALL])
        await done(self.running)
        await wait_until(lambda: lost.matched, "the request is on its way")
        await add(self._redis, self._service, ["other"])
        await self.running.handles("other")

    async def arrives(self) -> None:
        self._proxy.heal()
        await settled(self.running)


@pytest.fixture
def held(server: Server, proxy: TcpProxy, redis: Connection, service: str) -> Held:
    return Held(server, proxy, redis, service)


async def reads_on(server: Server, service: str, expected: list[str]) -> None:
    """Who owns the stream next reads exactly these entries, and misses none."""
    reader = Reader()
    async with Running(server.url, service, reader) as running:
        await done(running)
        assert reader.read == expected
        await asyncio.sleep(1.2)  # a look for gaps
        assert reader.leases[0].gaps == ()


async def test_announced_again_and_written_before_the_deletion_loses_no_entry(
    server: Server, redis: Connection, service: str, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody has begun yet."""
    async with held.running:
        await held.on_its_way()
        await add(redis, service, [CALL])
        more = await write(server.url, CALL, 2, end=True)
        await held.arrives()
        assert await ids(redis, CALL) == more
        [warning] = warnings(caplog)
        assert "entries came after" in warning
        await reads_on(server, service, more)
    assert len(warnings(caplog)) == 1


async def test_a_session_that_wakes_before_its_deletion_is_kept_without_a_warning(
    server: Server, redis: Connection, service: str, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    held.reader = Reader(idle=0.1)
    async with held.running:
        await held.on_its_way(end=False)
        woken_by = await LoadBalancerStream(redis, service).write(CALL, {"n": 1})
        await held.arrives()
        assert await ids(redis, CALL) == [woken_by]
        await write(server.url, CALL, 1, end=True)
        await reads_on(server, service, await ids(redis, CALL))
    assert warnings(caplog) == []


async def test_announced_again_and_written_after_the_deletion_begins_anew(
    server: Server, redis: Connection, service: str, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody has begun yet."""
    async with held.running:
        await held.on_its_way()
        await add(redis, service, [CALL])
        await held.arrives()
        assert await redis.keys(f"*{CALL}*") == []
        more = await write(server.url, CALL, 2, end=True)
        await reads_on(server, service, more)
    assert warnings(caplog) == []


async def test_a_newer_owner_keeps_the_stream(
    server: Server, redis: Connection, service: str, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was written."""
    newer = Reader()
    async with held.running:
        await held.on_its_way()
        async with Running(server.url, service, newer, on_done="trim") as running:
            await add(redis, service, [CALL])
            await done(running)  # at the end marker, which has no checkpoint
            assert newer.read == held.written[-1:]
            await settled(running)
            await held.arrives()
            assert await ids(redis, CALL) == held.written[-1:]
            assert (await record(redis, service, CALL))["consumer"] == running.client.id
    assert warnings(caplog) == []


async def test_a_deletion_that_is_repeated_deletes_nothing_else(
    server: Server, redis: Connection, service: str, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    """Its reply was lost, and the stream was written anew, by a producer whose clock is behind."""
    async with held.running:
        await held.on_its_way(executed=True)

        async def deleted() -> bool:
            return not await redis.keys(f"*{CALL}*")

        await wait_until(deleted, "it is deleted")
        await redis.xadd(CALL, {END: ""}, "1-0")
        await add(redis, service, [CALL])
        await held.arrives()
        await reads_on(server, service, ["1-0"])
    assert warnings(caplog) == []


async def test_a_process_that_dies_before_the_deletion_leaves_the_stream(
    redis: Connection, service: str, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    async with held.running:
        await held.on_its_way()
        assert await ids(redis, CALL) == held.written
        assert PROGRESS_TTL - 60 < await lifetime(redis, service) <= PROGRESS_TTL
    assert warnings(caplog) == ["streams that are done, and could not be trimmed or deleted while leaving: 1"]


@pytest.mark.parametrize("how", ["drain", "cancel", "close"])
async def test_who_leaves_deletes_first(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    streams = [f"{CALL}-{i}" for i in range(100)]
    for stream in streams:
        await write(server.url, stream, 2, end=True)
    held = proxy.hold_replies_after(RETAIN, connections=1)
    async with Running(proxy.url, service, Reader(), on_done="delete") as running:
        await add(redis, service, streams)
        await done(running, len(streams))
        assert running.client.statistics().records_unsettled > 0
        held.release()
        if how == "drain":
            running.client.drain()
        elif how == "cancel":
            running.task.cancel()
        else:
            await running.client.aclose()
        await asyncio.wait((running.task,))
    assert await redis.keys(f"*{CALL}*") == []
    assert warnings(caplog) == []


@pytest.mark.parametrize("on_done", ["trim", "delete"])
async def test_what_redis_does_not_permit_is_said_and_ends_nothing(
    server: Server, redis: Connection, service: str, on_done: str, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.set("other", "text")

    async def handle(lease: Lease) -> None:
        await lease.checkpoint("1-0")

    async with Running(server.url, service, handle, on_done=on_done) as running:
        await add(redis, service, ["other"])
        await done(running)
        await settled(running)
        assert running.client.alive
    [warning] = warnings(caplog)
    assert "other could not be trimmed or deleted (1 failures so far)" in warning
    assert await redis.get("other") == b"text"


async def test_streams_on_all_nodes_of_a_cluster_are_trimmed_and_deleted(cluster: Cluster, service: str) -> None:
    for node in cluster.nodes:
        node.command("FLUSHALL")
    streams = [f"call-{i}" for i in range(12)]
    assert len({cluster.owner_of(stream).port for stream in streams}) == 3
    async with RedisCluster.from_url(cluster.url) as redis:
        for on_done, left in (("trim", 1), ("delete", 0)):
            reader = Reader()
            async with Running(redis, service, reader, on_done=on_done) as running:
                for stream in streams:
                    await redis.xadd(stream, {"n": 1})
                    await redis.xadd(stream, {END: ""})
                await add(redis, service, streams)
                await done(running, len(streams))
                await settled(running)
            if on_done == "delete":
                for stream in streams:  # the end that the first left was met first
                    await redis.delete(stream, Keys(service).progress(stream))
            for stream in streams:
                assert await redis.xlen(stream) == left


async def test_streams_whose_slots_have_moved_are_deleted_where_they_are(cluster: Cluster, service: str) -> None:
    for node in cluster.nodes:
        node.command("FLUSHALL")
    stream = cluster.key_apart_from(f"{service}-input")
    go, reading = asyncio.Event(), asyncio.Event()

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)
            reading.set()
            await go.wait()
            return

    async with (
        RedisCluster.from_url(cluster.url) as redis,
        Running(redis, service, handle, on_done="delete") as running,
    ):
        await redis.xadd(stream, {"n": 1})
        await add(redis, service, [stream])
        await reading.wait()
        await asyncio.to_thread(cluster.move, stream)
        go.set()
        await done(running)
        await settled(running)
        assert not await redis.exists(stream)
        assert not await redis.exists(Keys(service).progress(stream))
