"""The producers: they write numbered entries to data streams that end, and to sessions, which sleep."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Sequence

from redis.asyncio import Redis

from redis_stream_client import LoadBalancerStream
from redis_stream_client.demo.ledger import LAST, NUMBER, Record
from redis_stream_client.demo.settings import IDLE, Settings

ANNOUNCING = 1.0  # seconds over which the announcements are spread
SLICES = 10  # the streams get their entries in turn, in so many groups


class Source:
    """Announces the streams, writes to each at a steady pace, and ends them all."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._lbs = LoadBalancerStream(redis, settings.service)
        self.ended: bool = False
        """Whether no more entries are to come but the last ones."""
        self.streams: dict[str, str] = {}
        """The data streams that were announced, by LBS id."""
        self.produced: dict[str, int] = {}
        """How many entries each data stream got; so the number of its last one."""

    async def announce(self) -> None:
        """Announce all streams, one after the other."""
        pause = ANNOUNCING / self._settings.streams
        for number in range(1, self._settings.streams + 1):
            stream = self._settings.stream(number)
            self.produced[stream] = 0
            self.streams[await self._lbs.add(stream, {"number": number})] = stream
            await asyncio.sleep(pause)

    async def produce(self) -> None:
        """Add entries until `end`, and then the last one of every stream."""
        turn = 0
        while not self.ended:
            await self._append([stream for i, stream in enumerate(self.produced) if i % SLICES == turn])
            turn = (turn + 1) % SLICES
            await asyncio.sleep(self._settings.entry_interval / SLICES)
        await self._append(list(self.produced), last=True)

    def end(self) -> None:
        """Let `produce` come to an end."""
        self.ended = True

    @property
    def total(self) -> int:
        """How many entries there are."""
        return sum(self.produced.values())

    async def _append(self, streams: list[str], *, last: bool = False) -> None:
        if not streams:
            return
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream in streams:
                self.produced[stream] += 1
                fields: dict[str, int] = {NUMBER: self.produced[stream]} | ({LAST: 1} if last else {})
                pipeline.xadd(stream, {name: str(value) for name, value in fields.items()})
            await pipeline.execute()


class Sessions:
    """Writes to sessions at random intervals, each on its own. It does nothing but `write()`: the library knows
    who sleeps, and wakes it."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._settings = settings
        self._lbs = LoadBalancerStream(redis, settings.service)
        self.produced: dict[str, int] = {settings.session(n): 0 for n in range(1, settings.sessions + 1)}
        """How many messages each session got; so the number of its last one."""
        self.effects: Counter[str] = Counter()
        """How many of them each consumer has processed, as far as it is known."""
        self.begun: bool = False
        self._ended = asyncio.Event()

    async def produce(self) -> None:
        """Write until `end`."""
        self.begun = True
        async with asyncio.TaskGroup() as tasks:
            for stream in self.produced:
                tasks.create_task(self._write(stream))

    def end(self) -> None:
        """Let `produce` come to an end."""
        self._ended.set()

    @property
    def total(self) -> int:
        """How many messages there are."""
        return sum(self.produced.values())

    @property
    def processed(self) -> bool:
        """Whether every message is known to have had its effect."""
        return self.effects.total() >= self.total

    def add(self, records: Sequence[Record]) -> list[Record]:
        """Take in the records that are of sessions. Returns the others."""
        for record in records:
            if record.stream in self.produced and record.outcome == "accepted":
                self.effects[record.consumer] += 1
        return [record for record in records if record.stream not in self.produced]

    async def _write(self, stream: str) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(0, self._settings.longest_pause)):
                    await self._ended.wait()
                    return
            self.produced[stream] += 1
            await self._lbs.write(stream, {NUMBER: self.produced[stream]}, info={"idle": IDLE})
