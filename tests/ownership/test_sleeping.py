"""Ring 2: a stream that is put to sleep leaves no entry unread, whatever comes between two steps."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

import pytest
from redis.asyncio import Redis, RedisCluster

from redis_stream_client import Lease, LoadBalancerStream, NotOwner, RedisRejected, RedisUnavailable
from redis_stream_client._model.keys import NOBODY, Keys
from redis_stream_client._protocol import scripts
from tests.harness.fleet import Member, announce
from tests.harness.runs import Running, add, calls, finished, record, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

STREAM = "chat-1"
SHORT = 0.1
FAST: dict[str, Any] = {"lock_ttl": 0.8}
PATIENT: dict[str, Any] = {"lock_ttl": 4.0}
STEPS = ("begin", "withhold", "doze", "settle", "done")
"""The requests of a stream that has nothing to read, in order. Where it has, `restore` follows `doze`."""


async def owned(member: Member, server: Server, service: str) -> Lease:
    await announce(server.url, service, STREAM)
    await member.owns(STREAM)
    return member.lease(STREAM)


async def known(redis: Connection, service: str) -> str | None:
    """The announcement that producers count on."""
    found = await redis.hget(Keys(service).announced, STREAM)
    return found.decode() if found is not None else None


class Sessions:
    """A handler of sessions, and what it was handed."""

    def __init__(self, idle: float = SHORT) -> None:
        self.idle = idle
        self.handed: defaultdict[str, list[str]] = defaultdict(list)
        self.begun = 0

    async def __call__(self, lease: Lease) -> None:
        self.begun += 1
        async for entry in lease.entries(idle=self.idle):
            await lease.checkpoint(entry.id)
            self.handed[lease.stream].append(entry.id)

    def read(self, written: dict[str, list[str]]) -> bool:
        """Whether all these entries were read."""
        return all(set(ids) <= set(self.handed[stream]) for stream, ids in written.items())


async def test_a_session_sleeps_and_wakes_on_any_member_after_its_checkpoint(
    server: Server, redis: Connection, service: str
) -> None:
    sessions = Sessions()
    ids: list[str] = []
    async with (
        Running(server.url, service, sessions) as one,
        Running(server.url, service, sessions) as two,
    ):
        for turn in range(1, 6):
            ids += await write(server.url, STREAM, 2)
            await add(redis, service, [STREAM])
            await wait_until(lambda: finished(redis, service), "it sleeps")
            assert sessions.handed[STREAM] == ids
            assert sessions.begun == turn
            assert await known(redis, service) is None
            stored = await record(redis, service, STREAM)
            assert (stored["checkpoint"], stored["attempts"]) == (ids[-1], "0")
            assert 0 < await redis.pttl(Keys(service).progress(STREAM)) <= 7 * 86_400_000
        slept = [run.client.statistics().streams_slept for run in (one, two)]
        assert sum(slept) == 5
        assert slept == [run.client.statistics().streams_done for run in (one, two)]


async def test_a_session_that_wakes_for_nothing_has_tried_nothing(
    server: Server, redis: Connection, service: str
) -> None:
    sessions = Sessions(0.05)
    async with Running(server.url, service, sessions, max_attempts=2) as run:
        for turn in range(1, 12):
            await add(redis, service, [STREAM])
            await wait_until(lambda: run.client.statistics().streams_slept == turn, "it sleeps again")
        assert {lease.attempts for lease in run.leases} <= {0, 1}
        assert run.client.statistics().dead_letters == 0
        assert (await record(redis, service, STREAM))["attempts"] == "0"


@pytest.mark.parametrize("clustered", [False, True], ids=["one server", "cluster"])
async def test_sessions_that_are_written_to_when_they_fall_asleep_read_every_entry_once(
    request: pytest.FixtureRequest, service: str, clustered: bool
) -> None:
    """The gaps between entries are about as long as the idle time."""
    server: Server | Cluster = request.getfixturevalue("cluster" if clustered else "server")
    connect: Any = RedisCluster if clustered else Redis
    sessions = Sessions(0.05)
    written: dict[str, list[str]] = {f"{service}-{n}": [] for n in range(20)}
    async with connect.from_url(server.url) as redis:
        lbs = LoadBalancerStream(redis, service)

        async def talk(stream: str, chance: random.Random) -> None:
            for _ in range(12):
                written[stream].append(await lbs.write(stream, {"n": len(written[stream])}))
                await asyncio.sleep(chance.uniform(0.0, 2.2) * sessions.idle)

        async with Running(redis, service, sessions), Running(redis, service, sessions):
            await asyncio.gather(*(talk(stream, random.Random(stream)) for stream in written))
            await wait_until(lambda: sessions.read(written), "all is read")
            await wait_until(lambda: finished(redis, service), "all sleep")
        assert sessions.handed == written
        assert sessions.begun > len(written)  # some have slept
        assert await redis.hlen(Keys(service).announced) == 0


Arrival = Literal["write", "XADD, add", "add, XADD", "XADD, Go"]


async def arrive(redis: Connection, service: str, how: Arrival) -> str:
    """An entry comes, as producers without `write` add it; returns its id."""
    keys = Keys(service)
    entry: bytes
    match how:
        case "write":
            return await LoadBalancerStream(redis, service).write(STREAM, {"n": 1})
        case "XADD, add":
            entry = await redis.xadd(STREAM, {"n": 1})
            await add(redis, service, [STREAM])
        case "add, XADD":
            await add(redis, service, [STREAM], again=True)
            entry = await redis.xadd(STREAM, {"n": 1})
        case _:
            entry = await redis.xadd(STREAM, {"n": 1})
            await redis.xadd(keys.lbs, {"lbs-input": json.dumps({"DataStreamName": STREAM})})
    return entry.decode()


@pytest.mark.parametrize("how", ["write", "XADD, add", "add, XADD", "XADD, Go"])
@pytest.mark.parametrize("step", [*STEPS, "after"])
async def test_an_entry_that_comes_between_two_steps_is_read(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, step: str, how: Arrival
) -> None:
    """Each request waits in turn, not executed yet, while an entry comes."""
    await load(redis)
    sessions = Sessions()
    async with Running(proxy.url, service, sessions, **PATIENT):
        held = proxy.hold_requests_matching(sha(step)) if step != "after" else None
        await add(redis, service, [STREAM])
        if held is not None:
            await wait_until(lambda: held.matched, f"{step} is on its way")
        else:
            await wait_until(lambda: finished(redis, service), "it sleeps")
        entry = await arrive(redis, service, how)
        if held is not None:
            held.release()
        await wait_until(lambda: entry in sessions.handed[STREAM], "the entry is read")
        await wait_until(lambda: finished(redis, service), "it sleeps again")
        assert set(sessions.handed[STREAM]) == {entry}


def sha(step: str) -> bytes:
    return scripts.load(step).sha.encode()


async def load(redis: Connection) -> None:
    """Let the server know the scripts, so that each is one EVALSHA."""
    for step in STEPS:
        await redis.script_load(scripts.load(step).text)


@pytest.mark.parametrize("woken", [False, True])
@pytest.mark.parametrize("at", range(len(STEPS) + 1))
async def test_a_peer_takes_over_from_an_owner_that_died_between_two_steps(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, at: int, woken: bool
) -> None:
    """The owner is cut off after each of its requests was executed; an entry has come meanwhile, or none."""
    await load(redis)
    sessions = Sessions()
    async with Member(proxy.url, service, **FAST) as dying:
        lease = await owned(dying, server, service)
        step = (*STEPS, None)[at]
        fault = proxy.drop_requests_matching(sha(step)) if step is not None else None
        asking = asyncio.ensure_future(lease.done_if_idle())
        if fault is None:
            assert await asking is True
        else:
            await wait_until(lambda: fault.matched, f"{step} is on its way")
        proxy.freeze()
        entry = await arrive(redis, service, "XADD, add") if woken else None
        async with Running(server.url, service, sessions, **FAST):
            await wait_until(lambda: finished(redis, service), "it sleeps", 15.0)
            assert sessions.handed[STREAM] == ([entry] if entry else [])
        asking.cancel()
        await asyncio.wait((asking,))
        proxy.thaw()


@pytest.mark.parametrize("unread", [False, True])
async def test_a_newer_announcement_ends_ours_in_its_favour(
    server: Server, redis: Connection, service: str, unread: bool
) -> None:
    """The hash names it: somebody announced the stream while ours was withheld, or after the entry had gone."""
    async with Member(server.url, service, **PATIENT) as member:
        lease = await owned(member, server, service)
        if unread:
            await write(server.url, STREAM, 1)
        await redis.hdel(Keys(service).announced, STREAM)
        [newer] = await add(redis, service, [STREAM])
        assert newer != lease.lbs_id
        assert await lease.done_if_idle() is True
        assert await lease.lost() == "done"
        await member.owns(STREAM)
        assert member.lease(STREAM).lbs_id == newer
        assert await known(redis, service) == newer
        assert member.client.statistics().streams_slept == 0


async def test_a_duplicate_that_the_hash_does_not_know_supersedes_the_older(
    server: Server, redis: Connection, service: str
) -> None:
    """Of one stream announced twice, as a Go producer may, the same client owns both."""
    async with Member(server.url, service, **PATIENT) as member:
        older = await owned(member, server, service)
        await redis.xadd(Keys(service).lbs, {"lbs-input": json.dumps({"DataStreamName": STREAM})})
        await wait_until(lambda: len(member.leases) == 2, "it has both")
        newer = member.leases[1]
        await newer.checkpoint("1-0")
        with pytest.raises(NotOwner) as refused:
            await older.done_if_idle()
        assert refused.value.reason == "superseded"
        assert newer.owned
        assert await newer.done_if_idle() is True
        assert await finished(redis, service)


async def test_an_older_one_that_has_not_begun_ends_in_favour_of_the_newer(
    server: Server, redis: Connection, service: str
) -> None:
    sessions = Sessions()
    async with Running(server.url, service, sessions) as run:
        ids = await write(server.url, STREAM, 1)
        await add(redis, service, [STREAM, STREAM], again=True)
        await wait_until(lambda: finished(redis, service), "both sleep")
        assert sessions.handed[STREAM] == ids
        assert run.client.statistics().dead_letters == 0


async def test_a_lease_that_stays_awake_is_announced_as_before(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, **PATIENT) as member:
        lease = await owned(member, server, service)
        ids = await write(server.url, STREAM, 1)
        assert await lease.done_if_idle() is False
        assert await known(redis, service) == lease.lbs_id
        assert await add(redis, service, [STREAM]) == [lease.lbs_id]
        await lease.checkpoint(ids[0])
        assert await lease.done_if_idle() is True
        assert await known(redis, service) is None


@pytest.mark.parametrize("key", ["data stream", "record"])
async def test_keys_of_another_type_are_said_and_the_stream_is_announced_as_before(
    server: Server, redis: Connection, service: str, key: str
) -> None:
    async with Member(server.url, service, **PATIENT) as member:
        lease = await owned(member, server, service)
        await lease.checkpoint("1-0")
        await redis.set(STREAM if key == "data stream" else Keys(service).progress(STREAM), "another type")
        with pytest.raises(RedisRejected, match=f"key.*{STREAM}.*holds another type") as refused:
            await lease.done_if_idle()
        assert refused.value.stream == STREAM
        assert lease.owned
        assert await known(redis, service) == lease.lbs_id


async def test_a_lease_that_was_released_or_lost_does_not_sleep(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, claim=False, **PATIENT) as member:
        lease = await owned(member, server, service)
        await lease.release()
        with pytest.raises(NotOwner, match="released"):
            await lease.done_if_idle()
        assert not await finished(redis, service)


@pytest.mark.parametrize("owner", ["a peer", "nobody knows", "us, anew"])
@pytest.mark.parametrize("step", ["withhold", "doze", "done"])
async def test_who_lost_the_stream_in_mid_sleep_learns_it_and_changes_nothing(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, step: str, owner: str
) -> None:
    await load(redis)
    keys = Keys(service)
    async with Member(proxy.url, service, claim=False, **PATIENT) as member:
        lease = await owned(member, server, service)
        await lease.checkpoint("1-0")
        held = proxy.hold_requests_matching(sha(step))
        asking = asyncio.ensure_future(lease.done_if_idle())
        await wait_until(lambda: held.matched, f"{step} is on its way")
        match owner:
            case "a peer":
                await redis.set(keys.lock("peer"), "{}")
                await redis.xclaim(keys.lbs, keys.group, "peer", 0, [lease.lbs_id])
            case "nobody knows":
                await redis.xack(keys.lbs, keys.group, lease.lbs_id)
                await redis.xdel(keys.lbs, lease.lbs_id)
            case _:
                await redis.xclaim(keys.lbs, keys.group, member.client.id, 0, [lease.lbs_id])
        held.release()
        with pytest.raises(NotOwner):
            await asking
        assert not lease.owned
        assert await redis.xlen(keys.lbs) == (0 if owner == "nobody knows" else 1)
        await redis.delete(keys.lock("peer"))


async def test_attempts_at_the_same_time_are_one(server: Server, redis: Connection, service: str) -> None:
    async with Member(server.url, service, **PATIENT) as member:
        lease = await owned(member, server, service)
        await lease.checkpoint("1-0")
        await redis.config_resetstat()
        assert await asyncio.gather(*(lease.done_if_idle() for _ in range(5))) == [True] * 5
        assert await calls(redis, "xpending") <= 3


async def test_done_and_done_if_idle_at_the_same_time_both_succeed(server: Server, service: str) -> None:
    async with Member(server.url, service, **PATIENT) as member:
        lease = await owned(member, server, service)
        results = await asyncio.gather(lease.done_if_idle(), lease.done(), lease.done_if_idle())
        assert [*results] == [True, None, True]
        assert member.disowned == []


async def test_a_release_in_mid_sleep_wins_or_comes_too_late(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    await load(redis)
    async with Member(proxy.url, service, claim=False, **PATIENT) as member:
        lease = await owned(member, server, service)
        await lease.checkpoint("1-0")
        held = proxy.hold_requests_matching(sha("doze"))
        asking = asyncio.ensure_future(lease.done_if_idle())
        await wait_until(lambda: held.matched, "it falls asleep")
        releasing = asyncio.ensure_future(lease.release())
        await asyncio.sleep(0)
        held.release()
        await releasing
        with pytest.raises(NotOwner, match="released"):
            await asking
        keys = Keys(service)
        [pending] = await redis.xpending_range(keys.lbs, keys.group, "-", "+", 10)
        assert pending["consumer"] == NOBODY.encode()


@pytest.mark.parametrize("how", ["drains", "closes", "lapses"])
@pytest.mark.parametrize("unread", [False, True])
async def test_who_leaves_in_mid_sleep_leaves_nothing_unread(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, how: str, unread: bool
) -> None:
    await load(redis)
    sessions = Sessions()
    async with Running(proxy.url, service, sessions, **FAST) as run:
        held = proxy.hold_requests_matching(sha("doze"))
        await add(redis, service, [STREAM])
        await wait_until(lambda: held.matched, "it falls asleep")
        entry = await arrive(redis, service, "XADD, add") if unread else None
        match how:
            case "drains":
                run.client.drain()
            case "closes":
                await run.client.aclose()
            case _:
                proxy.freeze()
                await wait_until(lambda: not run.client.alive, "the lock has lapsed")
        held.release()
        async with Running(server.url, service, sessions, **FAST):
            await wait_until(lambda: finished(redis, service), "it sleeps", 15.0)
            assert set(sessions.handed[STREAM]) == ({entry} if entry else set())
        proxy.thaw()


async def test_a_thousand_streams_that_fall_asleep_at_once_share_requests(
    server: Server, redis: Connection, service: str
) -> None:
    streams = [f"chat-{n}" for n in range(1000)]
    sessions = Sessions(1.0)
    async with Running(server.url, service, sessions, lock_ttl=10.0) as run:
        await add(redis, service, streams)
        await wait_until(lambda: len(run.working) == len(streams), "all are at work")
        await redis.config_resetstat()
        await wait_until(lambda: run.client.statistics().streams_slept == len(streams), "all sleep", 20.0)
        assert await calls(redis, "evalsha", "eval") <= 0.1 * len(streams)


async def test_after_an_outage_a_stream_sleeps_later(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """In the outage nobody asks again and again, and no session ends because nothing could come."""
    sessions = Sessions(0.4)
    async with Running(proxy.url, service, sessions, lock_ttl=10.0) as run:
        await add(redis, service, [STREAM])
        await run.handles(STREAM)
        await wait_until(lambda: redis.exists(Keys(service).progress(STREAM)), "it has begun")
        proxy.freeze()
        await asyncio.sleep(2.0)  # time itself is tested
        assert run.working == [STREAM]
        [entry] = await write(server.url, STREAM, 1)
        proxy.thaw()
        proxy.cut()
        await wait_until(lambda: sessions.handed[STREAM] == [entry], "it goes on")
        await wait_until(lambda: finished(redis, service), "it sleeps")
        assert sessions.begun == 1


async def test_without_an_answer_it_says_so_and_can_be_repeated(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    await load(redis)
    async with Member(proxy.url, service, **FAST) as member:
        lease = await owned(member, server, service)
        await lease.checkpoint("1-0")
        for step in ("withhold", "doze", "done"):
            fault = proxy.drop_requests_matching(sha(step))
            with pytest.raises(RedisUnavailable):
                await lease.done_if_idle()
            assert fault.matched
            assert lease.owned
            proxy.heal()
        assert await lease.done_if_idle() is True
        assert await finished(redis, service)


@pytest.mark.parametrize("on_forgotten", ["from_start", "from_now"])
async def test_a_forgotten_stream_starts_where_the_user_says_and_the_log_says_it(
    server: Server, redis: Connection, service: str, on_forgotten: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = Sessions()
    ids = await write(server.url, STREAM, 5)
    await redis.xtrim(STREAM, maxlen=4, approximate=False)  # which is no gap: nobody knows where it began
    keys = Keys(service)
    await redis.hset(keys.progress(STREAM), "since", ids[3])
    await redis.pexpire(keys.progress(STREAM), 60_000)
    async with Running(server.url, service, sessions, on_forgotten=on_forgotten) as run:
        await add(redis, service, [STREAM])
        await wait_until(lambda: finished(redis, service), "it sleeps")
        assert sessions.handed[STREAM] == (ids[3:] if on_forgotten == "from_now" else ids[1:])
        assert run.client.statistics().gaps == 0
        said = [r for r in caplog.records if "had expired" in r.getMessage()]
        assert [(r.levelname, r.stream) for r in said] == [("WARNING", STREAM)]  # type: ignore[attr-defined]
        assert ids[3] in said[0].getMessage()
        await add(redis, service, [STREAM])
        await wait_until(lambda: run.client.statistics().streams_slept == 2, "it sleeps again")
        assert len([r for r in caplog.records if "had expired" in r.getMessage()]) == 1


async def test_a_session_that_is_written_to_when_its_record_has_expired_starts_with_what_woke_it(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = Sessions()
    lbs = LoadBalancerStream(redis, service)
    async with Running(server.url, service, sessions, on_forgotten="from_now"):
        first = await lbs.write(STREAM, {"n": 1})
        await wait_until(lambda: finished(redis, service), "it sleeps")
        await redis.delete(Keys(service).progress(STREAM))
        later = [await lbs.write(STREAM, {"n": n}) for n in (2, 3)]
        await wait_until(lambda: sessions.handed[STREAM] == [first, *later], "it has woken")
        await wait_until(lambda: finished(redis, service), "it sleeps again")
    assert f"when entry {later[0]} woke it" in caplog.text


@pytest.mark.parametrize("rule", [{"progress_ttl": 0.0}, {"on_done": "delete"}], ids=["progress_ttl", "on_done"])
async def test_a_record_that_is_not_kept_says_for_a_while_that_the_stream_sleeps(
    server: Server, redis: Connection, service: str, rule: dict[str, Any]
) -> None:
    sessions = Sessions()
    async with Running(server.url, service, sessions, **rule) as run:
        await LoadBalancerStream(redis, service).write(STREAM, {"n": 1})
        await wait_until(lambda: finished(redis, service), "it sleeps")
        progress = Keys(service).progress(STREAM)

        async def short() -> bool:
            return bool(0 < await redis.pttl(progress) <= 3_600_000)

        await wait_until(short, "it is kept for an hour")
        kept = await record(redis, service, STREAM)
        assert kept["asleep"] == str(run.leases[0].fence)[:41]
        assert ("checkpoint" in kept) == ("progress_ttl" in rule)
