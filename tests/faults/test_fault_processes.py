"""Ring 3: processes are killed and stopped, and what those that go on say too late changes nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from tests.faults.test_process_faults import happened, lock_expiry
from tests.harness.fleet import Member
from tests.harness.flow import Flow
from tests.harness.runs import Running, RunWorker, add, owners, record, write
from tests.harness.scenes import die_with
from tests.harness.waiting import wait_until
from tests.harness.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server
    from tests.harness.workers import WorkerEvent

    StartWorker = Callable[..., Awaitable[Worker]]

TTL, SLEEPER_S = 1.0, 0.6
BOUND = TTL / 4 + 0.25
"""Seconds after a lock's expiry until its holder's streams have new owners: G3, and what a busy machine adds."""


class Sleeper(Worker):
    """A process that stands still once: the program `sleeper.py` beside this."""

    program = "tests.harness.sleeper"


def late_words(worker: Worker) -> dict[str, str]:
    """What came of what a sleeper did too late."""
    return dict(event.detail.split() for event in worker.events if event.event == "late")


async def standing(redis: Connection, service: str) -> dict[str, Any]:
    """All that a zombie could change."""
    keys = Keys(service)
    pending = await redis.xpending_range(keys.lbs, keys.group, "-", "+", 100)
    return {
        "announced": await redis.xrange(keys.lbs),
        "owners": {p["message_id"]: (p["consumer"], p["times_delivered"]) for p in pending},
        "dead letters": await redis.xlen(keys.dead),
        "record": await record(redis, service, "checkpoint-1"),
    }


async def woken(sleeper: Worker) -> WorkerEvent:
    return await sleeper.wait_for_event(lambda event: event.event == "awake")


@pytest.mark.parametrize("how", ["stop", "block"])
async def test_a_consumer_that_goes_on_learns_at_once_and_its_late_words_change_nothing(
    server: Server, redis: Connection, service: str, start_worker: StartWorker, how: str
) -> None:
    """It was stopped, or its event loop blocked for three lifetimes of the lock: peers have all that it had."""
    await write(server.url, "checkpoint-1", 3)
    sleeper = await (await start_worker(Sleeper, lock_ttl=SLEEPER_S, in_run=False)).joined()
    held = ["done-1", "release-1", "checkpoint-1", f"{how}-1"]
    await add(redis, service, held[:-1])
    await wait_until(lambda: happened(sleeper, "added") == set(held[:-1]), "it has them")
    await die_with(redis, service, "claim-1", lock_ttl=0.1)
    await wait_until(lambda: happened(sleeper, "expired") == {"claim-1"}, "it is offered another one")
    await add(redis, service, held[-1:])
    await sleeper.wait_for_event(lambda event: event.event == "still")
    async with Member(server.url, service, lock_ttl=SLEEPER_S) as peer:
        await peer.owns("claim-1", *held)
        heir = peer.lease("checkpoint-1")
        await anext(heir.entries())
        await heir.checkpoint("5-0")
        before = await standing(redis, service)
        assert not happened(sleeper, "awake"), "this machine is too busy"
        sleeper.thaw()
        awake = await woken(sleeper)
        assert awake.detail == ""  # it owned nothing from the first moment on
        lost = {"done-1", "checkpoint-1", f"{how}-1"}  # of what it released itself it is not told
        await wait_until(lambda: happened(sleeper, "disowned") == lost, "it is told what it lost")
        told = max(event.time for event in sleeper.events if event.event == "disowned")
        assert told - awake.time < BOUND
        await wait_until(lambda: len(late_words(sleeper)) == 4, "all was said")
        words = late_words(sleeper)
        assert words["claim"] in ("AlreadyClaimed", "NotJoined")
        assert words["done"] == words["checkpoint"] == "NotOwner"
        assert words["release"] in ("NotOwner", "NoneType")  # a peer has it, which is what a release is for
        await asyncio.sleep(2 * SLEEPER_S)  # two sweeps of everybody, in which it could steal something back
        assert await standing(redis, service) == before
        assert peer.disowned == []


@pytest.mark.parametrize("how", ["stop", "block"])
async def test_handlers_that_go_on_are_too_late_for_everything(
    server: Server, redis: Connection, service: str, start_worker: StartWorker, how: str
) -> None:
    """One returns, which says done, and one says a checkpoint: both belong to a peer by now."""
    await write(server.url, "checkpoint-1", 3)
    sleeper = await (await start_worker(Sleeper, lock_ttl=SLEEPER_S, in_run=True)).joined()
    held = ["return-1", "checkpoint-1", f"{how}-1"]
    await add(redis, service, held[:-1])
    await wait_until(lambda: happened(sleeper, "handling") == set(held[:-1]), "it has them")
    await add(redis, service, held[-1:])
    await sleeper.wait_for_event(lambda event: event.event == "still")

    async def handle(lease: Any) -> None:
        if lease.stream == "checkpoint-1":
            await anext(lease.entries())
            await lease.checkpoint("5-0")
        await asyncio.get_running_loop().create_future()

    async with Running(server.url, service, handle, lock_ttl=SLEEPER_S) as peer:
        await peer.handles(*held)
        heir = await peer.lease("checkpoint-1")
        await wait_until(lambda: heir.position == "5-0", "it has begun")
        before = await standing(redis, service)
        assert not happened(sleeper, "awake"), "this machine is too busy"
        sleeper.thaw()
        await woken(sleeper)
        await wait_until(lambda: len(late_words(sleeper)) == 1, "its checkpoint has ended")
        assert late_words(sleeper)["checkpoint"] in ("NotOwner", "CancelledError")
        assert happened(sleeper, "returned") == {"return-1", f"{how}-1"}
        await asyncio.sleep(2 * SLEEPER_S)  # two sweeps of everybody, in which it could steal something back
        assert await standing(redis, service) == before
        assert peer.client.statistics().streams_disowned == 0


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_what_flows_goes_on_in_time_when_its_handlers_process_is_gone(
    server: Server, redis: Connection, service: str, start_worker: StartWorker, how: str
) -> None:
    """All streams have new owners within the bound of G3, and each goes on where the old one stopped.

    Its lock must expire: it has no presence, as an older version."""
    flow = Flow(server.url, service, 24)
    victim = await (await start_worker(RunWorker, lock_ttl=TTL, presence=False)).joined()
    await add(redis, service, flow.streams)
    async with flow.written():
        await wait_until(lambda: happened(victim, "accepted") == set(flow.streams), "all streams flow")
        async with (
            Running(server.url, service, flow.follow, lock_ttl=TTL) as one,
            Running(server.url, service, flow.follow, lock_ttl=TTL) as other,
        ):
            if how == "killed":
                victim.kill()
            else:
                victim.freeze()
            expiry = await lock_expiry(redis, service, victim)
            await wait_until(lambda: sorted(one.working + other.working) == flow.streams, "all have new owners")
            assert max(flow.shifts(stream)[-1].began for stream in flow.streams) - expiry < BOUND
            await flow.goes_on()
            if how == "stopped":
                taken = one.owned + other.owned
                victim.thaw()
                await wait_until(lambda: happened(victim, "failed") == set(flow.streams), "it knows what it lost")
                await flow.goes_on()
                assert one.owned + other.owned == taken
            await flow.end()
    flow.hear(victim)
    await flow.check()


async def test_handlers_of_a_stopped_process_go_on_with_what_nobody_took(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    flow = Flow(server.url, service, 6)
    holder = await (await start_worker(RunWorker, lock_ttl=TTL)).joined()
    await add(redis, service, flow.streams)
    async with flow.written():
        await wait_until(lambda: happened(holder, "accepted") == set(flow.streams), "all streams flow")
        holder.freeze()
        await wait_until(lambda: _gone(redis, Keys(service).lock(holder.client)), "its lock has expired")
        await asyncio.sleep(TTL)  # past the deadline by more than a heartbeat: surely a stall
        asleep = len(holder.events)
        holder.thaw()

        def goes_on() -> bool:
            return {e.stream for e in holder.events[asleep:] if e.event == "accepted"} == set(flow.streams)

        await wait_until(goes_on, "all streams flow again")
    assert [event.stream for event in holder.events if event.event == "handling"] == flow.streams
    assert await redis.exists(Keys(service).lock(holder.client))
    await flow.end()  # by the same handlers
    assert sum(event.event == "handling" for event in holder.events) == len(flow.streams)
    flow.hear(holder)
    await flow.check()


async def _gone(redis: Connection, key: str) -> bool:
    return not await redis.exists(key)


@pytest.mark.parametrize("operation", ["claim", "claim_many"])
async def test_a_process_that_dies_before_it_hears_of_its_claim_leaves_nothing_behind(
    server: Server,
    proxy: TcpProxy,
    redis: Connection,
    service: str,
    start_worker: StartWorker,
    operation: str,
) -> None:
    """Redis has given it the streams of a dead one; no line of its code has run since."""
    for script in (operation, "join", "probe", "look"):
        await redis.script_load(scripts.load(script).text)
    victim = await (
        await start_worker(Worker if operation == "claim" else RunWorker, url=proxy.url, lock_ttl=0.4)
    ).joined()
    unheard = proxy.hold_replies_after(scripts.load(operation).sha.encode(), connections=1)
    await die_with(redis, service, "call-1", lock_ttl=0.1)
    await wait_until(lambda: unheard.matched, "it claims")
    await wait_until(lambda: _owned_by(redis, service, victim.client), "Redis has given it the stream")
    victim.kill()
    assert not happened(victim, "claimed") | happened(victim, "handling")
    if operation == "claim":
        async with Member(server.url, service, lock_ttl=0.4) as peer:
            await peer.owns("call-1")
    else:
        async with Running(server.url, service, lock_ttl=0.4) as survivor:
            await survivor.handles("call-1")
            assert (await survivor.lease("call-1")).deliveries == 3


async def _owned_by(redis: Connection, service: str, consumer: str) -> bool:
    return list((await owners(redis, service)).values()) == [consumer]
