"""Presence through what happens to servers, networks and processes: nobody who lives is taken for dead."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis, RedisCluster, Sentinel

from redis_stream_client import Presence, RedisStreamClient
from redis_stream_client._model.keys import Keys
from tests.harness.fleet import Member, announce
from tests.harness.ports import HOST
from tests.harness.presence import LONG, lock_gone
from tests.harness.processes import die_with_parent
from tests.harness.scenes import live_through_it
from tests.harness.sentinel import NAME, deploy
from tests.harness.tls import Certificate, NoOpenSSL, serve_tls
from tests.harness.waiting import wait_until
from tests.harness.workers import ROOT, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection
    from tests.harness.sentinel import Deployment
    from tests.harness.servers import Server


@contextlib.asynccontextmanager
async def fleet(make: Callable[[], RedisStreamClient], members: int) -> AsyncGenerator[list[RedisStreamClient]]:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(make()) for _ in range(members)]
        await all_present(clients)
        yield clients


async def all_present(clients: Sequence[RedisStreamClient], members: int | None = None) -> None:
    """Wait until these are present, and one of them watches, or, with others, each has seen so many members."""

    def watched() -> bool:
        presences = [client.statistics().presence for client in clients]
        known = {(each.state, each.members) for each in presences}
        return known == {("declared", members)} if members else watched_here(presences)

    def watched_here(presences: Sequence[Presence]) -> bool:
        return {each.state for each in presences} == {"declared"} and any(
            each.watching and each.members >= len(clients) for each in presences
        )

    try:
        await wait_until(watched, "all are present and watched", timeout=20)
    except AssertionError as error:
        error.add_note(f"{[client.statistics().presence for client in clients]}")
        raise


def nobody_was_deposed(clients: Sequence[RedisStreamClient]) -> bool:
    return not sum(client.statistics().presence.deposed for client in clients)


async def test_a_listener_that_is_cut_fifty_times_a_second_costs_no_stream(
    server: Server, redis: Connection, service: str
) -> None:
    async with (
        Member(server.url, service, lock_ttl=LONG) as one,
        Member(server.url, service, lock_ttl=LONG) as two,
        Member(server.url, service, lock_ttl=LONG) as three,
    ):
        members = (one, two, three)
        await all_present([each.client for each in members])
        await announce(server.url, service, *(f"call-{n}" for n in range(30)))
        await wait_until(lambda: sum(len(each.leases) for each in members) == 30, "all are owned")
        for _ in range(100):
            await redis.client_kill_filter(_type="pubsub")
            await asyncio.sleep(0.02)
        await all_present([each.client for each in members])
        assert all(lease.owned for each in members for lease in each.leases)
        assert nobody_was_deposed([each.client for each in members])
        assert not any(each.client.statistics().lapses for each in members)


async def test_an_output_buffer_that_overflows_costs_no_stream(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server("--client-output-buffer-limit", "pubsub", "256kb", "64kb", "1")
    async with (
        Redis.from_url(server.url) as redis,
        Member(server.url, service, lock_ttl=LONG) as one,
        Member(server.url, service, lock_ttl=LONG) as two,
    ):
        members = (one, two)
        await all_present([each.client for each in members])
        await announce(server.url, service, *(f"call-{n}" for n in range(10)))
        await wait_until(lambda: sum(len(each.leases) for each in members) == 10, "all are owned")
        burst = "for _ = 1, 60000 do redis.call('PUBLISH', KEYS[1], string.rep('x', 50)) end"
        for times in range(1, 4):
            await redis.eval(burst, 1, Keys(service).control)
            for each in members:
                presence = each.client.statistics
                await wait_until(lambda p=presence, t=times: p().presence.withdrawals >= t, "it was cut off")  # type: ignore[misc]
            await all_present([each.client for each in members])
        assert all(lease.owned for each in members for lease in each.leases)
        assert nobody_was_deposed([each.client for each in members])


@pytest.mark.parametrize("keep_data", [True, False])
async def test_a_restart_accuses_nobody(own_server: Callable[..., Server], service: str, keep_data: bool) -> None:
    server = own_server()
    async with fleet(lambda: RedisStreamClient.from_url(server.url, service, lock_ttl=2.0), 3) as clients:
        lapses = [client.statistics().lapses for client in clients]
        await asyncio.to_thread(server.restart, keep_data=keep_data)
        await all_present(clients)
        assert nobody_was_deposed(clients)
        if keep_data:
            assert [client.statistics().lapses for client in clients] == lapses


@contextlib.asynccontextmanager
async def sentinel_fleet(service: str, members: int) -> AsyncGenerator[tuple[Deployment, list[RedisStreamClient]]]:
    """Members that ask sentinels for their master. In the end, nobody was deposed."""
    with deploy() as deployment:
        sentinel = Sentinel([(HOST, deployment.sentinel.port)])  # type: ignore[no-untyped-call]

        def client() -> RedisStreamClient:
            return RedisStreamClient(sentinel.master_for(NAME), service, lock_ttl=2.0)

        async with fleet(client, members) as clients:
            yield deployment, clients
            await all_present(clients)
            assert nobody_was_deposed(clients)
        for one in sentinel.sentinels:
            await one.aclose()


async def declared_at(server: Server, service: str, members: int) -> None:
    """Wait until so many have declared their presence on this run of this server, and nobody on another one."""

    async def all_there() -> bool:
        async with Redis.from_url(server.url) as redis:
            run_id = (await redis.info("server"))["run_id"].encode()
            declared = await redis.hvals(Keys(service).present)
        return len(declared) == members and all(value.startswith(run_id) for value in declared)

    await wait_until(all_there, "all are present at the new server", timeout=20)


@pytest.mark.long
async def test_a_failover_accuses_nobody(service: str) -> None:
    async with sentinel_fleet(service, 3) as (deployment, _):
        await asyncio.to_thread(deployment.fail_over)
        await declared_at(deployment.master, service, 3)


async def test_an_old_master_that_lives_on_accuses_nobody(service: str) -> None:
    async with sentinel_fleet(service, 2) as (deployment, clients):
        await asyncio.to_thread(deployment.change_places)
        new = deployment.master

        async def all_there() -> bool:
            async with Redis.from_url(new.url) as redis:
                counted = await redis.pubsub_numsub(
                    *(Keys(service).presence_channel(client.id, 0) for client in clients)
                )
            return all(count for _, count in counted)

        await wait_until(all_there, "all listen at the new master", timeout=20)


async def test_a_slot_that_moves_deposes_nobody(cluster: Cluster, service: str) -> None:
    keys = Keys(service)
    async with (
        RedisCluster.from_url(cluster.url) as redis,
        fleet(lambda: RedisStreamClient(redis, service, lock_ttl=LONG), 3) as clients,
    ):
        source = cluster.owner_of(keys.lbs)
        for _ in range(2):  # there and back: what was declared there at first is still about the same run
            before = cluster.owner_of(keys.lbs)
            there = next(node for node in cluster.masters if node is not before) if before is source else source
            target = await asyncio.to_thread(cluster.move, keys.lbs, there)

            await declared_at(target, service, 3)
            await all_present(clients)
        assert nobody_was_deposed(clients)


async def test_over_tls_a_client_is_present(
    own_server: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory, service: str
) -> None:
    try:
        certificate = Certificate(tmp_path_factory.mktemp("tls"))
    except NoOpenSSL as error:
        pytest.skip(str(error))
    async with serve_tls(own_server, certificate) as port:
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate.path}"
        async with (
            Redis.from_url(url) as redis,
            fleet(lambda: RedisStreamClient.from_url(url, service, lock_ttl=LONG), 2) as clients,
        ):
            await redis.client_kill_filter(_type="pubsub")
            await wait_until(lambda: clients[0].statistics().presence.withdrawals, "it was cut off")
            await all_present(clients)
            assert nobody_was_deposed(clients)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_whichever_protocol_the_user_has_chosen(server: Server, service: str, protocol: int) -> None:
    url = f"{server.url}?protocol={protocol}"
    async with Redis.from_url(url) as redis, RedisStreamClient.from_url(url, service, lock_ttl=1.0) as client:
        await all_present([client])
        await live_through_it(client, redis, service)


@pytest.mark.parametrize("service", ["a*b", "a[x]?", "{a}b", "sp ace", "ü\\"])
async def test_names_with_odd_characters(server: Server, redis: Connection, service: str) -> None:
    async with (
        Worker(url=server.url, service=service, lock_ttl=LONG, consumer_name="[*]?\\") as worker,
        fleet(
            lambda: RedisStreamClient.from_url(server.url, service, lock_ttl=LONG, consumer_name="é*"), 2
        ) as clients,
    ):
        await worker.joined()
        await all_present(clients, 3)
        worker.kill()
        await lock_gone(redis, service, worker.client, timeout=5)
        await wait_until(
            lambda: sum(client.statistics().presence.deposed for client in clients) == 1, "one of them did it"
        )


async def test_in_another_database(server: Server, service: str) -> None:
    url = f"{server.url}/3"
    async with (
        Redis.from_url(url) as redis,
        Worker(url=url, service=service, lock_ttl=LONG) as worker,
        fleet(lambda: RedisStreamClient.from_url(url, service, lock_ttl=LONG), 2) as clients,
    ):
        await worker.joined()
        await all_present(clients, 3)
        worker.kill()
        await lock_gone(redis, service, worker.client, timeout=5)


PROGRAM = """
import asyncio, os, sys, time
from redis.asyncio import Redis, RedisCluster
from redis_stream_client import RedisStreamClient

