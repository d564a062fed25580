"""The producer: `python -m tests.chaos.producer <setup as JSON>` announces streams, fills them, and ends them.

It does what a careful program does. An announcement without an answer is looked for, and made again if it is not
there. After a fail-over that forgot writes, what it has written since then is looked at again, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_stream_client import LoadBalancerStream, RedisStreamClientError
from redis_stream_client.keys import Keys
from tests.chaos.history import Writer, now
from tests.chaos.ledger import Ledger, connect
from tests.loops import loop_factory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

OPEN = 24
"""Streams that entries flow into."""
RATE = 120
"""Entries a second, all in all."""
LENGTH = (15, 90)
"""Entries of a stream, the fewest and the most."""
TIMEOUT = 2.0
PAUSE = 0.1
"""Seconds to wait for an answer, and before the next try."""
SLOW = 0.02
PAGE = 10_000
SETTLED = 1.0
"""Seconds before the writes that a fail-over forgot from which on it is looked what is there."""


@dataclass(eq=False)
class Stream:
    """A data stream: how many entries are still to come, how many came, and when its announcement and its end
    marker were written."""

    name: str
    left: int
    number: int = 0
    announced_at: float = 0.0
    ended_at: float | None = None


class Unanswered(Exception):
    """Nobody knows whether it was done."""


class Producer:
    """One producer."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self.history = Writer(Path(setup["directory"]), "producer")
        self.redis: Any = Redis.from_url(setup["url"], socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
        self.ledger = Ledger(connect(setup["ledger"]))
        self.lbs = LoadBalancerStream(self.redis, setup["service"])
        self.keys = Keys(setup["service"])
        self.random = random.Random(setup["seed"])
        self.streams: list[Stream] = []
        self.open: list[Stream] = []
        self.orders: asyncio.Queue[list[str]] = asyncio.Queue()
        self.finishing = False

    async def main(self) -> None:
        """Produce until told to finish, then report."""
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self.take_orders)
        due = now()
        while not self.finishing:
            while not self.orders.empty():
                await self.obey(*self.orders.get_nowait())
            while len(self.open) < OPEN:
                await self.begin()
            await self.produce(self.random.choice(self.open))
            due = max(due + 1 / RATE, now() - 0.1)
            await asyncio.sleep(max(0.0, due - now()))
        for stream in list(self.open):
            await self.end(stream)
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
                for stream in self.streams:
                    await self.report(stream)
                print("reported", flush=True)
            case _:
                raise ValueError(order)

    async def ask(self, command: Awaitable[Any]) -> Any:
        """One command, its time noted."""
        sent = now()
        try:
            return await command
        except RedisError as error:
            raise Unanswered(str(error)) from error
        finally:
            if (took := now() - sent) > SLOW:
                self.history.write("slow", round(took, 4))

    async def insist(self, *command: object) -> Any:
        """A command that changes nothing, until it is answered."""
        while True:
            try:
                return await self.ask(self.redis.execute_command(*command))
            except Unanswered:
                await asyncio.sleep(PAUSE)

    # Announcing.

    async def begin(self) -> None:
        """Open a new stream."""
        stream = Stream(f"s{len(self.streams) + 1}", self.random.randint(*LENGTH))
        self.streams.append(stream)
        self.open.append(stream)
        await self.announce(stream)

    async def announce(self, stream: Stream) -> None:
        """Announce a stream, until it is there."""
        while True:
            stream.announced_at = now()
            try:
                id = await self.lbs.add(stream.name)
            except RedisStreamClientError:
                self.history.write("announced", stream.name, "")
                await asyncio.sleep(PAUSE)
                if await self.is_announced(stream):
                    return
            else:
                self.history.write("announced", stream.name, id)
                return

    async def is_announced(self, stream: Stream) -> bool:
        """Whether the load balancer stream has it."""
        wanted = json.dumps(stream.name).encode()
        entries = await self.insist("XRANGE", self.keys.lbs, "-", "+")
        return any(wanted in _text(fields) for _, fields in entries)

    # Producing.

    async def produce(self, stream: Stream) -> None:
        """Add the stream's next entry, or its end marker."""
        if stream.left <= 0:
            await self.end(stream)
            return
        stream.left -= 1
        await self.add(stream)

    async def add(self, stream: Stream, **fields: str) -> str:
        """Add an entry. Returns its id, or "" when it may have been added or not."""
        stream.number += 1
        id = ""
        try:
            id = (await self.ask(self.redis.xadd(stream.name, {"n": stream.number, **fields}))).decode()
        except Unanswered:
            await asyncio.sleep(PAUSE)
        self.history.write("added", stream.name, id, stream.number)
        return id

    async def end(self, stream: Stream) -> None:
        """Add the end marker, once."""
        while True:
            stream.ended_at = now()
            id = await self.add(stream, end="") or await self.end_marker(stream)
            if id:
                break
        self.history.write("ended", stream.name, id)
        if stream in self.open:
            self.open.remove(stream)

    async def end_marker(self, stream: Stream) -> str:
        """Id of the end marker, if it is there."""
        for id, fields in await self.insist("XREVRANGE", stream.name, "+", "-", "COUNT", 1):
            if b"end" in _names(fields):
                return _id(id)
        return ""

    # After a fail-over.

    async def look_again(self, since: float) -> None:
        """Write again what was written since then, and is not there."""
        for stream in self.streams:
            if stream.ended_at is not None and stream.ended_at >= since and not await self.end_marker(stream):
                await self.end(stream)
            if stream.announced_at >= since and not await self.is_announced(stream):
                marker = await self.end_marker(stream) if stream.ended_at is not None else ""
                if not marker or await self.ledger.last(stream.name) != marker:
                    await self.announce(stream)

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


def _text(fields: Any) -> bytes:
    return b" ".join(fields.values() if isinstance(fields, dict) else fields[1::2])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(Producer(json.loads(sys.argv[1])).main())
