"""The producer: `python -m tests.proof.chaos.producer <JSON>` announces streams, fills them, and ends them.

It does what a careful program does. An announcement without an answer is looked for, and made again if it is not
there. After a failover that forgot writes, what it has written since then is looked at again, too; and the
sessions, to which others write, are announced: entries may be there whose announcement was forgotten.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis_stream_client import LoadBalancerStream, RedisStreamClientError
from redis_stream_client._model.announcement import FIELD, MAX_BYTES
from redis_stream_client._model.keys import Keys
from tests.harness.loops import loop_factory
from tests.proof.chaos import sessions
from tests.proof.chaos.history import Writer, now
from tests.proof.chaos.ledger import Ledger, connect
from tests.proof.chaos.link import ERRORS, link

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping, Sequence

OPEN = 24
"""Streams that entries flow into."""
RATE = 120
"""Entries a second, all in all."""
LENGTH = (15, 90)
"""Entries of a stream, the fewest and the most."""
SMALL = (10, 200)
LARGE = (200, MAX_BYTES - 500)
"""Bytes of an entry's payload, and of what an announcement says."""
LARGE_SHARE = 0.2
"""Of entries; their sizes' logarithms are even, so that each size of line meets what is too large for it."""
HERDS = ((300, SMALL, (1_000, 100_000)), (700, SMALL, LARGE), (1_800, SMALL, SMALL), (60, LARGE, LARGE))
"""Herds: how many idle streams are announced at once, with how much to say, and how large the entries that wake a
slice of them. A member that is lost holds a fifth of them at least."""
FIRST_HERD = 3.0
IDLE = (10.0, 20.0)
"""Seconds for which a herd is idle, and then for which there is none."""
SLICE = 200
"""Streams of a herd in one request."""
TIMEOUT = 2.0
PAUSE = 0.1
"""Seconds to wait for an answer, and before the next try."""
SLOW = 0.02
PAGE = 500
SETTLED = 1.0
"""Seconds before the writes that a failover forgot from which on it is looked what is there."""
RETIRED = 15.0
"""Seconds after its end marker from which on a finished stream is reported, and trimmed to the marker: what is so
old is forgotten by no failover."""


@dataclass(eq=False)
class Stream:
    """A data stream: how many entries are still to come, how many came, and when its announcement and its end
    marker were written."""

    name: str
    left: int
    number: int = 0
    announced_at: float = 0.0
    ended_at: float | None = None
    marker: str = ""


class Unanswered(Exception):
    """Nobody knows whether it was done."""


