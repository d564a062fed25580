"""Ring 3: real worker processes that are killed, stopped, and let go on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import LoadBalancerStream
from tests.harness.runs import RunWorker
from tests.harness.waiting import wait_until
from tests.harness.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection

    StartWorker = Callable[..., Awaitable[Worker]]

DEFAULT, FIFTH = 2.0, 0.4
STREAMS = 24


def happened(worker: Worker, event: str) -> set[str]:
    """The streams of which a worker reported this."""
    return {report.stream for report in worker.events if report.event == event}


async def holding(start_worker: StartWorker, redis: Connection, service: str, **options: float) -> Worker:
    """A worker that was handed all of `STREAMS` streams."""
    holder = await (await start_worker(**options)).joined()
    await LoadBalancerStream(redis, service).add_many([f"call-{i}" for i in range(STREAMS)])
    await wait_until(lambda: len(happened(holder, "added")) == STREAMS, "the holder has all streams")
    return holder


async def lock_expiry(redis: Connection, service: str, worker: Worker) -> float:
    """When a worker's lock expires if it is not renewed any more, as `time.time()`."""
    left: int = await redis.pttl(f"{{{service}-input}}:lock:{worker.client}")
    assert left > 0
    return time.time() + left / 1000


@pytest.mark.parametrize("lock_ttl", [DEFAULT, FIFTH])
async def test_a_killed_holders_streams_are_each_taken_by_one_peer_within_the_bound(
    redis: Connection, service: str, start_worker: StartWorker, lock_ttl: float
) -> None:
    """Its lock must expire: it has no presence, as an older version."""
    holder = await holding(start_worker, redis, service, lock_ttl=lock_ttl, presence=False)
    peers = [await (await start_worker(lock_ttl=lock_ttl)).joined() for _ in range(3)]
    holder.kill()
    expiry = await lock_expiry(redis, service, holder)
    await wait_until(lambda: sum(len(happened(peer, "claimed")) for peer in peers) >= STREAMS, "all are claimed")
    claims = [report for peer in peers for report in peer.events if report.event == "claimed"]
    assert len({claim.stream for claim in claims}) == len(claims) == STREAMS
    offered = {report.stream: report.time for p in peers for report in p.events if report.event == "expired"}
    assert min(offered.values()) - expiry > -0.05
    assert max(offered.values()) - expiry < lock_ttl / 4 + 0.25  # the bound, and what a busy machine adds


@pytest.mark.parametrize("lock_ttl", [DEFAULT, FIFTH])
async def test_a_stopped_holder_learns_what_it_lost_and_takes_nothing_back(
    redis: Connection, service: str, start_worker: StartWorker, lock_ttl: float
) -> None:
    holder = await holding(start_worker, redis, service, lock_ttl=lock_ttl)
    peer = await (await start_worker(lock_ttl=lock_ttl)).joined()
    holder.freeze()
    expiry = await lock_expiry(redis, service, holder)
    await wait_until(lambda: len(happened(peer, "claimed")) == STREAMS, "the peer has all")
    assert max(report.time for report in peer.events if report.event == "expired") - expiry < lock_ttl / 4 + 0.25
    holder.thaw()
    await wait_until(lambda: len(happened(holder, "disowned")) == STREAMS, "the holder knows what it lost")
    # Two more sweeps of everybody, in which it could steal something back.
    await asyncio.sleep(2 * lock_ttl)
    assert happened(holder, "claimed") == set()
    assert happened(peer, "disowned") == set()
    owners = await redis.xpending_range(f"{service}-input", f"{service}-group", "-", "+", 2 * STREAMS)
    assert {entry["consumer"].decode() for entry in owners} == {peer.client}


async def test_a_stopped_holder_keeps_what_nobody_took(
    redis: Connection, service: str, start_worker: StartWorker
) -> None:
    # Once awake, Redis must answer it within a heartbeat: on a busy machine, too.
    options = {"lock_ttl": 1.0, "heartbeat_interval": 0.5}
    holder = await holding(start_worker, redis, service, **options)
    peer = await (await start_worker(claim=False, **options)).joined()
    holder.freeze()
    await wait_until(lambda: len(happened(peer, "expired")) == STREAMS, "the peer is offered all")
    await asyncio.sleep(0.6)  # past the deadline by more than a heartbeat: surely a stall
    holder.thaw()
    await wait_until(lambda: redis.exists(f"{{{service}-input}}:lock:{holder.client}"), "the holder is back")
    await LoadBalancerStream(redis, service).add("one more")
    await wait_until(
        lambda: happened(holder, "added") | happened(peer, "added") >= {"one more"}, "the fleet goes on"
    )
    assert happened(holder, "disowned") == set()
    pending = await redis.xpending_range(
        f"{service}-input", f"{service}-group", "-", "+", 2 * STREAMS, consumername=holder.client
    )
    assert len(pending) >= STREAMS
    assert {entry["times_delivered"] for entry in pending} == {1}


