"""Ring 3: what arrives unasked, or comes again that Redis forgot it had given: under a new fence all the same."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import LoadBalancerStream, NotOwner, RedisStreamClient, StreamAdded
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol.announcements import Announcements
from tests.harness.fleet import Member, announce
from tests.harness.runs import Running
from tests.harness.scenes import next_event
from tests.harness.waiting import wait_until
from tests.ownership.test_takeover import ghost

if TYPE_CHECKING:
    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

FAST: dict[str, Any] = {"lock_ttl": 0.4}


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("clock", ["runs", "stands still"])
async def test_the_same_consumer_gets_a_new_fence(
    server: Server, redis: Connection, service: str, streams: int, clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that has seen less makes the group anew, from where it stood: this client reads its streams again.

    The clock takes the place of the count that is lost; that all happens in one millisecond must not matter.
    """
    keys = Keys(service)
    if clock == "stands still":
        seconds, _ = await redis.time()

        async def now(*_: object) -> float:
            return float(seconds)

        monkeypatch.setattr(Announcements, "server_time", now)
    names = {f"s{i}" for i in range(streams)}
    async with RedisStreamClient.from_url(server.url, service, lock_ttl=1.0) as client:
        await LoadBalancerStream(redis, service).add_many(sorted(names))
        old: dict[str, Lease] = {}
        while old.keys() != names:
            lease = (await next_event(client, StreamAdded)).payload
            old[lease.stream] = lease
        for _ in range(2):  # a second time, what was delivered again is delivered again
            async with redis.pipeline(transaction=True) as pipe:
                pipe.xgroup_destroy(keys.lbs, keys.group)
                pipe.xgroup_create(keys.lbs, keys.group, "0")
                await pipe.execute()
            new: dict[str, Lease] = {}
            while new.keys() != names:
                lease = (await next_event(client, StreamAdded)).payload
                new[lease.stream] = lease
            for name in names:
                assert new[name].fence > old[name].fence
                with pytest.raises(NotOwner):
                    await old[name].done()
            old = new
        for lease in old.values():
            await lease.done()
        assert await redis.xlen(keys.lbs) == 0


@pytest.mark.parametrize("interface", ["events", "run"])
async def test_what_a_fail_over_forgot_is_taken_over_again_under_a_new_fence(
    server: Server, redis: Connection, service: str, interface: str
) -> None:
    """Redis forgets a claim and all that followed: the same consumer's next claim counts as that one did."""
    keys = Keys(service)
    member = Member(server.url, service) if interface == "events" else Running(server.url, service, finish)
    async with member:
        await ghost(redis, service, ['{"DataStreamName": "call-1"}'], lives=0.05)
        forgotten = await redis.dump(keys.lbs)
        old = await wait_until(lambda: next(iter(member.leases), None), "it is taken over")
        await end(old)
        await redis.restore(keys.lbs, 0, forgotten, replace=True)
        new = await wait_until(lambda: next(iter(member.leases[1:]), None), "it is taken over again")
        assert new.fence > old.fence
        await end(new)
        assert new.deliveries == old.deliveries + 1


async def finish(lease: Lease) -> None:
    """A handler that has nothing to do."""


async def end(lease: Lease) -> None:
    """Finish a lease, unless its handler does."""
    if lease.owned:
        with contextlib.suppress(NotOwner):
            await lease.done()
    await lease.lost()


async def test_a_full_client_releases_what_it_did_not_ask_for(
    server: Server, proxy: TcpProxy, service: str
) -> None:
    """A read whose reply was lost gave it more than it can take: a peer gets the rest."""
    async with (
        Member(proxy.url, service, max_streams=1, **FAST) as full,
        Member(server.url, service, **FAST) as peer,
    ):
        fault = proxy.drop_replies_after(b"XREADGROUP", connections=1, cut=True)
        await wait_until(lambda: fault.matched, "a read is on its way")
        names = [f"call-{i}" for i in range(8)]
        await announce(server.url, service, *names)
        await wait_until(lambda: len(full.owned) + len(peer.owned) == 8, "all are owned")
        assert len(full.owned) <= 1


async def test_a_count_that_redis_lost_is_lifted_above_every_fence_that_was_handed_out(
    server: Server, redis: Connection, service: str
) -> None:
    """As after a failover to a replica that had not heard of the last changes of owner."""
    lbs, group = f"{service}-input", f"{service}-group"
    async with Member(server.url, service, **FAST) as one:
        (lbs_id,) = await announce(server.url, service, "call-1")
        await one.owns("call-1")
        for _ in range(3):
            await one.lease("call-1").release()
            await one.owns("call-1")
        old = one.lease("call-1")
        assert old.deliveries == 4
        await redis.xclaim(lbs, group, one.client.id, 0, [lbs_id], retrycount=1, justid=True)
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await wait_until(lambda: old in one.disowned, "the old lease is lost")
        await one.owns("call-1")
        assert one.lease("call-1").fence > old.fence
        await one.lease("call-1").done()