async def main(url, service, *words):
    redis = (RedisCluster if "cluster" in words else Redis).from_url(url)
    async with redis, RedisStreamClient(redis, service, lock_ttl=10.0) as client:
        while client.statistics().presence.state != "declared":
            await asyncio.sleep(0.01)
        child = os.fork() if "fork" in words else -1
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(client.id, child, flush=True)
        await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def program(url: str, service: str, *words: str) -> AsyncGenerator[tuple[Callable[[], None], str, int]]:
    """A process that is present. Gives what kills it, its consumer id, and the pid of its child."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, url, service, *words),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent(),
    )
    assert process.stdout is not None
    name, child = (await process.stdout.readline()).decode().split()
    try:
        yield process.kill, name, int(child)
    finally:
        if int(child) > 0:
            os.kill(int(child), signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_in_a_cluster_a_crash_is_noticed(cluster: Cluster, service: str) -> None:
    async with (
        RedisCluster.from_url(cluster.url) as redis,
        fleet(lambda: RedisStreamClient(redis, service, lock_ttl=LONG), 2) as clients,
        program(cluster.url, service, "cluster") as (kill, name, _),
    ):
        await all_present(clients, 3)
        kill()
        killed = time.monotonic()
        await lock_gone(redis, service, name, timeout=5)
        assert time.monotonic() - killed < LONG / 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
async def test_the_crash_of_a_process_is_noticed_though_its_forked_child_lives_on(
    server: Server, redis: Connection, service: str
) -> None:
    async with (
        fleet(lambda: RedisStreamClient.from_url(server.url, service, lock_ttl=LONG), 2) as clients,
        program(server.url, service, "fork") as (kill, name, child),
    ):
        await all_present(clients, 3)
        await asyncio.sleep(0.3)  # time itself: the parent goes on after the fork
        assert await redis.hlen(Keys(service).present) == 3
        assert nobody_was_deposed(clients)
        kill()
        killed = time.monotonic()
        await lock_gone(redis, service, name, timeout=5)
        assert time.monotonic() - killed < LONG / 2
        os.kill(child, 0)
