"""Ring 3: Redis itself fails, or is failed by its network, while entries flow through clients in `run()`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_stream_client import LoadBalancerStream, NotOwner, RedisStreamClient, RedisUnavailable
from redis_stream_client._model.keys import Keys
from tests.harness.fleet import Member, announce
from tests.harness.flow import flowing, lateness
from tests.harness.runs import Ledger, Running, write
from tests.harness.scenes import time_passes
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

CALL = "call-1"
TTL = 0.4
FAST: dict[str, Any] = {"lock_ttl": TTL}


def lapses(*clients: Running) -> int:
    """How often the clients' locks have lapsed."""
    return sum(client.client.statistics().lapses for client in clients)


async def test_script_flush_client_kill_and_a_pause_go_unnoticed_by_handlers(
    server: Server, redis: Connection, service: str
) -> None:
    async with flowing(server.url, service, server.url, server.url, lock_ttl=2.0) as flow:
        for _ in range(3):
            await redis.script_flush()
            await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await flow.goes_on()
        await redis.execute_command("CLIENT", "PAUSE", "700", "ALL")
        await flow.goes_on()
        assert lapses(*flow.clients) == 0
        assert sum(len(client.leases) for client in flow.clients) == len(flow.streams)


@pytest.mark.parametrize("how", ["in good order", "killed"])
async def test_nothing_is_lost_of_what_flows_when_redis_restarts_with_its_data(
    own_server: Callable[..., Server], service: str, how: str
) -> None:
    server = own_server("--appendonly", "yes", "--appendfsync", "always")
    async with flowing(server.url, service, server.url, server.url, **FAST) as flow:
        flow.restarted = True
        if how == "killed":
            await asyncio.to_thread(server.kill)
            server.start()
        else:
            await asyncio.to_thread(server.stop, keep_data=True)
            server.start()
        await wait_until(lambda: all(client.client.alive for client in flow.clients), "both are back")
        await flow.goes_on()


