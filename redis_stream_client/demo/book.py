"""What the workers write: for each data stream its position and its effects, guarded by the owner's fence.

This is how any program guards what it writes: it stores the fence beside it, and refuses an older one. Here the
store is Redis, so a small script compares and writes in one step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis

from redis_stream_client import Fence

NUMBER = "number"
LAST = "last"
"""The fields of a data stream's entries; the last one has both."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a data stream has been processed."""

    id: str
    number: int
    finished: bool


class Refused(Exception):
    """A write came too late: a newer owner has begun."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What came of one entry, in the order in which Redis accepted the writes."""

    number: int
    fence: str
    consumer: str


class Book:
    """Writes under fences, and reads it all back."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._write: Any = redis.register_script(_script())

    async def begin(self, stream: str, fence: Fence, consumer: str) -> Position:
        """Where a new owner goes on. From now on every older owner is refused. Raises `Refused`."""
        return await self.write(stream, fence, consumer, (), last=False)

    async def write(
        self, stream: str, fence: Fence, consumer: str, entries: Sequence[tuple[str, int]], *, last: bool
    ) -> Position:
        """Store the effects of entries, given as (id, number), and the position after them. Raises `Refused`."""
        arguments = [str(fence), consumer, "1" if last else "0"]
        for id, number in entries:
            arguments += [id, str(number)]
        reply: list[Any] = await self._write(keys=list(keys_of(stream)), args=arguments)
        if not reply[0]:
            raise Refused(f"{stream} has a newer owner, with the fence {reply[1]}")
        return Position(str(reply[1]), int(reply[2]), reply[3] == "1")

    async def effects(self, streams: Sequence[str]) -> dict[str, list[Effect]]:
        """All that was accepted."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream in streams:
                pipeline.xrange(keys_of(stream)[1])
            replies: list[Any] = await pipeline.execute()
        return {
            stream: [Effect(int(fields["number"]), fields["fence"], fields["consumer"]) for _, fields in reply]
            for stream, reply in zip(streams, replies, strict=True)
        }


def keys_of(stream: str) -> tuple[str, str]:
    """The keys of a data stream's position and effects."""
    return f"{{{stream}}}:position", f"{{{stream}}}:effects"


@cache
def _script() -> str:
    return files("redis_stream_client.demo").joinpath("write.lua").read_text(encoding="utf-8")