async def test_a_stream_that_nobody_claims_is_offered_again_and_again(
    redis: Connection, service: str, start_worker: StartWorker
) -> None:
    holder = await holding(start_worker, redis, service, lock_ttl=FIFTH)
    peers = [await (await start_worker(lock_ttl=FIFTH, claim=False)).joined() for _ in range(2)]
    holder.kill()
    for peer in peers:
        await wait_until(
            lambda: sum(r.event == "expired" and r.stream == "call-7" for r in peer.events) >= 3,
            "it is offered a third time",
        )


@pytest.mark.parametrize(("kind", "victims"), [(Worker, 5), (RunWorker, 3)], ids=["events", "run"])
async def test_a_message_delivered_to_a_consumer_that_dies_at_that_instant_is_recovered(
    redis: Connection, service: str, start_worker: StartWorker, kind: type[Worker], victims: int
) -> None:
    announced: set[str] = set()
    for i in range(victims):
        victim = await (await start_worker(kind, lock_ttl=FIFTH)).joined()
        while not await _delivered_while_frozen(redis, service, victim, f"call-{i}-{len(announced)}", announced):
            victim.thaw()
        victim.kill()
    survivor = await (await start_worker(kind, lock_ttl=FIFTH)).joined()
    gets = ("claimed", "added", "handling")
    await wait_until(lambda: set().union(*(happened(survivor, e) for e in gets)) == announced, "all are recovered")


async def _delivered_while_frozen(
    redis: Connection, service: str, victim: Worker, stream: str, announced: set[str]
) -> bool:
    """Freeze a worker in its blocking read and announce a stream: the reply reaches its socket, and no line of
    its code runs. False if the read had just ended."""

    async def reads() -> bool:
        return bool((await redis.info("clients"))["blocked_clients"])

    await wait_until(reads, "the victim reads")
    victim.freeze()
    if not await reads():
        return False
    announced.add(stream)
    lbs_id = await LoadBalancerStream(redis, service).add(stream)
    pending = await redis.xpending_range(
        f"{service}-input", f"{service}-group", lbs_id, lbs_id, 1, consumername=victim.client
    )
    return bool(pending)


@pytest.mark.parametrize("leaves_by", ["terminate", "kill"])
async def test_a_whole_fleet_is_replaced_without_losing_a_stream(
    redis: Connection, service: str, start_worker: StartWorker, leaves_by: str
) -> None:
    old = [await (await start_worker(lock_ttl=FIFTH)).joined() for _ in range(2)]
    await LoadBalancerStream(redis, service).add_many([f"call-{i}" for i in range(STREAMS)])
    await wait_until(lambda: sum(len(happened(w, "added")) for w in old) == STREAMS, "all are owned")
    for worker in old:
        getattr(worker, leaves_by)()
        await worker.exit_code()
    assert await redis.xlen(f"{service}-input") == STREAMS  # nothing was acknowledged
    new = await (await start_worker(lock_ttl=FIFTH, finish=True)).joined()
    await wait_until(lambda: len(happened(new, "done")) == STREAMS, "all are taken over and finished")
    assert await redis.xlen(f"{service}-input") == 0


async def test_terminating_a_worker_hands_over_at_once(
    redis: Connection, service: str, start_worker: StartWorker
) -> None:
    holder = await holding(start_worker, redis, service, lock_ttl=DEFAULT)
    peer = await (await start_worker(lock_ttl=DEFAULT)).joined()
    holder.terminate()
    left = await holder.wait_for_event(lambda report: report.event == "left")
    await wait_until(lambda: len(happened(peer, "expired")) == STREAMS, "the peer is offered all")
    assert max(report.time for report in peer.events if report.event == "expired") - left.time < 0.5
    await wait_until(lambda: len(happened(peer, "claimed")) == STREAMS, "the peer has all")