class Producer:
    """One producer."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self.history = Writer(Path(setup["directory"]), "producer")
        self.redis: Any = link(setup, timeout=TIMEOUT)
        self.ledger = Ledger(connect(setup["ledger"]))
        self.lbs = LoadBalancerStream(self.redis, setup["service"])
        self.keys = Keys(setup["service"])
        self.random = random.Random(setup["seed"])
        self.sessions = sessions.names(self.keys.lbs)
        self.count = 0
        self.streams: list[Stream] = []
        """Those that are not retired."""
        self.open: list[Stream] = []
        self.herd: list[Stream] = []
        self.wake = SMALL
        self.next_herd = FIRST_HERD
        """When the herd ends, or the next one comes."""
        self.next_retirement = RETIRED
        self.orders: asyncio.Queue[list[str]] = asyncio.Queue()
        self.finishing = False

    async def main(self) -> None:
        """Produce until told to finish, then report."""
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self.take_orders)
        started = due = now()
        while not self.finishing:
            while not self.orders.empty():
                await self.obey(*self.orders.get_nowait())
            if now() - started >= self.next_herd:
                await self.tend()
                self.next_herd = now() - started + self.random.uniform(*IDLE)
            if now() - started >= self.next_retirement:
                await self.retire()
                self.next_retirement = now() - started + RETIRED / 4
            while len(self.open) < OPEN:
                await self.begin()
            await self.produce(self.random.choice(self.open))
            due = max(due + 1 / RATE, now() - 0.1)
            await asyncio.sleep(max(0.0, due - now()))
        await self.end([*self.open, *self.herd])
        print("finished", flush=True)
        while True:
            await self.obey(*await self.orders.get())

    def take_orders(self) -> None:
        """Read what is there; its end says that the run is gone."""
        if not (text := os.read(sys.stdin.fileno(), 4096)):
            os._exit(0)
        for line in text.decode().splitlines():
            self.orders.put_nowait(line.split())

    async def obey(self, order: str, *words: str) -> None:
        """Do what the run asks for."""
        match order:
            case "finish":
                self.finishing = True
            case "forgot":
                await self.look_again(float(words[0]) - SETTLED)
            case "report":
                for stream in (*self.streams, *(Stream(name, 0) for name in self.sessions)):
                    await self.report(stream)
                print("reported", flush=True)
            case _:
                raise ValueError(order)

    async def ask(self, command: Awaitable[Any], *, timed: bool = True) -> Any:
        """One request. The time of what is `timed` is noted: a small one, which shows how slow the servers are."""
        sent = now()
        try:
            return await command
        except (*ERRORS, AttributeError) as error:  # redis-py's, of an ASK that names a node behind a proxy
            raise Unanswered(str(error)) from error
        finally:
            if (took := now() - sent) > SLOW and timed:
                self.history.write("slow", round(took, 4))

    async def insist(self, *command: object) -> Any:
        """A command that changes nothing, until it is answered."""
        while True:
            try:
                return await self.ask(self.redis.execute_command(*command), timed=False)
            except Unanswered:
                await asyncio.sleep(PAUSE)

    # Announcing.

    def new(self, entries: int) -> Stream:
        """A new stream."""
        self.count += 1
        stream = Stream(f"s{self.count}", entries)
        self.streams.append(stream)
        return stream

    async def begin(self) -> None:
        """Open a new stream."""
        stream = self.new(self.random.randint(*LENGTH))
        self.open.append(stream)
        await self.announce([stream], LARGE if self.random.random() < LARGE_SHARE else SMALL)

    async def announce(self, streams: Sequence[Stream], says: tuple[int, int] = SMALL) -> None:
        """Announce streams, until they are there."""
        while streams:
            for stream in streams:
                stream.announced_at = now()
            try:
                ids = await self.lbs.add_many([(s.name, {"says": self.bytes(says)}) for s in streams])
            except RedisStreamClientError:
                self.noted("announced", streams, [""] * len(streams))
                await asyncio.sleep(PAUSE)
                there = await self.announced()
                streams = [stream for stream in streams if stream.name not in there]
            else:
                self.noted("announced", streams, ids)
                return

    def noted(self, kind: str, streams: Iterable[Stream], ids: Iterable[str]) -> None:
        """Write a line for each stream."""
        for stream, id in zip(streams, ids, strict=True):
            self.history.write(kind, stream.name, id)

    async def announced(self) -> set[str]:
        """The streams that the load balancer stream has."""
        names: set[str] = set()
        last = "-"
        while page := await self.insist("XRANGE", self.keys.lbs, last, "+", "COUNT", PAGE):
            names.update(_name(fields) for _, fields in page)
            last = f"({page[-1][0].decode()}"
        return names

    def bytes(self, sizes: tuple[int, int]) -> str:
        """So many that their number's logarithm is even."""
        least, most = sizes
        return "x" * round(least * math.pow(most / least, self.random.random()))

    # Producing.

    async def produce(self, stream: Stream) -> None:
        """Add the stream's next entry, or its end marker."""
        if stream.left <= 0:
            await self.end([stream])
            return
        stream.left -= 1
        await self.add([stream], p=self.bytes(LARGE if self.random.random() < LARGE_SHARE else SMALL))

    async def add(self, streams: Sequence[Stream], **fields: str) -> list[str]:
        """Add an entry to each. Returns its id, or "" when it may have been added or not."""
        ids: list[str] = []
        try:
            async with self.redis.pipeline(transaction=False) as pipe:
                for stream in streams:
                    stream.number += 1
                    pipe.xadd(stream.name, {"n": stream.number, **fields})
                answers = await self.ask(pipe.execute(raise_on_error=False), timed=len(streams) == 1)
            ids = [answer.decode() if isinstance(answer, bytes) else "" for answer in answers]
        except Unanswered:
            ids = [""] * len(streams)
        for stream, id in zip(streams, ids, strict=True):
            self.history.write("added", stream.name, id, stream.number)
        if "" in ids:
            await asyncio.sleep(PAUSE)
        return ids

    async def end(self, streams: Sequence[Stream]) -> None:
        """Add the end markers, once."""
        for start in range(0, len(streams), SLICE):
            left = list(streams[start : start + SLICE])
            while left:
                for stream in left:
                    stream.ended_at = now()
                ids = await self.add(left, end="")
                for stream, id in zip(left, ids, strict=True):
                    stream.marker = id or await self.end_marker(stream)
                ended = [stream for stream in left if stream.marker]
                self.noted("ended", ended, [stream.marker for stream in ended])
                left = [stream for stream in left if not stream.marker]
        self.open = [stream for stream in self.open if stream.ended_at is None]

    async def end_marker(self, stream: Stream) -> str:
        """Id of the end marker, if it is there."""
        for id, fields in await self.insist("XREVRANGE", stream.name, "+", "-", "COUNT", 1):
            if b"end" in _names(fields):
                return _id(id)
        return ""

    # Herds.

    async def tend(self) -> None:
        """A herd comes, or ends."""
        if self.herd:
            await self.add(self.herd[:SLICE], p=self.bytes(self.wake))
            await self.end(self.herd)
            self.herd = []
            return
        size, says, self.wake = self.random.choice(HERDS)
        self.herd = [self.new(0) for _ in range(size)]
        for start in range(0, size, SLICE):
            await self.announce(self.herd[start : start + SLICE], says)
            await self.add(self.herd[start : start + SLICE], p=self.bytes(SMALL))

    async def retire(self) -> None:
        """Report what was finished long ago, and keep but its end marker: the servers' memory is small."""
        old = [s for s in self.streams if s.ended_at is not None and s.ended_at < now() - RETIRED]
        if not old:
            return
        last = await self.ledger.last_of([stream.name for stream in old])
        there = await self.announced()
        for stream, id in zip(old, last, strict=True):
            if stream.marker == id and stream.name not in there:
                await self.report(stream)
                await self.insist("XTRIM", stream.name, "MAXLEN", 1)
                self.streams.remove(stream)

    # After a failover.

    async def look_again(self, since: float) -> None:
        """Write again what was written since then, and is not there."""
        ended = [s for s in self.streams if s.ended_at is not None and s.ended_at >= since]
        for stream in ended:
            if not await self.end_marker(stream):
                await self.end([stream])
        announced = [stream for stream in self.streams if stream.announced_at >= since]
        there = await self.announced() if announced else set()
        last = await self.ledger.last_of([stream.name for stream in announced])
        finished = {s.name for s, id in zip(announced, last, strict=True) if s.marker and s.marker == id}
        await self.announce([s for s in announced if s.name not in there and s.name not in finished])
        await self.wake_sessions()

    async def wake_sessions(self) -> None:
        """Announce all sessions: some of their announcements may be forgotten, and entries unread. Again, since an
        older announcement may be back, whose fence the ledger refuses for ever."""
        while True:
            try:
                await self.lbs.add_many(self.sessions, again=True)
            except RedisStreamClientError:
                await asyncio.sleep(PAUSE)
            else:
                self.history.write("woken")
                return

    # At the end.

    async def report(self, stream: Stream) -> None:
        """Write down all entries of a stream."""
        ids: list[str] = []
        last = "-"
        while True:
            page = await self.insist("XRANGE", stream.name, last, "+", "COUNT", PAGE)
            for id, fields in page:
                ids.append(_id(id))
                if b"end" in _names(fields):
                    self.history.write("entries", stream.name, ids)
                    return
            if len(page) < PAGE:
                break
            last = f"({ids[-1]}"
        self.history.write("entries", stream.name, ids)


def _id(id: bytes) -> str:
    return id.decode()


def _names(fields: Any) -> Any:
    return fields if isinstance(fields, dict) else fields[::2]


def _name(fields: Any) -> str:
    """The stream that is announced, or "" for what is malformed."""
    words = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        return str(json.loads(words[FIELD.encode()])["DataStreamName"])
    except (KeyError, ValueError, TypeError):
        return ""


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(Producer(json.loads(sys.argv[1])).main())
