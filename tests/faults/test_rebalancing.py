"""Ring 3: what goes wrong while streams move to a member that has fewer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis_stream_client import Rebalance
from redis_stream_client._ownership.shares import threshold
from tests.harness.runs import (
    Ledger,
    Running,
    RunningFleet,
    RunWorker,
    add,
    even,
    loads,
    owners,
    shared_out,
    write,
)
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server
    from tests.harness.workers import Worker

    StartWorker = Callable[..., Awaitable[Worker]]

SETTLE = 0.3
SOON = Rebalance(SETTLE)


def names(count: int, word: str = "call") -> list[str]:
    return [f"{word}-{i}" for i in range(count)]


async def test_a_giver_that_dies_between_the_checkpoint_and_the_release(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    """Its streams are taken over, with nothing repeated: they were all checkpointed."""
    ledger, streams = Ledger(), names(6, "dying")
    giver = await (await start_worker(RunWorker, rebalance={"settle": SETTLE})).joined()
    await add(redis, service, streams)
    await wait_until(lambda: sum(e.event == "handling" for e in giver.events) == 6, "it handles all")
    first = {stream: await write(server.url, stream, 2) for stream in streams}
    await wait_until(lambda: sum(e.event == "accepted" for e in giver.events) == 12, "all is checkpointed")
    async with Running(server.url, service, ledger.follow, rebalance=SOON) as newcomer:
        await newcomer.handles(*streams)  # the first stream that it gives kills it
        second = {stream: await write(server.url, stream, 2, end=True) for stream in streams}
        await ledger.reached(dict.fromkeys(streams, 2))
        assert dict(ledger.handed) == second
        assert not any(first[stream][-1] in ledger.handed[stream] for stream in streams)
        await wait_until(lambda: newcomer.client.statistics().streams_done == 6, "all are finished")


async def test_members_that_ask_and_give_at_random_times_leave_no_stream_without_an_owner(
    server: Server, redis: Connection, service: str
) -> None:
    """Joins, drains, and closes without a drain, while streams move and get entries."""
    ledger, streams, produced = Ledger(), names(40), 0

    async def produce() -> None:
        nonlocal produced
        while produced < 120:
            async with redis.pipeline(transaction=False) as pipe:
                for stream in streams:
                    pipe.xadd(stream, {"n": produced})
                await pipe.execute()
            produced += 1
            await asyncio.sleep(0.05)

    options: dict[str, Any] = {"rebalance": Rebalance(0.1), "lock_ttl": 1.0}
    async with RunningFleet(server, service, ledger.follow, **options) as fleet:
        await fleet.join(3)
        await shared_out(redis, service, fleet.now, streams)
        producing = asyncio.create_task(produce())
        for step in range(6):
            await fleet.join()
            await asyncio.sleep(0.3)
            goes = fleet.now[step % len(fleet.now)]
            if step % 2:
                await fleet.leave(goes)
            else:
                fleet.now.remove(goes)
                await goes.client.aclose()
            await asyncio.sleep(0.2)
        await producing
        share = len(streams) / len(fleet.now)  # nobody asks unless somebody is clearly off its share
        await wait_until(
            lambda: (
                sum(loads(fleet.now)) == 40
                and all(abs(load - share) < threshold(share) for load in loads(fleet.now))
            ),
            "the load is even",
            40,
        )
        # Not what was accepted: a handler may be cancelled while it waits for the answer.
        await wait_until(lambda: {len(set(ids)) for ids in ledger.handed.values()} == {produced}, "all came", 40)

        async def redis_says_the_same() -> bool:
            by_redis = list((await owners(redis, service)).values())
            return [by_redis.count(run.client.id) for run in fleet.now] == loads(fleet.now)

        await wait_until(redis_says_the_same, "all own what Redis says")
        assert fleet.total("streams_given") > 0


async def test_whoever_is_cut_off_while_it_asks_gets_nothing_and_whoever_gives_goes_on(
    server: Server, redis: Connection, service: str, proxy: TcpProxy
) -> None:
    async with RunningFleet(server, service, rebalance=SOON, lock_ttl=0.5) as fleet:
        await fleet.join(2)
        await shared_out(redis, service, fleet.now, names(20))
        async with Running(proxy.url, service, rebalance=SOON, lock_ttl=0.5) as cut_off:
            await wait_until(lambda: cut_off.client.statistics().rebalance_asks, "it asks")
            proxy.freeze()
            await wait_until(lambda: not cut_off.client.alive, "it has lost its lock")
            await wait_until(lambda: even(fleet.now, 20), "the others have all")
            await asyncio.sleep(1.0)
            assert even(fleet.now, 20)
            proxy.thaw()
            await wait_until(lambda: even([*fleet.now, cut_off], 20), "it gets its share")


async def test_an_outage_of_redis_in_the_middle_ends_even(server: Server, redis: Connection, service: str) -> None:
    async with RunningFleet(server, service, rebalance=SOON, lock_ttl=1.0) as fleet:
        await fleet.join(2)
        await shared_out(redis, service, fleet.now, names(30))
        await fleet.join()
        await wait_until(lambda: fleet.total("rebalance_asks"), "it asks")
        server.freeze()
        try:
            await asyncio.sleep(1.5)  # longer than a lock lives
        finally:
            server.thaw()
        await fleet.even(30, timeout=40)
