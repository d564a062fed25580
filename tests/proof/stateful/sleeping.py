"""A fleet in `run()` whose streams sleep and wake, while anything happens to it and to who writes.

How handlers treat a stream is in its name. What was added to each is looked up in Redis, so that it counts, too,
if its writer was not told; what was handed over is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from redis_stream_client import LoadBalancerStream, RedisStreamClientError
from tests.harness.proxy import TcpProxy
from tests.harness.runs import END
from tests.proof.stateful.consumers import Loop
from tests.proof.stateful.machine import BUSY
from tests.proof.stateful.members import MOST, Member, MembersFleet, call, opened, pattern_of

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Coroutine, Iterable

    from redis_stream_client import Entry, Lease
    from tests.harness.proxy import Fault
    from tests.harness.servers import Server

IDLE = 0.05
TRIES = 0.02
"""Seconds after which handlers that look themselves whether their stream is idle do so."""
BY_ENTRIES, BY_BATCHES, BY_ITSELF, TO_THE_END = "entries", "batches", "itself", "end"
"""The kinds of streams: whose handler's loop ends by itself, or that by batches; whose handler looks itself; and
whose handler is done at an end marker, without a look at what comes after it."""
KINDS = (BY_ENTRIES, BY_BATCHES, BY_ITSELF, TO_THE_END)
STREAMS = 2
"""Of each kind."""
OF_OWNERS = ("begin", "checkpoint", "withhold", "doze", "settle", "done", "release", "claim_many")
OF_WRITERS = ("announce", "append", "write")
SCRIPTS = (*OF_OWNERS, *OF_WRITERS)
LONG_TTL, SHORT_TTL = 3600.0, 0.15
TIMEOUT = 0.5
"""Seconds after which a writer gives up."""
HEALED = 20.0
"""Seconds within which all is read and sleeps at the end. It takes one."""


class Writer:
    """A producer in a thread and behind a network of its own."""

    def __init__(self, network: Loop, server: Server) -> None:
        self._network = network
        self.proxy = network.run(opened(TcpProxy(server.port)))
        self.loop = Loop("writer")
        self._redis: Any = Redis.from_url(self.proxy.url, socket_timeout=TIMEOUT)
        self.lbs = LoadBalancerStream(self._redis, "orders")
        self._working: list[concurrent.futures.Future[None]] = []

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Try to do it, beside all that follows."""
        self._working.append(self.loop.start(_once(work)))

    def wait(self) -> None:
        """Wait for all that was started."""
        for work in self._working:
            work.result(20)
        self._working.clear()

    def insist(self, stream: str) -> None:
        """Announce a stream, until that is answered."""
        self.loop.run(_until_answered(self.lbs, stream))

    def strike(self, what: str, to: str) -> Fault:
        """Lose the next such request or the reply to it, or hold it back."""
        pattern = pattern_of(to)

        def arm() -> Fault:
            match what:
                case "reply":
                    return self.proxy.drop_replies_after(pattern, connections=1, cut=True)
                case "request":
                    return self.proxy.drop_requests_matching(pattern, connections=1, cut=True)
                case _:
                    return self.proxy.hold_requests_matching(pattern)

        fault: Fault = self._network.run(call(arm))
        return fault

    def heal(self) -> None:
        """What was held back arrives, and nothing is lost any more."""
        self._network.run(call(self.proxy.heal))

    def close(self) -> list[dict[str, Any]]:
        """End it. Returns the errors that nobody saw."""
        self.heal()
        self.wait()
        self.loop.run(self._redis.aclose())
        self.loop.close()
        self._network.run(self.proxy.__aexit__(None, None, None))
        return self.loop.unhandled


