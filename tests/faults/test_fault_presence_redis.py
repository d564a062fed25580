"""Ring 3: Redis cuts, pauses, restarts, fails over or is full, and no living member is taken for dead."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.exceptions import RedisError

from redis_stream_client import LoadBalancerStream
from redis_stream_client._model.keys import Keys
from tests.harness.cluster import start_cluster
from tests.harness.fleet import Member, announce
from tests.harness.ports import HOST
from tests.harness.presence import (
    LONG,
    SOON,
    all_present,
    declared,
    deposed,
    lock_gone,
    nothing_is_lost,
    present,
    withdrawn,
)
from tests.harness.proxy import TcpProxy
from tests.harness.sentinel import NAME, deploy
from tests.harness.waiting import wait_until
from tests.harness.workers import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

CALLS = tuple(f"call-{n}" for n in range(6))


@contextlib.asynccontextmanager
async def fleet(redis: str | Connection, service: str, size: int = 3) -> AsyncGenerator[list[Member]]:
    """So many members, all present, that own all of `CALLS`."""
    async with contextlib.AsyncExitStack() as stack:
        members = [Member(redis, service, lock_ttl=LONG) for _ in range(size)]
        for member in members:
            await stack.enter_async_context(member)
        await declared(*members)
        producer: Connection = redis
        if isinstance(redis, str):
            producer = await stack.enter_async_context(Redis.from_url(redis))
        await LoadBalancerStream(producer, service).add_many(CALLS)
        await nobody_is_in_doubt(members)
        yield members


async def nobody_is_in_doubt(members: list[Member]) -> None:
    """Wait until all are sure that they own what they own."""
    await wait_until(
        lambda: sorted(stream for member in members for stream in member.owned) == list(CALLS), "all are sure"
    )


async def kill_listeners(redis: Connection) -> None:
    """Have Redis cut the connections that prove that the members live."""
    await redis.client_kill_filter(_type="pubsub")


async def test_connections_of_all_kinds_that_are_killed_again_and_again_cost_nothing(
    server: Server, redis: Connection, service: str
) -> None:
    async with fleet(server.url, service) as members, nothing_is_lost(*members):
        for kinds in (["normal"], ["pubsub"], ["normal", "pubsub"]) * 3:
            for kind in kinds:
                await redis.client_kill_filter(_type=kind, skipme=True)
            await declared(*members)
        await redis.script_flush()


@pytest.mark.parametrize("what", ["ALL", "WRITE"])
async def test_a_pause_of_all_clients_costs_nothing(
    server: Server, redis: Connection, service: str, what: str
) -> None:
    async with fleet(server.url, service) as members, nothing_is_lost(*members):
        await redis.execute_command("CLIENT", "PAUSE", "1500", what)
        began = time.monotonic()
        if what == "ALL":
            await redis.ping()
        else:
            await redis.set("anything", "")
        assert time.monotonic() - began > 1.0


@pytest.mark.parametrize("seconds", [1.0, 3.3])
async def test_a_server_that_hangs_costs_nothing(
    own_server: Callable[..., Server], service: str, seconds: float
) -> None:
    """For so long that some or all members have given their connections up, and connect anew when it goes on."""
    server = own_server()
    async with fleet(server.url, service, 4) as members, nothing_is_lost(*members):
        server.freeze()
        await asyncio.sleep(seconds)
        server.thaw()


async def test_members_that_are_back_a_moment_later_than_a_server_that_hung_are_not_taken_for_dead(
    own_server: Callable[..., Server], service: str
) -> None:
    """As a load balancer does it: it cuts some members off while Redis hangs, and lets them in again when it sees
    that Redis is back. Those that were not cut off look at once."""
    server = own_server()
    async with (
        TcpProxy(server.port) as balancer,
        fleet(server.url, service, 4) as members,
        Member(balancer.url, service, lock_ttl=LONG) as one,
        Member(balancer.url, service, lock_ttl=LONG) as two,
        Redis.from_url(server.url) as redis,
    ):
        await all_present(redis, service, *(each.client.id for each in (*members, one, two)))
        async with nothing_is_lost(*members, one, two):
            server.freeze()
            await balancer.refuse()
            balancer.cut()
            await asyncio.sleep(1.3)  # for so long it hangs; the pauses between attempts to connect grow
            server.thaw()
            await asyncio.sleep(0.3)  # so much later
            await balancer.accept()
        assert all(each.client.statistics().presence.withdrawals for each in (one, two))


@pytest.mark.parametrize("how", ["in good order", "killed"])
async def test_a_restart_with_the_data_accuses_nobody(
    own_server: Callable[..., Server], service: str, how: str
) -> None:
    """What was declared before is in the data, and means nothing: those that come back late are not missed."""
    server = own_server("--appendonly", "yes", "--appendfsync", "always")
    async with (
        Redis.from_url(server.url) as redis,
        Worker(url=server.url, service=service, lock_ttl=LONG) as late,
        fleet(server.url, service) as members,
    ):
        await late.joined()
        await wait_until(lambda: present_so_many(redis, service, 4), "the late one is present, too")
        late.freeze()
        async with nothing_is_lost(*members):
            await asyncio.to_thread(server.kill) if how == "killed" else await asyncio.to_thread(
                server.stop, keep_data=True
            )
            server.start()
            await wait_until(lambda: no_longer(redis, service, late.client), "what it declared before is void")
        assert await redis.exists(Keys(service).lock(late.client))
        late.thaw()
        await all_present(redis, service, late.client, *(member.client.id for member in members))
        assert deposed(*members) == 0


async def present_so_many(redis: Connection, service: str, count: int) -> bool:
    return len(await present(redis, service)) == count


async def no_longer(redis: Connection, service: str, consumer: str) -> bool:
    with contextlib.suppress(RedisError, OSError):
        return consumer not in await present(redis, service)
    return False


async def test_a_fail_over_to_a_replica_after_a_crash_accuses_nobody(service: str) -> None:
    with deploy() as deployment:
        sentinel: Connection = Sentinel([(HOST, deployment.sentinel.port)])  # type: ignore[no-untyped-call]
        async with contextlib.AsyncExitStack() as stack:
            for known in sentinel.sentinels:
                stack.push_async_callback(known.aclose)
            master = await stack.enter_async_context(sentinel.master_for(NAME))
            members = await stack.enter_async_context(fleet(master, service))
            async with nothing_is_lost(*members):
                deployment.in_step()
                await asyncio.to_thread(deployment.master.kill)
                await wait_until(
                    lambda: all_on(deployment.replica, service, 3), "all are present on the new master", timeout=30
                )


def all_on(server: Server, service: str, count: int) -> bool:
    """Whether so many have declared their presence on this very run of this server."""
    with contextlib.suppress(RedisError):  # a promotion cuts connections
        run = server.command("INFO", "server")["run_id"].encode()
        found = server.command("HVALS", Keys(service).present)
        return len(found) == count and all(value.startswith(run) for value in found)
    return False


@pytest.mark.long
@pytest.mark.parametrize("how", ["", "killed"])
async def test_a_fail_over_of_a_cluster_accuses_nobody(service: str, how: str) -> None:
    with start_cluster(1) as cluster:
        async with (
            RedisCluster.from_url(cluster.url) as redis,
            fleet(redis, service) as members,
            nothing_is_lost(*members),
        ):
            old = cluster.owner_of(Keys(service).lbs)
            if how == "killed":
                old.kill()
                await asyncio.to_thread(cluster.wait_until_replaced, old)
            else:
                await asyncio.to_thread(cluster.fail_over, old, how)
            new = cluster.owner_of(Keys(service).lbs)
            assert new is not old
            await wait_until(lambda: all_on(new, service, 3), "all are present on the new master", timeout=30)


async def test_a_flush_of_everything_is_a_lapse_like_any_other(
    server: Server, redis: Connection, service: str
) -> None:
    """Redis has forgotten the locks as well: the leases are lost, and nobody was accused."""
    async with fleet(server.url, service) as members:
        await redis.flushall()
        await wait_until(lambda: all(member.client.statistics().lapses for member in members), "all have noticed")
        await wait_until(lambda: present_so_many(redis, service, 3), "all are present again")
        await declared(*members)
        assert deposed(*members) == 0
        await announce(server.url, service, "one more")
        await wait_until(lambda: any("one more" in member.owned for member in members), "the fleet goes on")


async def test_who_dies_while_redis_is_full_is_replaced_at_once(
    own_server: Callable[..., Server], service: str
) -> None:
    """Redis cannot note who watches: all look."""
    server = own_server("--maxmemory-policy", "noeviction")
    async with (
        Redis.from_url(server.url) as redis,
        fleet(server.url, service) as members,
        Worker(url=server.url, service=service, lock_ttl=LONG) as worker,
    ):
        await worker.joined()
        await all_present(redis, service, worker.client, *(member.client.id for member in members))
        await redis.config_set("maxmemory", 1)
        killed = time.monotonic()
        worker.kill()
        assert await lock_gone(redis, service, worker.client) - killed < SOON
        assert sum(member.client.statistics().lapses for member in members) == 0
        await redis.config_set("maxmemory", 0)


async def test_a_listener_that_is_cut_while_redis_is_full_withdraws_and_declares_when_there_is_room(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server("--maxmemory-policy", "noeviction")
    async with (
        Redis.from_url(server.url) as redis,
        fleet(server.url, service) as members,
        nothing_is_lost(*members),
    ):
        await redis.config_set("maxmemory", 1)
        await kill_listeners(redis)
        await withdrawn(*members)
        assert not await present(redis, service)
        await nobody_is_in_doubt(members)
        assert {member.client.statistics().presence.state for member in members} == {"withdrawn"}
        await redis.config_set("maxmemory", 0)


async def test_who_cannot_connect_again_has_withdrawn_and_lives_by_its_lock(
    server: Server, redis: Connection, service: str
) -> None:
    """`maxclients`: Redis has no room for the listeners that it has cut."""
    async with fleet(server.url, service) as members, nothing_is_lost(*members):
        await redis.config_set("maxclients", len(await redis.client_list()) - len(members))
        await kill_listeners(redis)
        await withdrawn(*members)
        assert not await present(redis, service)
        await nobody_is_in_doubt(members)
        await redis.config_set("maxclients", 10_000)
