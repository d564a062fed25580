"""A fleet in `run()` whose handlers fail and whose members die, step by step, and who may be buried in the end.

What is known of a stream is in its name: those of `good` streams can be processed, once what befalls them is over;
the others never. All else is looked up in Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from redis_stream_client import RedisStreamClient, RedisStreamClientError, RetryLater, RetryPolicy
from redis_stream_client._protocol import scripts
from tests.harness.proxy import TcpProxy
from tests.harness.runs import END
from tests.proof.stateful.consumers import Loop
from tests.proof.stateful.machine import BUSY
from tests.proof.stateful.script import Scripted

if TYPE_CHECKING:
    from redis_stream_client import Lease
    from tests.harness.servers import Server

LOCK_TTL = 0.3
MOST = 4
"""Members at a time."""
LONGEST_PAUSE = 0.2
ON_AGAIN = LONGEST_PAUSE + 2 * LOCK_TTL + BUSY
"""Seconds within which all go on after an outage: a pause, a take-over, and what a busy machine adds."""
HEALED = 90.0
"""Seconds within which all is finished or buried at the end. Most scripts need one or two. If one member has met
nothing but poison, it takes that for an outage until fewer than three have failed for a minute."""
GOOD, KNOWN, POISON = "good", "known", "poison"
SCRIPTS = ("begin", "fail", "checkpoint", "settle", "release", "bury", "done", "claim_many")


class Known(Exception):
    """The handler knows that nobody can process the stream."""


POLICY = RetryPolicy(max_attempts=6, patience=1.5, first_pause=0.02, longest_pause=LONGEST_PAUSE, bury_on=(Known,))


class World:
    """What handlers find, and what they have done."""

    def __init__(self) -> None:
        self.away = False
        """Whether what all of them need is away."""
        self.stumbles: dict[str, str] = {}
        """What befalls the next entry of a stream, once."""
        self.accepted: defaultdict[str, list[str]] = defaultdict(list)
        """The entries by stream whose checkpoints were accepted."""

    async def handle(self, lease: Lease) -> None:
        """Handle a stream."""
        match lease.stream.partition("-")[0]:
            case "known":
                raise Known
            case "poison":
                raise LookupError("no such customer")
            case _:
                self.look()
        async for entry in lease.entries():
            self.look()
            match self.stumbles.pop(lease.stream, None):
                case "fail":
                    raise ValueError("this once")
                case "later":
                    raise RetryLater(0.05)
                case _:
                    pass
            await lease.checkpoint(entry.id)
            self.accepted[lease.stream].append(entry.id)
            if END in entry.fields:
                return

    def look(self) -> None:
        """Fail if what a handler needs is away."""
        if self.away:
            raise ConnectionError("the database is away")


class Member:
    """A client in `run()`, in a thread and behind a network of its own."""

    def __init__(self, name: str, network: Loop, server: Server, world: World) -> None:
        self.name = name
        self.dead = False
        self.stalled = False
        self._network = network
        self._world = world
        self.leases: list[Lease] = []
        self.proxy = network.run(_opened(TcpProxy(server.port)))
        self.loop = Loop(f"member {name}")
        self.client = RedisStreamClient.from_url(self.proxy.url, "orders", consumer_name=name, lock_ttl=LOCK_TTL)
        self._run = self.loop.start(self.client.run(self._handle, retry=POLICY, drain_timeout=0.5))

    async def _handle(self, lease: Lease) -> None:
        self.leases.append(lease)
        await self._world.handle(lease)

    def end(self, *, in_good_order: bool) -> None:
        """It drains and leaves, or is never heard again."""
        self.dead = True
        if in_good_order:
            self.loop.run(_call(self.client.drain))
            self._run.result(20)
            return
        self._network.run(_unplug(self.proxy))
        self.loop.start(self.client.aclose())  # which nobody hears

    def stall(self, *, past_its_lock: bool) -> None:
        """Its event loop stands still."""
        self.stalled = True
        self.loop.block()
        time.sleep(1.2 * LOCK_TTL if past_its_lock else 0.02)
        self.loop.unblock()
        self.stalled = False

    def lose(self, what: str, script: str) -> None:
        """Lose the next such request, or its reply, and the connection with it."""
        lose = self.proxy.drop_replies_after if what == "reply" else self.proxy.drop_requests_matching
        sha = scripts.load(script).sha.encode()
        self._network.run(_call(lambda: lose(sha, connections=1, cut=True)))

    def cut(self) -> None:
        """Its connections are reset."""
        self._network.run(_call(self.proxy.cut))

    def heal(self) -> None:
        """All is well again with its network."""
        if not self.dead:
            self._network.run(_call(self.proxy.heal))

    def close(self) -> list[dict[str, Any]]:
        """End it. Returns the errors that nobody saw."""
        with contextlib.suppress(RedisStreamClientError):
            self.loop.run(self.client.aclose())
        with contextlib.suppress(RedisStreamClientError, asyncio.CancelledError):
            self._run.result(20)
        self.loop.close()
        self._network.run(self.proxy.__aexit__(None, None, None))
        return self.loop.unhandled


class RunningFleet(Scripted):
    """Members A, B, C … in `run()` on a real server, and what is done to them and to their streams."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, SCRIPTS)
        self.world = World()
        self.members: dict[str, Member] = {}
        self.streams: list[str] = []

    def _open(self) -> None:
        self.join()

    def _close(self) -> list[Any]:
        return [error for member in self.members.values() for error in member.close()]

    def _choices(self, name: str) -> list[dict[str, Any]]:
        alive = [name for name, member in self.members.items() if not member.dead]
        match name:
            case "join":
                return [{}] if len(alive) < MOST else []
            case "stall" | "end" | "cut" | "lose":
                return [{"member": name} for name in alive]
            case "stumble":
                return [{"stream": stream} for stream in self.good]
            case _:
                return [{}]

    @property
    def good(self) -> list[str]:
        """The streams that can be processed."""
        return [stream for stream in self.streams if stream.startswith(GOOD)]

    # Steps.

    def join(self) -> None:
        """One more member."""
        name = next(self._names)
        self.members[name] = Member(name, self._network, self._server, self.world)

    def announce(self, kind: str, streams: int) -> None:
        """So many new streams of this kind."""
        for _ in range(streams):
            stream = f"{kind}-{len(self.streams) + 1}"
            self.streams.append(stream)
            self._redis.xadd(self._keys.lbs, {"lbs-input": json.dumps({"DataStreamName": stream})})
            self._redis.xadd(stream, {"n": 1})

    def write(self) -> None:
        """An entry for each stream that can be processed."""
        for stream in self.good:
            self._redis.xadd(stream, {"n": 1})

    def stumble(self, stream: str, how: str) -> None:
        """The next entry of a stream fails once, or is not for now."""
        self.world.stumbles[stream] = how
        self._redis.xadd(stream, {"n": 1})

    def outage(self, seconds: float) -> None:
        """What all handlers need is away for so long. Afterwards all go on in time."""
        if not any(not member.dead for member in self.members.values()):
            self.join()
        self.world.away = True
        self.write()
        time.sleep(seconds)
        self.look()
        self.world.away = False
        last = {stream: self._redis.xadd(stream, {"n": 1}).decode() for stream in self.good}
        for member in self.members.values():
            member.heal()
        give_up = time.monotonic() + ON_AGAIN
        while still := [stream for stream, id in last.items() if self._position(stream) < _order(id)]:
            assert time.monotonic() < give_up, f"{still} did not go on within {ON_AGAIN} s after an outage"
            self.look()
            time.sleep(0.01)

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
        """Nothing is owned twice, buried that is good, or accepted twice."""
        owners: defaultdict[str, list[str]] = defaultdict(list)
        for member in self.members.values():
            for lease in list(member.leases):
                if lease.owned:
                    owners[lease.stream].append(member.name)
        # One may have been lost, and the next one won, between two looks at the clock.
        twice = {stream: names for stream, names in owners.items() if len(names) > 1}
        assert not twice or not (twice := self._still(twice)), f"owned twice: {twice}"
        innocent = [stream for stream in self.buried() if stream.startswith(GOOD)]
        assert not innocent, f"{innocent} are buried: {self._redis.xrange(self._keys.dead)}"
        for stream, ids in self.world.accepted.items():
            orders = [_order(id) for id in list(ids)]
            assert orders == sorted(set(orders)), f"{stream} had entries accepted twice, or out of order: {ids}"

    def _still(self, twice: dict[str, list[str]]) -> dict[str, list[str]]:
        return {
            stream: names
            for stream, names in twice.items()
            if sum(le.owned for m in self.members.values() for le in list(m.leases) if le.stream == stream) > 1
        }

    def buried(self) -> list[str]:
        """The streams in the dead letters."""
        return [
            str(json.loads(fields[b"lbs-input"])["DataStreamName"])
            for _, fields in self._redis.xrange(self._keys.dead)
        ]

    def _position(self, stream: str) -> tuple[int, int]:
        stored = self._redis.hget(self._keys.progress(stream), "checkpoint")
        return _order(stored.decode()) if stored else (0, 0)

    def _heal(self) -> None:
        """The end: what is good is finished, what is not is buried."""
        for member in self.members.values():
            member.heal()
        self.join()
        self.announce("good", 1)  # where nothing at all progresses, failures mean an outage, and bury nothing
        give_up = time.monotonic() + HEALED
        while not set(self.announced()) <= set(self.good):
            self.write()
            self._wait(give_up)
        for stream in self.good:
            self._redis.xadd(stream, {END: 1})
        while self.announced():
            self._wait(give_up)
        self.look()
        assert sorted(self.buried()) == sorted(set(self.streams) - set(self.good))

    def announced(self) -> list[str]:
        """The streams that are neither finished nor buried."""
        return [
            str(json.loads(fields[b"lbs-input"])["DataStreamName"])
            for _, fields in self._redis.xrange(self._keys.lbs)
        ]

    def _wait(self, give_up: float) -> None:
        assert time.monotonic() < give_up, (
            f"never finished or buried: {self.announced()}, "
            f"{self._redis.xpending_range(self._keys.lbs, self._keys.group, '-', '+', 100)}"
        )
        self.look()
        time.sleep(0.02)


def _order(id: str) -> tuple[int, int]:
    milliseconds, _, sequence = id.partition("-")
    return int(milliseconds), int(sequence)


async def _opened(proxy: TcpProxy) -> TcpProxy:
    return await proxy.__aenter__()


async def _unplug(proxy: TcpProxy) -> None:
    await proxy.refuse()
    proxy.cut()


async def _call(function: Any) -> Any:
    return function()
