"""Ring 3: who dies is replaced at once, by its presence; who stands still, when its lock expires."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from redis_stream_client._model.keys import Keys
from tests.faults.test_process_faults import happened, lock_expiry
from tests.harness.fleet import Member, announce
from tests.harness.flow import Flow
from tests.harness.ports import HOST
from tests.harness.presence import (
    LONG,
    SOON,
    all_present,
    deposed,
    lock_gone,
    nothing_is_lost,
    watcher,
    watches,
)
from tests.harness.runs import Running, RunWorker, add, owners
from tests.harness.servers import clients_of
from tests.harness.tls import Certificate, NoOpenSSL, serve_tls
from tests.harness.waiting import wait_until
from tests.harness.workers import Crowd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.servers import Server
    from tests.harness.workers import Worker

    StartWorker = Callable[..., Awaitable[Worker]]

SETTLING = 1.0
"""Seconds that members get in which more than half vanish at once."""


async def started(start_worker: StartWorker, count: int, lock_ttl: float = LONG) -> list[Worker]:
    """So many worker processes that have joined."""
    workers = [await start_worker(lock_ttl=lock_ttl) for _ in range(count)]
    for worker in workers:
        await worker.joined()
    return workers


async def given(server: Server, service: str, worker: Worker, *streams: str) -> None:
    """Announce streams that this worker is handed: it is the only one that takes any."""
    await announce(server.url, service, *streams)
    await wait_until(lambda: happened(worker, "added") == set(streams), "it owns them")


@pytest.mark.parametrize("frozen", [False, True], ids=["at work", "frozen"])
async def test_a_killed_process_is_replaced_at_once_at_any_lifetime_of_its_lock(
    server: Server, redis: Connection, service: str, start_worker: StartWorker, *, frozen: bool
) -> None:
    [worker] = await started(start_worker, 1)
    await given(server, service, worker, "call-1", "call-2", "call-3")
    async with Member(server.url, service, lock_ttl=LONG) as peer:
        await all_present(redis, service, worker.client, peer.client.id)
        if frozen:
            worker.freeze()
        killed = time.monotonic()
        worker.kill()
        await peer.owns("call-1", "call-2", "call-3")
        assert time.monotonic() - killed < SOON
        assert deposed(peer) == 1
        assert {offer.previous_owner for offer in peer.expired} == {worker.client}


@pytest.mark.parametrize("how", ["TLS", "protocol 2"])
async def test_however_members_connect_a_killed_process_is_replaced_at_once(
    own_server: Callable[..., Server],
    tmp_path_factory: pytest.TempPathFactory,
    service: str,
    start_worker: StartWorker,
    how: str,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        if how == "TLS":
            try:
                certificate = Certificate(tmp_path_factory.mktemp("tls"))
            except NoOpenSSL as error:
                pytest.skip(str(error))
            port = await stack.enter_async_context(serve_tls(own_server, certificate))
            url = f"rediss://{HOST}:{port}?ssl_ca_certs={certificate.path}"
        else:
            url = f"{own_server().url}?protocol=2"
        redis = await stack.enter_async_context(Redis.from_url(url))
        worker = await (await start_worker(url=url, lock_ttl=LONG)).joined()
        member = await stack.enter_async_context(Member(url, service, lock_ttl=LONG))
        await all_present(redis, service, worker.client, member.client.id)
        killed = time.monotonic()
        worker.kill()
        assert await lock_gone(redis, service, worker.client) - killed < SOON


async def test_what_flows_goes_on_at_once_when_its_handlers_process_is_killed(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    flow = Flow(server.url, service, 24)
    victim = await (await start_worker(RunWorker, lock_ttl=LONG)).joined()
    await add(redis, service, flow.streams)
    async with flow.written():
        await wait_until(lambda: happened(victim, "accepted") == set(flow.streams), "all streams flow")
        async with (
            Running(server.url, service, flow.follow, lock_ttl=LONG) as one,
            Running(server.url, service, flow.follow, lock_ttl=LONG) as other,
        ):
            await all_present(redis, service, victim.client, one.client.id, other.client.id)
            killed = time.time()
            victim.kill()
            await wait_until(lambda: sorted(one.working + other.working) == flow.streams, "all have new owners")
            assert max(flow.shifts(stream)[-1].began for stream in flow.streams) - killed < SOON
            await flow.goes_on()
            await flow.end()
    flow.hear(victim)
    await flow.check()


async def test_a_stopped_process_keeps_its_streams_until_its_lock_expires_and_learns_then_what_it_lost(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    [worker] = await started(start_worker, 1, lock_ttl=2.0)
    await given(server, service, worker, "call-1", "call-2")
    async with Member(server.url, service, lock_ttl=2.0) as peer:
        await all_present(redis, service, worker.client, peer.client.id)
        await watches(redis, service, peer.client.id)
        worker.freeze()
        expiry = await lock_expiry(redis, service, worker)
        await peer.owns("call-1", "call-2")
        assert time.time() > expiry - 0.05
        assert deposed(peer) == 0
        worker.thaw()
        await wait_until(lambda: happened(worker, "disowned") == {"call-1", "call-2"}, "it knows what it lost")
        await all_present(redis, service, worker.client, peer.client.id)
        assert peer.disowned == []


async def test_two_that_are_killed_at_once_are_both_replaced(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    one, two, three = await started(start_worker, 3)
    async with Member(server.url, service, lock_ttl=LONG) as peer:
        await all_present(redis, service, *(each.client for each in (one, two, three)), peer.client.id)
        killed = time.monotonic()
        one.kill()
        two.kill()
        assert await lock_gone(redis, service, one.client, two.client) - killed < SOON
        assert await redis.exists(Keys(service).lock(three.client))


@pytest.mark.parametrize("left", ["some", "one"])
async def test_more_than_half_of_a_fleet_that_are_killed_at_once_are_replaced_a_second_later(
    server: Server, redis: Connection, service: str, start_worker: StartWorker, left: str
) -> None:
    """Perhaps Redis has cut off all: whoever lives on is back within that second."""
    victims = await started(start_worker, 1)
    await given(server, service, victims[0], "call-1")
    victims += await started(start_worker, 2)
    peers = await started(start_worker, 1 if left == "some" else 0)
    async with Member(server.url, service, lock_ttl=LONG) as member:
        alive = [member.client.id, *(peer.client for peer in peers)]
        await all_present(redis, service, *alive, *(victim.client for victim in victims))
        killed = time.monotonic()
        for victim in victims:
            victim.kill()
        took = await lock_gone(redis, service, *(victim.client for victim in victims)) - killed
        assert SETTLING / 2 < took < SETTLING + SOON  # not all of them die in the very same look
        await all_present(redis, service, *alive)

        async def taken() -> bool:
            return set((await owners(redis, service)).values()) <= set(alive)

        await wait_until(taken, "its stream is owned by one that lives")


@pytest.mark.long
async def test_thirty_of_a_hundred_that_are_killed_at_once_are_replaced_at_once_and_nobody_else(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    victims = await crowd(start_worker, 30)
    others = await crowd(start_worker, 69)
    async with Member(server.url, service, lock_ttl=LONG, max_streams=5) as member:
        await wait_until(lambda: len(victims.clients) == 30 and len(others.clients) == 69, "all have joined", 60)
        await announce(server.url, service, *(f"call-{n}" for n in range(200)))
        alive = {member.client.id, *others.clients}
        await all_present(redis, service, *alive, *victims.clients, timeout=30)
        await wait_until(lambda: owners_are(redis, service, alive | set(victims.clients), 200), "all are owned")
        await watches(redis, service, member.client.id)
        killed = time.monotonic()
        victims.kill()
        assert await lock_gone(redis, service, *victims.clients) - killed < SOON
        assert await redis.exists(*(Keys(service).lock(consumer) for consumer in alive)) == len(alive)
        await all_present(redis, service, *alive)
        await wait_until(lambda: deposed(member) == 30, "one has deposed them all")


async def crowd(start_worker: StartWorker, count: int) -> Crowd:
    """Start a process with so many members."""
    started = await start_worker(Crowd, lock_ttl=LONG, max_streams=5, clients=count)
    assert isinstance(started, Crowd)
    return started


async def owners_are(redis: Connection, service: str, consumers: set[str], count: int) -> bool:
    """Whether so many announcements are owned, by all of these."""
    owned = await owners(redis, service)
    return len(owned) == count and set(owned.values()) <= consumers


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_when_the_one_that_watches_is_gone_another_one_sees_who_dies(
    server: Server, redis: Connection, service: str, start_worker: StartWorker, how: str
) -> None:
    """Frozen, it keeps its connections: the others wait for the end of its tenure."""
    gone, victim, other = await started(start_worker, 3)
    async with Member(server.url, service, lock_ttl=LONG) as member:
        alive = [victim.client, other.client, member.client.id]
        await all_present(redis, service, gone.client, *alive)
        await watches(redis, service, gone.client)
        began = time.monotonic()
        if how == "killed":
            gone.kill()
            assert await lock_gone(redis, service, gone.client) - began < SOON
        else:
            gone.freeze()

        async def moved_on() -> bool:
            return await watcher(redis, service) in alive

        await wait_until(moved_on, "another one watches", timeout=SOON)
        killed = time.monotonic()
        victim.kill()
        assert await lock_gone(redis, service, victim.client) - killed < SOON
        assert await redis.exists(Keys(service).lock(gone.client)) == (how == "frozen")


async def test_one_that_watched_and_stood_still_accuses_nobody_of_what_it_saw_before(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    """It saw that others were absent, slept, and goes on when they are long back."""
    [sleeper] = await started(start_worker, 1)
    its_own = {each["id"] for each in clients_of(server)}
    async with (
        Member(server.url, service, lock_ttl=LONG) as one,
        Member(server.url, service, lock_ttl=LONG) as two,
    ):
        everybody = (sleeper.client, one.client.id, two.client.id)
        await all_present(redis, service, *everybody)
        for _ in range(3):
            async with nothing_is_lost(one, two):
                await watches(redis, service, sleeper.client)
                for each in clients_of(server):
                    if each["name"].endswith("listener") and each["id"] not in its_own:
                        await redis.client_kill_filter(_id=each["id"])
                sleeper.freeze()
                await all_present(redis, service, *everybody)
                sleeper.thaw()
                await watches(redis, service, sleeper.client)