class SleepingFleet(MembersFleet):
    """Members A, B, C … , two writers, streams of all kinds, and what is done to them."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, SCRIPTS)
        self._options: dict[str, Any] = {}
        self.forgetful = False
        """Whether records expire soon, so that entries come again."""
        self.handed: defaultdict[str, set[str]] = defaultdict(set)
        self.looks: set[str] = set()
        """Streams whose handler is to look now whether it is idle."""
        self.writers = [Writer(self._network, server) for _ in range(2)]
        self._held: list[Fault] = []

    def _close(self) -> list[Any]:
        return [*super()._close(), *(error for writer in self.writers for error in writer.close())]

    def _choices(self, name: str) -> list[dict[str, Any]]:
        match name:
            case "join":
                return [{}] if len(self.alive) < MOST else []
            case "write" | "by_hand" | "like_go" | "for_no_reason" | "look_now":
                return [{"stream": stream} for stream in self.streams]
            case "finish":
                return [{"stream": stream} for stream in self.streams if stream.startswith(TO_THE_END)]
            case "stall" | "end" | "cut" | "lose" | "hold":
                return [{"member": name} for name in self.alive]
            case _:
                return [{}]

    # What handlers do.

    async def _handle(self, lease: Lease) -> None:
        match lease.stream.partition("-")[0]:
            case "batches":
                async for batch in lease.batches(within=0.0, idle=IDLE):
                    await self._process(lease, *batch)
            case "itself":
                await self._until_idle(lease)
            case kind:
                async for entry in lease.entries(idle=IDLE if kind == BY_ENTRIES else None):
                    await self._process(lease, entry)
                    if END in entry.fields and kind == TO_THE_END:
                        return

    async def _until_idle(self, lease: Lease) -> None:
        entries = lease.entries()
        while True:
            try:
                async with asyncio.timeout(TRIES):
                    entry = await anext(entries)
            except TimeoutError:
                pass
            else:
                await self._process(lease, entry)
                if lease.stream not in self.looks:
                    continue
            self.looks.discard(lease.stream)
            if await lease.done_if_idle():
                return

    async def _process(self, lease: Lease, *entries: Entry) -> None:
        self.handed[lease.stream].update(entry.id for entry in entries)
        await lease.checkpoint(entries[-1].id)
        self.accepted[lease.stream] += ((lease.fence, entry.id) for entry in entries)

    # Steps.

    def begin(self, members: int, forgetful: bool, on_forgotten: str) -> None:
        """So many members join, whose records of streams that sleep live long, or not."""
        self.forgetful = forgetful
        ttl = SHORT_TTL if forgetful else LONG_TTL
        self._options = {"progress_ttl": ttl, "on_forgotten": on_forgotten}
        self.streams = [f"{kind}-{n}" for kind in KINDS for n in range(STREAMS)]
        for _ in range(members):
            self.join()

    def join(self) -> None:
        """One more member."""
        name = next(self._names)
        self.members[name] = Member(name, self._network, self._server, self._handle, self._options)

    def write(self, stream: str, by: int, wait: bool) -> None:
        """Somebody writes to a stream, and may not be told that it is done."""
        self._write(self.writers[by], stream, "n")
        if wait:
            self.writers[by].wait()

    def finish(self, stream: str) -> None:
        """Somebody writes an end marker."""
        self._write(self.writers[0], stream, "end")

    def _write(self, writer: Writer, stream: str, field: str) -> None:
        writer.start(writer.lbs.write(stream, {field: 1}))

    def write_to_all(self, by: int) -> None:
        """The same for all streams at once."""
        writer = self.writers[by]
        writer.start(writer.lbs.write_many([(stream, {"n": 1}) for stream in self.streams]))

    def by_hand(self, stream: str) -> None:
        """Somebody adds an entry, and announces the stream."""
        self._write_nothing_else()
        self._add_entry(stream)
        self.writers[0].insist(stream)

    def like_go(self, stream: str) -> None:
        """A producer of another library does. What it adds to a stream without a record counts as old."""
        if self._options["on_forgotten"] == "from_now":
            self.by_hand(stream)
            return
        self._add_entry(stream)
        self._redis.xadd(self._keys.lbs, {"lbs-input": json.dumps({"DataStreamName": stream})})

    def _write_nothing_else(self) -> None:
        """An entry that wakes a stream without a record would hide what is added by hand, and not announced."""
        for writer in self.writers if self._options["on_forgotten"] == "from_now" else ():
            writer.heal()
            writer.wait()

    def for_no_reason(self, stream: str, again: bool) -> None:
        """A stream is announced without an entry."""
        self.writers[1].start(self.writers[1].lbs.add(stream, again=again))

    def delete_announcements(self) -> None:
        """An operator deletes all of them."""
        self._redis.xtrim(self._keys.lbs, maxlen=0, approximate=False)

    def look_now(self, stream: str) -> None:
        """Its handler looks whether it is idle, if it is of those that do."""
        self.looks.add(stream)

    def lose_a_writer_s(self, by: int, what: str, to: str) -> None:
        """The next such request of a writer, or the reply to it, is lost; or it is held back."""
        self.writers[by].strike(what, to)

    def hold(self, member: str, to: str) -> None:
        """The next such request of a member is held back, and executed late."""
        self._held.append(self.members[member].hold(to))

    def let_go(self) -> None:
        """All that is held back is executed."""
        for fault in self._held:
            self._network.run(call(fault.release))
        self._held.clear()
        for writer in self.writers:
            writer.heal()

    def forget(self) -> None:
        """Nothing happens until records have expired, if they do so soon."""
        time.sleep(1.5 * SHORT_TTL if self.forgetful else 2 * IDLE)

    # What must be true.

    def look(self) -> None:
        """Nothing is owned twice, or accepted twice, unless a record may have been forgotten. Who owns a stream
        by another announcement may see an entry again; the fence tells which of the two counts.
        """
        self._nothing_is_owned_twice()
        for stream, accepted in self.accepted.items():
            counted = [(fence.lbs_id, id) for fence, id in list(accepted)]
            assert self.forgetful or len(set(counted)) == len(counted), f"{stream}: accepted twice: {counted}"

    def _heal(self) -> None:
        """The end: all is read, without another entry; then all sleeps."""
        self.let_go()
        for member in self.members.values():
            member.heal()
        self.join()
        for writer in self.writers:
            writer.wait()
        give_up = time.monotonic() + HEALED + BUSY
        sleepers = [stream for stream in self.streams if not stream.startswith(TO_THE_END)]
        self._all_are_read(sleepers, give_up)
        for stream in set(self.streams) - set(sleepers):
            while (unread := self._unread([stream])) or stream in self.announced():
                if unread:
                    self.writers[0].insist(stream)
                else:
                    self.finish(stream)
                    self.writers[0].wait()
                self._a_while(stream, give_up)
        while left := [*self.announced(), *self._redis.hkeys(self._keys.announced)]:
            assert time.monotonic() < give_up, f"never asleep: {left}"
            time.sleep(0.02)
        assert not (kept := self._kept_for_ever()), f"records do not expire: {kept}"
        assert not (buried := self._redis.xrange(self._keys.dead)), f"buried: {buried}"

    def _all_are_read(self, streams: Iterable[str], give_up: float) -> None:
        while unread := self._unread(streams):
            assert time.monotonic() < give_up, (
                f"unread: {unread}; announced: {self.announced()}, "
                f"said to be: {self._redis.hgetall(self._keys.announced)}"
            )
            self.look()
            time.sleep(0.01)

    def _a_while(self, stream: str, give_up: float) -> None:
        """Until it has been read to its next end, or there is none."""
        wait = time.monotonic() + 0.5
        while stream in self.announced() and time.monotonic() < wait:
            self.look()
            time.sleep(0.01)
        assert time.monotonic() < give_up, f"{stream} is never read: {self._unread([stream])}"

    def _unread(self, streams: Iterable[str]) -> dict[str, list[str]]:
        unread: dict[str, list[str]] = {}
        for stream in streams:
            handed = set(self.handed[stream])
            ids = [id.decode() for id, _ in self._redis.xrange(stream)]
            if stream.startswith(TO_THE_END) and self._options["on_forgotten"] == "from_now":
                ids = ids[-1:]  # whoever is done without a look leaves some unread, and forgets even that
            if left := [id for id in ids if id not in handed]:
                unread[stream] = left
        return unread

    def _kept_for_ever(self) -> list[str]:
        return [stream for stream in self.streams if self._redis.pttl(self._keys.progress(stream)) == -1]


async def _once(work: Coroutine[Any, Any, Any]) -> None:
    with contextlib.suppress(RedisStreamClientError):
        await work


async def _until_answered(lbs: LoadBalancerStream, stream: str) -> None:
    while True:
        with contextlib.suppress(RedisStreamClientError):
            await lbs.add(stream)
            return
