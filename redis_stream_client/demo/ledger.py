"""What the workers write: the effect of each entry, once, guarded by the owner's fence.

This is how any program guards what it writes: it stores the fence beside it, and refuses an older one. And because
an owner may die after it wrote and before its checkpoint was stored, the next owner's repeat of that entry is
skipped. Here the store is Redis, so a small script compares and writes in one step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from redis.asyncio import Redis

from redis_stream_client import Fence

NUMBER = "number"
LAST = "last"
"""The fields of a data stream's entries; the last one has both."""

Outcome = Literal["accepted", "repeated", "refused"]

START = "0-0"


class Refused(Exception):
    """A write came too late: a newer owner has written."""


@dataclass(frozen=True, slots=True)
class Record:
    """One attempt to write the effect of an entry. The ledger has them in the order in which Redis saw them.

    Attributes:
        at: when, in seconds by the server's clock.
        number: of the entry, in its data stream.
        fence: the writer's, as text that sorts like fences.
        outcome: ``accepted``: this is the effect; ``repeated``: it was there already; ``refused``: a newer owner
            had written before.
    """

    at: float
    stream: str
    number: int
    fence: str
    consumer: str
    outcome: Outcome


class Ledger:
    """Writes under fences, and reads it all back."""

    def __init__(self, redis: Redis, service: str) -> None:
        self._redis = redis
        self._ledger = f"{service}:ledger"
        self._write: Any = redis.register_script(_script())
        self._read_to = START

    async def write(self, stream: str, fence: Fence, consumer: str, entry_id: str, number: str) -> None:
        """Write the effect of an entry, if it is not there. Raises `Refused`."""
        keys = [last_of(stream), self._ledger]
        outcome = await self._write(keys=keys, args=[stream, str(fence), consumer, entry_id, number])
        if outcome == "refused":
            raise Refused(f"{stream} has a newer owner than {fence}")

    async def news(self) -> list[Record]:
        """What was noted since this was last asked."""
        noted: Any = await self._redis.xrange(self._ledger, f"({self._read_to}")
        if noted:
            self._read_to = noted[-1][0]
        return [_record(*note) for note in noted]

    async def everything(self) -> list[Record]:
        """All that was noted."""
        noted: Any = await self._redis.xrange(self._ledger)
        return [_record(*note) for note in noted]

    def keys(self, streams: Sequence[str]) -> list[str]:
        """All keys that are written for these data streams."""
        return [self._ledger, *map(last_of, streams)]


def last_of(stream: str) -> str:
    """The key of what was accepted last for a data stream."""
    return f"{{{stream}}}:last"


def _record(id: str, fields: dict[str, Any]) -> Record:
    return Record(
        at=int(id.partition("-")[0]) / 1000,
        stream=fields["stream"],
        number=int(fields["number"]),
        fence=fields["fence"],
        consumer=fields["consumer"],
        outcome=fields["outcome"],
    )


@cache
def _script() -> str:
    return files("redis_stream_client.demo").joinpath("write.lua").read_text(encoding="utf-8")
