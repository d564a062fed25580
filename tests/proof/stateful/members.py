"""Members in `run()`, each in a thread and behind a network of its own, and fleets of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import defaultdict
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from redis_stream_client import RedisStreamClient, RedisStreamClientError
from redis_stream_client._model.entry import order
from redis_stream_client._protocol import scripts
from tests.harness.proxy import TcpProxy
from tests.harness.runs import END
from tests.proof.stateful.consumers import Loop
from tests.proof.stateful.script import Scripted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis_stream_client import Fence, Lease
    from redis_stream_client._run.handler import Handler
    from tests.harness.proxy import Fault
    from tests.harness.servers import Server

LOCK_TTL = 0.3
MOST = 4
"""Members at a time."""
DRAIN_TIMEOUT = 0.5
AGAIN = 1.0
"""Seconds after which a stream is ended again."""


class Member:
    """A client in `run()`.

    Args:
        options: arguments of the client.
        rules: arguments of `run()`.

    Attributes:
        leases: every lease that a handler was called with, in order.
        left: whether it drained, or is about to.
        dead: whether it is gone.
    """

    def __init__(
        self,
        name: str,
        network: Loop,
        server: Server,
        handler: Handler,
        options: dict[str, Any] | None = None,
        **rules: Any,
    ) -> None:
        self.name = name
        self.left = False
        self.dead = False
        self.leases: list[Lease] = []
        self._network = network
        self._handler = handler
        self.proxy = network.run(opened(TcpProxy(server.port)))
        self.loop = Loop(f"member {name}")
        given: dict[str, Any] = options or {}
        self.client = RedisStreamClient.from_url(
            self.proxy.url, "orders", consumer_name=name, lock_ttl=LOCK_TTL, **given
        )
        self._run = self.loop.start(self.client.run(self._handle, **{"drain_timeout": DRAIN_TIMEOUT, **rules}))

    async def _handle(self, lease: Lease) -> None:
        self.leases.append(lease)
        await self._handler(lease)

    # What befalls it.

    def end(self, *, in_good_order: bool) -> None:
        """It drains and leaves, or is never heard again."""
        if in_good_order:
            self.left = True
            self.loop.run(call(self.client.drain))
            self._run.result(20)
            self.dead = True
            return
        self.dead = True
        self._network.run(_unplug(self.proxy))
        self.loop.start(self.client.aclose())  # which nobody hears

    def stall(self, *, past_its_lock: bool) -> None:
        """Its event loop stands still."""
        self.loop.block()
        time.sleep(1.2 * LOCK_TTL if past_its_lock else 0.02)
        self.loop.unblock()

    def lose(self, what: str, to: str) -> Fault:
        """Lose the next request that calls this script, or says so, or the reply to it, and the connection."""
        lose = self.proxy.drop_replies_after if what == "reply" else self.proxy.drop_requests_matching
        fault: Fault = self._network.run(call(lambda: lose(pattern_of(to), connections=1, cut=True)))
        return fault

    def hold(self, to: str) -> Fault:
        """Hold back the next such request, so that it is executed late, when the fault is released."""
        fault: Fault = self._network.run(call(lambda: self.proxy.hold_requests_matching(pattern_of(to))))
        return fault

    def deafen(self, word: str) -> None:
        """It hears no message any more with this word."""
        self._network.run(call(lambda: self.proxy.forget_replies_with(word.encode())))

    def cut(self) -> None:
        """Its connections are reset."""
        self._network.run(call(self.proxy.cut))

    def heal(self) -> None:
        """All is well again with its network."""
        if not self.dead:
            self._network.run(call(self.proxy.heal))

    def close(self) -> list[dict[str, Any]]:
        """End it. Returns the errors that nobody saw."""
        with contextlib.suppress(RedisStreamClientError):
            self.loop.run(self.client.aclose())
        with contextlib.suppress(RedisStreamClientError, asyncio.CancelledError):
            self._run.result(20)
        self.loop.close()
        self._network.run(self.proxy.__aexit__(None, None, None))
        return self.loop.unhandled


class MembersFleet(Scripted):
    """Members A, B, C … in `run()` on a real server, and what is done to them and to their streams.

    Attributes:
        accepted: the entries by stream whose checkpoints were accepted, each after the fence under which it was.
    """

    def __init__(self, server: Server, lua: tuple[str, ...]) -> None:
        super().__init__(server, lua)
        self.members: dict[str, Member] = {}
        self.streams: list[str] = []
        self.accepted: defaultdict[str, list[tuple[Fence, str]]] = defaultdict(list)

    def _close(self) -> list[Any]:
        return [error for member in self.members.values() for error in member.close()]

    @property
    def alive(self) -> list[str]:
        """The members that are not gone."""
        return [name for name, member in self.members.items() if not member.dead]

    # Steps.

    def announce(self, kind: str, streams: int) -> None:
        """So many new streams of this kind, each with an entry."""
        for _ in range(streams):
            stream = f"{kind}-{len(self.streams) + 1}"
            self.streams.append(stream)
            self._redis.xadd(self._keys.lbs, {"lbs-input": json.dumps({"DataStreamName": stream})})
            self._add_entry(stream)

    def _add_entry(self, stream: str, field: bytes | str = "n") -> str:
        return str(self._redis.xadd(stream, {field: 1}).decode())

    def end(self, member: str, in_good_order: bool) -> None:
        """A member leaves, or dies."""
        self.members[member].end(in_good_order=in_good_order)

    def stall(self, member: str, past_its_lock: bool) -> None:
        """Its event loop stands still for a while."""
        self.members[member].stall(past_its_lock=past_its_lock)

    def cut(self, member: str) -> None:
        """Its connections are reset."""
        self.members[member].cut()

    def lose(self, member: str, what: str, to: str) -> None:
        """The next such request of it, or the reply to it, is lost."""
        self.members[member].lose(what, to)

    def wait(self, seconds: float) -> None:
        """Handlers get on."""
        time.sleep(seconds)

    # What must be true.

    def look(self) -> None:
        """Nothing is owned twice, or accepted twice."""
        self._nothing_is_owned_twice()
        for stream, accepted in self.accepted.items():
            # A member that stood still hears late that a checkpoint was accepted, perhaps after its successor has.
            ids = [id for _, id in sorted(accepted, key=itemgetter(0))]
            orders = [order(id) for id in ids]
            assert orders == sorted(set(orders)), f"{stream} had entries accepted twice, or out of order: {ids}"

    def _nothing_is_owned_twice(self) -> None:
        """Under one announcement."""
        # One may have been lost, and the next one won, between two looks at the clock.
        assert not (twice := self._twice(self._twice(None))), f"owned twice: {twice}"

    def _twice(self, among: Iterable[str] | None) -> dict[str, list[str]]:
        owners: defaultdict[str, list[str]] = defaultdict(list)
        for member in self.members.values():
            for lease in list(member.leases):
                if (among is None or lease.lbs_id in among) and lease.owned:
                    owners[lease.lbs_id].append(f"{lease.stream} by {member.name}")
        return {id: names for id, names in owners.items() if len(names) > 1}

    def announced(self) -> list[str]:
        """The streams that are neither finished nor buried."""
        return [
            str(json.loads(fields[b"lbs-input"])["DataStreamName"])
            for _, fields in self._redis.xrange(self._keys.lbs)
        ]

    def _all_reach(self, last: dict[str, str], within: float) -> None:
        """Wait until all these streams have gone on to these entries."""
        give_up = time.monotonic() + within
        while still := [stream for stream, id in last.items() if self._position(stream) < order(id)]:
            assert time.monotonic() < give_up, f"{still} did not go on within {within:g} s"
            self.look()
            time.sleep(0.01)

    def _finish(self, streams: Iterable[str], give_up: float) -> None:
        """End these streams, again and again: whoever takes over one at its end needs another entry."""
        left, again = set(streams), time.monotonic()
        while left := left.intersection(self.announced()):
            if time.monotonic() >= again:
                again = time.monotonic() + AGAIN
                for stream in left:
                    self._add_entry(stream, END)
            self._wait(give_up)

    def _wait(self, give_up: float) -> None:
        assert time.monotonic() < give_up, (
            f"never finished or buried: {self.announced()}, "
            f"{self._redis.xpending_range(self._keys.lbs, self._keys.group, '-', '+', 100)}"
        )
        self.look()
        time.sleep(0.02)

    def _position(self, stream: str) -> tuple[int, int]:
        stored = self._redis.hget(self._keys.progress(stream), "checkpoint")
        return order(stored.decode()) if stored else (0, 0)


def pattern_of(request: str) -> bytes:
    """What a request contains that calls this script, or says so."""
    return (scripts.load(request).sha if request.isidentifier() else request).encode()


async def opened(proxy: TcpProxy) -> TcpProxy:
    """Open it."""
    return await proxy.__aenter__()


async def _unplug(proxy: TcpProxy) -> None:
    await proxy.refuse()
    proxy.cut()


async def call(function: Any) -> Any:
    """Call it in another loop's thread."""
    return function()
