"""The balancer: a fleet gets even again, with the fewest moves; an even one says nothing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from redis_stream_client import Rebalance
from redis_stream_client._concurrency import clock
from redis_stream_client._model.keys import Keys
from redis_stream_client._ownership.shares import threshold
from tests.harness.fleet import Member
from tests.harness.runs import Ledger, RunningFleet, add, calls, even, loads, shared_out
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

SOON = Rebalance(settle=0.4)
NEVER = Rebalance(settle=3600)


def names(count: int) -> list[str]:
    return [f"call-{i}" for i in range(count)]


async def produce(redis: Connection, streams: Sequence[str], entries: int) -> None:
    """Add entries to these streams, one each every 50 ms."""
    for n in range(entries):
        async with redis.pipeline(transaction=False) as pipe:
            for stream in streams:
                pipe.xadd(stream, {"n": n})
            await pipe.execute()
        await asyncio.sleep(0.05)


async def test_a_newcomer_gets_its_share_by_the_fewest_moves_and_nothing_is_repeated(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="redis_stream_client")
    streams, ledger, entries = names(100), Ledger(), 60
    async with RunningFleet(server, service, ledger.follow, rebalance=Rebalance(settle=1.0)) as fleet:
        await fleet.join(4)
        await shared_out(redis, service, fleet.now, streams)
        assert loads(fleet.now) == [25] * 4
        caplog.clear()
        producing = asyncio.create_task(produce(redis, streams, entries))
        (newcomer,) = await fleet.join()
        await fleet.even(100, timeout=3.0)
        assert fleet.moves == 120
        assert {lease.attempts for lease in newcomer.leases} <= {0, 1}
        await producing
        await ledger.reached(dict.fromkeys(streams, entries))
        assert all(len(ids) == len(set(ids)) == entries for ids in ledger.handed.values())
        statistics = newcomer.client.statistics()
        await wait_until(lambda: newcomer.client.statistics().streams_received == 20, "it has what it wanted")
        assert statistics.rebalance_asks > 0
        assert fleet.total("streams_given") == 20
        assert fleet.total("streams_going") == 0
        said = [record for record in caplog.records if "rebalanced" in record.message]
        assert len(said) == 1
        assert said[0].levelno == logging.INFO
        assert said[0].message.startswith("rebalanced: 20 streams came in ")
        assert all(f"{run.client.id} (5)" in said[0].message for run in fleet.now[:4])


async def test_the_log_says_when_the_last_stream_came_and_not_how_long_others_were_asked_in_vain(
    server: Server, service: str, redis: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="redis_stream_client")
    async with RunningFleet(server, service, rebalance=SOON) as fleet:
        await fleet.join(1)
        await fleet.join(1, rebalance=None)  # does not give
        await shared_out(redis, service, fleet.now, names(60))
        joined = clock.now()
        (newcomer,) = await fleet.join()
        await wait_until(lambda: len(newcomer.owned) == 10, "the one that gives is down to its share")
        came = clock.now() - joined
        asks = newcomer.client.statistics().rebalance_asks
        await wait_until(lambda: newcomer.client.statistics().rebalance_asks >= asks + 3, "it asks in vain")
        await fleet.join(1)
        await wait_until(lambda: "rebalanced: 10 streams" in caplog.text, "the asks have come to an end")
        [said] = [record for record in caplog.records if "rebalanced" in record.message]
        assert isinstance(said.args, tuple)
        took = said.args[1]
        assert isinstance(took, float)
        assert took < came + 1.0 < clock.now() - joined


async def test_members_of_mixed_weights_get_their_shares_by_the_fewest_moves(
    server: Server, redis: Connection, service: str
) -> None:
    streams, ledger, entries, weights = names(80), Ledger(), 50, [1.0, 1.0, 2.0, 2.0]
    shares = [len(streams) * weight / sum(weights) for weight in weights]
    async with RunningFleet(server, service, ledger.follow, rebalance=SOON) as fleet:
        for weight in weights[:3]:
            await fleet.join(weight=weight)
        await wait_until(
            lambda: all(run.client.statistics().live_members == 3 for run in fleet.now), "all know each other"
        )
        await shared_out(redis, service, fleet.now, streams)
        before = [*loads(fleet.now), 0]
        producing = asyncio.create_task(produce(redis, streams, entries))
        (newcomer,) = await fleet.join(weight=weights[3])
        await wait_until(lambda: len(newcomer.owned) >= int(shares[3]), "it has its share")
        await producing
        await ledger.reached(dict.fromkeys(streams, entries))
        assert all(len(ids) == len(set(ids)) == entries for ids in ledger.handed.values())
        after = loads(fleet.now)
        assert sum(after) == len(streams)
        assert all(abs(streams - share) < threshold(share) for streams, share in zip(after, shares, strict=True))
        least = sum(max(0, streams - had) for streams, had in zip(after, before, strict=True))
        assert fleet.moves - len(streams) <= 1.1 * least
        assert fleet.total("streams_given") == fleet.moves - len(streams)


async def test_a_fleet_that_doubles_gets_even_by_few_moves(
    server: Server, redis: Connection, service: str
) -> None:
    async with RunningFleet(server, service, rebalance=SOON) as fleet:
        await fleet.join(4)
        await shared_out(redis, service, fleet.now, names(100))
        await fleet.join(4)
        await fleet.even(100)
        await asyncio.sleep(0.5)  # nothing more moves
        assert fleet.moves - 100 <= 52  # 48 is the least


async def test_a_rolling_restart_ends_even_and_moves_nothing_twice(
    server: Server, redis: Connection, service: str
) -> None:
    """Nothing moves while it goes on, but what those had that left."""
    async with RunningFleet(server, service, rebalance=Rebalance(settle=0.6)) as fleet:
        await fleet.join(4)
        await shared_out(redis, service, fleet.now, names(24))
        for old in list(fleet.now):
            await fleet.leave(old)
            await wait_until(lambda: sum(len(run.working) for run in fleet.now) == 24, "all are handled again")
            await fleet.join()
        assert fleet.total("rebalance_asks") == 0
        restarted = fleet.moves
        uneven = sorted(loads(fleet.now))
        assert uneven[0] == 0, "or there is nothing to test"
        await fleet.even(24)
        assert fleet.moves - restarted == sum(6 - own for own in uneven if own < 6)


async def test_an_even_fleet_sends_no_command_more(server: Server, redis: Connection, service: str) -> None:
    """What three members ask in two seconds, besides their sweeps; a look of each would be more than the noise."""

    async def sent(rebalance: Rebalance | None) -> int:
        async with RunningFleet(
            server, service + str(rebalance is None), rebalance=rebalance, lock_ttl=0.4
        ) as fleet:
            await fleet.join(3)
            await shared_out(redis, service + str(rebalance is None), fleet.now, names(9))
            assert even(fleet.now, 9)
            await asyncio.sleep(0.5)
            before = await calls(redis, "xinfo|consumers") - fleet.total("sweeps")
            await asyncio.sleep(2.0)  # time itself is measured
            assert fleet.total("rebalance_asks") == 0
            return await calls(redis, "xinfo|consumers") - fleet.total("sweeps") - before

    assert await sent(Rebalance(settle=0.1)) <= await sent(None) + 6


async def test_streams_that_end_by_chance_move_none(server: Server, redis: Connection, service: str) -> None:
    async with RunningFleet(server, service, Ledger().follow, rebalance=SOON) as fleet:
        await fleet.join(3)
        await shared_out(redis, service, fleet.now, names(15))
        for lease in fleet.now[0].leases[:1]:
            await redis.xadd(lease.stream, {"end": ""})
        await wait_until(lambda: sorted(loads(fleet.now)) == [4, 5, 5], "one has ended")
        await asyncio.sleep(1.5)  # nothing happens
        assert fleet.total("rebalance_asks") == 0
        assert fleet.moves == 15


async def test_a_member_that_is_full_asks_for_no_more(server: Server, redis: Connection, service: str) -> None:
    async with RunningFleet(server, service, rebalance=SOON) as fleet:
        await fleet.join(2)
        await shared_out(redis, service, fleet.now, names(20))
        (small,) = await fleet.join(max_streams=3)
        await wait_until(lambda: sorted(loads(fleet.now)) == [3, 8, 9], "it has what it can take")
        await asyncio.sleep(1.0)  # nothing more happens
        assert fleet.moves == 23
        asks = small.client.statistics().rebalance_asks
        await asyncio.sleep(0.6)
        assert small.client.statistics().rebalance_asks == asks


async def test_a_member_without_rebalancing_neither_asks_nor_gives(
    server: Server, redis: Connection, service: str
) -> None:
    async with RunningFleet(server, service, rebalance=SOON) as fleet:
        await fleet.join(2)
        (without,) = await fleet.join(rebalance=None)
        await shared_out(redis, service, fleet.now, names(30))
        await fleet.join(2)
        await wait_until(lambda: sum(loads(fleet.now[3:])) >= 8, "they get what the others have to give")
        await wait_until(lambda: max(loads(fleet.now[:2])) <= 6, "who gives comes down to the share")
        await asyncio.sleep(0.5)
        assert len(without.owned) == 10
        assert without.client.statistics().streams_given == 0
        assert sum(loads(fleet.now)) == 30
        await fleet.leave(fleet.now[0])
        await wait_until(lambda: sum(loads(fleet.now)) == 30, "its streams go on")


async def test_a_member_that_reads_events_is_left_alone(server: Server, redis: Connection, service: str) -> None:
    async with Member(server.url, service) as member, RunningFleet(server, service, rebalance=SOON) as fleet:
        await add(redis, service, names(10))
        await wait_until(lambda: len(member.owned) == 10, "it has all")
        await fleet.join()
        await asyncio.sleep(1.5)
        assert len(member.owned) == 10


async def test_an_ask_that_is_lost_is_repeated(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redis_stream_client._protocol.hints import Hints, Wants

    lost: list[Wants] = []
    tell = Hints.tell

    async def lose_the_first(self: Hints, hint: Any, timeout: float) -> None:
        if isinstance(hint, Wants) and not lost:
            lost.append(hint)
        else:
            await tell(self, hint, timeout)

    monkeypatch.setattr(Hints, "tell", lose_the_first)
    async with RunningFleet(server, service, rebalance=SOON) as fleet:
        await fleet.join(2)
        await shared_out(redis, service, fleet.now, names(12))
        await fleet.join()
        await fleet.even(12)
        assert lost
        assert fleet.moves == 16


async def test_an_ask_of_a_stranger_moves_nothing(server: Server, redis: Connection, service: str) -> None:
    async with RunningFleet(server, service, rebalance=SOON) as fleet:
        await fleet.join(2)
        await shared_out(redis, service, fleet.now, names(12))
        await asyncio.sleep(0.5)
        for ask in (b"wants nobody-we-know 9", b"wants 9", b"wants x 99999999999999999999", b"wants \xff -1"):
            await redis.publish(Keys(service).control, ask)
        await redis.publish(Keys(service).control, f"wants {fleet.now[0].client.id} 5")
        await asyncio.sleep(0.8)
        assert fleet.moves == 12
