"""Ring 3: exactly one reply, or one request, of a client in `run()` is lost while entries flow.

Whichever it is: each stream has one owner, and of each stream every entry is accepted once and in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redis_stream_client import Fence
from redis_stream_client._consumer import sweeper
from redis_stream_client._model.keys import Keys
from tests.faults.test_lost_replies import Loss, load_scripts, lose
from tests.harness.flow import Flow, flowing
from tests.harness.runs import add, owners, write
from tests.harness.waiting import wait_until
from tests.ownership.test_takeover import bodies, ghost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.proxy import Fault, TcpProxy
    from tests.harness.servers import Server

LOSSES: list[Loss] = ["reply, silence", "request, silence"]
TTL = 0.8
MORE = [f"more-{i}" for i in range(12)]
ALONE = ("census", "rescue", "forget")
"""What one member of a fleet does for all: here the client is the only one."""


class Scene:
    """The client that loses something is the first of the flow's, and behind the proxy."""

    def __init__(self, redis: Connection, service: str, flow: Flow, proxy: TcpProxy, fault: Fault) -> None:
        self.redis = redis
        self.service = service
        self.flow = flow
        self.proxy = proxy
        self.fault = fault
        self.keys = Keys(service)
        self.client = flow.clients[0].client

    async def beats(self) -> None:
        """It does so by itself."""

    async def reads(self) -> None:
        """Streams are announced while it reads."""
        await wait_until(lambda: self.fault.matched, "a read is on its way")
        await add(self.redis, self.service, MORE)

    async def shares(self) -> None:
        """Many streams are announced at once."""
        await add(self.redis, self.service, MORE)

    async def adopts(self) -> None:
        """It was given streams that it never heard of."""
        unheard = lose(self.proxy, "XREADGROUP", "reply, connection cut")
        await wait_until(lambda: unheard.matched, "a read is on its way")
        await add(self.redis, self.service, MORE)

    async def resumes(self) -> None:
        """Its lock is gone."""
        await self.redis.delete(self.keys.lock(self.client.id))

    async def takes(self) -> None:
        """Another consumer dies."""
        await ghost(self.redis, self.service, bodies(MORE), lives=TTL / 4)

    async def rescues(self) -> None:
        """Somebody has acknowledged what is not finished."""
        await wait_until(lambda: self.client.leases, "it owns something")
        await self.redis.xack(self.keys.lbs, self.keys.group, *self.client.leases)

    async def raises(self) -> None:
        """Redis has lost a count, but not the record of a stream's progress."""
        lease = await wait_until(lambda: next(iter(self.client.leases.values()), None), "it owns something")
        newer = {"fence": str(Fence.of(lease.lbs_id, lease.deliveries + 4)), "consumer": "somebody"}
        await self.redis.hset(self.keys.progress(lease.stream), mapping=newer)

    async def drains(self) -> None:
        """It is asked to stop, and hands over."""
        self.client.drain()
        await wait_until(lambda: not self.client.leases, "it has handed over")

    async def forgets(self) -> None:
        """Somebody has died long ago."""
        await self.redis.xgroup_createconsumer(self.keys.lbs, self.keys.group, "long dead")


CASES: list[tuple[str, Callable[[Scene], Awaitable[None]]]] = [
    ("PEXPIRE", Scene.beats),
    ("XREADGROUP", Scene.reads),
    ("share", Scene.shares),
    ("adopt", Scene.adopts),
    ("join", Scene.resumes),
    ("XPENDING", Scene.resumes),
    ("claim_many", Scene.takes),
    ("XINFO", Scene.takes),
    ("look", Scene.takes),
    ("SET", Scene.takes),
    ("census", Scene.rescues),
    ("rescue", Scene.rescues),
    ("lift", Scene.raises),
    ("begin", Scene.raises),
    ("release", Scene.drains),
    ("leave", Scene.drains),
    ("forget", Scene.forgets),
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("operation", "happens"), CASES, ids=[operation for operation, _ in CASES])
async def test_what_is_lost_is_made_up_for_while_entries_flow(
    server: Server,
    proxy: TcpProxy,
    redis: Connection,
    service: str,
    operation: str,
    happens: Callable[[Scene], Awaitable[None]],
    loss: Loss,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweeper, "FORGET_AFTER", 1)
    await load_scripts(redis)
    for stream in MORE:
        await write(server.url, stream, 2, end=True)
    urls = [proxy.url] if operation in ALONE else [proxy.url, server.url]
    async with flowing(server.url, service, *urls, lock_ttl=TTL) as flow:
        await wait_until(lambda: flow.clients[0].working, "it has some of the streams")
        fault = lose(proxy, operation, loss)
        await happens(Scene(redis, service, flow, proxy, fault))
        await wait_until(lambda: fault.matched, "something was lost")
        await flow.goes_on()

        async def agrees() -> bool:
            ours = {id: client.client.id for client in flow.clients for id in client.client.leases}
            return len(ours) == len(flow.streams) and await owners(redis, service) == ours

        await wait_until(agrees, "each stream has one owner, and the others are finished")
        if operation == "forget":

            async def forgotten() -> bool:
                consumers = await redis.xinfo_consumers(Keys(service).lbs, Keys(service).group)
                return [info["name"].decode() for info in consumers] == [flow.clients[0].client.id]

            await wait_until(forgotten, "the long dead one is forgotten, and nobody else")