async def test_handlers_are_cancelled_when_redis_restarts_without_its_data(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    ledger = Ledger()
    await write(server.url, CALL, 5)
    async with Running(server.url, service, ledger.follow, **FAST) as run:
        await announce(server.url, service, CALL)
        await ledger.reached({CALL: 5})
        old = await run.lease(CALL)
        await asyncio.to_thread(server.restart, keep_data=False)
        await wait_until(lambda: not run.working, "the handler was cancelled")
        await wait_until(lambda: run.client.alive, "it is back")
        assert not old.owned
        with pytest.raises(NotOwner):
            await old.checkpoint("99-0")
        ledger.accepted.clear()
        ids = await write(server.url, CALL, 5, end=True)
        await announce(server.url, service, CALL)
        await wait_until(lambda: run.client.statistics().streams_done == 1, "the group exists, and it is handled")
        assert ledger.accepted[CALL] == ids  # from the beginning, since Redis knows of none before


@pytest.mark.parametrize("how", ["silent", "refused"])
async def test_a_client_that_is_cut_off_for_ten_lifetimes_of_its_lock_cancels_its_handlers_in_time(
    server: Server, proxy: TcpProxy, service: str, how: str
) -> None:
    """The peer takes over meanwhile; and the client is a member again afterwards."""
    async with (
        lateness() as late,
        flowing(server.url, service, proxy.url, server.url, streams=6, **FAST) as flow,
    ):
        cut_off, peer = flow.clients
        await wait_until(lambda: cut_off.working, "it has some of them")
        leases = [lease for lease in cut_off.leases if lease.owned]

        def beaten_at() -> float:
            return time.monotonic() - (cut_off.client.statistics().last_beat_age or 0)

        last_beat = beaten_at()
        if how == "silent":
            proxy.freeze()
        else:
            await proxy.refuse()
            proxy.cut()
        last_beat = max(last_beat, beaten_at())
        await wait_until(lambda: not any(lease.owned for lease in leases), "it stops believing", 5 * TTL)
        assert time.monotonic() - last_beat < TTL + 0.05 + late()
        await wait_until(lambda: not cut_off.working, "its handlers were cancelled", 5 * TTL)
        assert time.monotonic() - last_beat < TTL + 0.1 + 3 * late()
        assert not cut_off.client.alive
        await peer.handles(*flow.streams)
        await asyncio.sleep(max(0.0, last_beat + 10 * TTL - time.monotonic()))  # time itself is tested: a long cut
        proxy.cut()
        proxy.thaw()
        await proxy.accept()
        await wait_until(lambda: cut_off.client.alive, "it is back")
        assert cut_off.working == []
        for lease in leases:
            with pytest.raises(NotOwner):
                await lease.done()
        await peer.client.aclose()
        await cut_off.handles(*flow.streams)


async def test_a_full_redis_holds_handlers_up_and_loses_nothing(
    own_server: Callable[..., Server], service: str
) -> None:
    """No checkpoint can be written for several lifetimes of the lock: no handler is at fault."""
    server = own_server("--maxmemory-policy", "noeviction")
    async with flowing(server.url, service, server.url, server.url, max_attempts=2, **FAST) as flow:
        server.command("CONFIG", "SET", "maxmemory", "1")
        await time_passes(3 * TTL, *(client.client for client in flow.clients))
        assert lapses(*flow.clients) == 0
        server.command("CONFIG", "SET", "maxmemory", "0")
        await flow.goes_on()
        assert server.command("XLEN", Keys(service).dead) == 0
        assert lapses(*flow.clients) == 0


async def test_what_a_full_redis_cannot_write_says_so_and_may_be_repeated(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server("--maxmemory-policy", "noeviction")
    await write(server.url, CALL, 2)
    async with Member(server.url, service, **FAST) as member:
        await announce(server.url, service, CALL)
        await member.owns(CALL)
        lease = member.lease(CALL)
        entry = await anext(lease.entries())
        server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(RedisUnavailable, match="checkpoint"):
            await lease.checkpoint(entry.id)
        with pytest.raises(RedisUnavailable, match="announced"):
            await announce(server.url, service, "call-2")
        assert lease.owned
        assert member.client.statistics().lapses == 0
        server.command("CONFIG", "SET", "maxmemory", "0")
        await lease.checkpoint(entry.id)
        assert server.command("HGET", Keys(service).progress(CALL), "checkpoint").decode() == entry.id
        await lease.done()


async def evict(server: Server, clients: list[RedisStreamClient]) -> None:
    """Fill the server's memory, a little at a time, until each client's lock was evicted; then make room again."""
    async with Redis.from_url(server.url) as redis:
        before = [client.statistics().lapses for client in clients]
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", used + 2_000_000)
        filler = 0

        async def fill() -> bool:
            nonlocal filler
            with contextlib.suppress(RedisError):  # full, and nothing is left that may be evicted
                await redis.set(f"filler-{filler}", b"x" * 100_000)
                filler += 1
            return all(c.statistics().lapses > n for c, n in zip(clients, before, strict=True))

        await wait_until(fill, "the locks were evicted, and are missed")
        assert (await redis.info("stats"))["evicted_keys"] >= len(clients)
        await redis.delete(*(f"filler-{i}" for i in range(filler)))
        await redis.config_set("maxmemory", 0)


@pytest.mark.parametrize("policy", ["volatile-ttl", "volatile-lru", "volatile-random"])
async def test_a_lock_that_redis_evicts_is_a_lapse_like_any_other(
    own_server: Callable[..., Server], service: str, policy: str
) -> None:
    server = own_server("--maxmemory-policy", policy)
    async with Member(server.url, service, **FAST) as member:
        await announce(server.url, service, CALL)
        await member.owns(CALL)
        first = member.lease(CALL)
        await evict(server, [member.client])
        await wait_until(lambda: member.client.alive, "it is back")
        await member.owns(CALL)  # kept, or adopted if the lock could not be taken again in time
        last = member.lease(CALL)
        assert last is first or (last.fence > first.fence and first in member.disowned)
        await last.done()
        assert server.command("XLEN", Keys(service).lbs) == 0


async def test_locks_that_redis_evicts_stop_nothing_that_flows(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server("--maxmemory-policy", "volatile-ttl")
    async with flowing(server.url, service, server.url, server.url, **FAST) as flow:
        await evict(server, [client.client for client in flow.clients])
        await wait_until(lambda: all(client.client.alive for client in flow.clients), "both are back")
        await flow.goes_on()


@contextlib.contextmanager
def writes_are_refused(server: Server, code: str) -> Generator[None]:
    """Let the server refuse every write, the renewal of a lock too, until the end of the block."""
    if code == "NOREPLICAS":
        server.command("CONFIG", "SET", "min-replicas-to-write", 1)
        yield
        server.command("CONFIG", "SET", "min-replicas-to-write", 0)
        return
    in_the_way = server.directory / "dump.rdb"
    in_the_way.mkdir()
    (in_the_way / "file").touch()
    server.command("CONFIG", "SET", "save", "1000000 1000000")
    server.command("BGSAVE")
    deadline = time.monotonic() + 10
    while server.command("INFO", "persistence")["rdb_last_bgsave_status"] != "err":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield
    server.command("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")


@pytest.mark.parametrize("code", ["NOREPLICAS", "MISCONF"])
async def test_a_redis_that_refuses_all_writes_loses_the_leases_cleanly_and_they_come_back(
    own_server: Callable[..., Server], service: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server()
    async with Member(server.url, service, **FAST) as member, Redis.from_url(server.url) as redis:
        await announce(server.url, service, CALL)
        await member.owns(CALL)
        old = member.lease(CALL)
        with writes_are_refused(server, code):
            await wait_until(lambda: old in member.disowned, "the loss is told")
            assert not member.client.alive
            with pytest.raises(NotOwner):
                await old.done()
            with pytest.raises(RedisUnavailable, match=rf"{code}.*nothing was announced"):
                await LoadBalancerStream(redis, service).add("call-2")
            await wait_until(lambda: f"({server.url[8:]}), since " in caplog.text, "the log says where")
            assert f"Z: {code} " in caplog.text, "and why"
        await wait_until(lambda: member.client.alive, "it is back")
        await member.owns(CALL)
        assert member.lease(CALL).fence > old.fence


@pytest.mark.parametrize("code", ["NOREPLICAS", "MISCONF"])
async def test_what_flows_goes_on_after_a_redis_that_refused_all_writes(
    own_server: Callable[..., Server], service: str, code: str
) -> None:
    server = own_server()
    async with flowing(server.url, service, server.url, server.url, **FAST) as flow:
        with writes_are_refused(server, code):
            await wait_until(lambda: not any(client.client.alive for client in flow.clients), "both lapse")
            await wait_until(lambda: not any(client.working for client in flow.clients), "handlers are cancelled")
        await wait_until(lambda: all(client.client.alive for client in flow.clients), "both are back")
        await flow.goes_on()
