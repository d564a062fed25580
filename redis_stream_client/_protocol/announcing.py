"""Announcing streams once: only where no announcement of the stream is outstanding, which is waiting or pending.

Redis decides that by a hash of the newest announcements, `Keys.announced`. What it says is verified by looking for
the entry. Announcements that others write with a plain ``XADD`` are not in it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from redis.exceptions import ResponseError

from redis_stream_client._concurrency.chunks import in_sized_chunks
from redis_stream_client._model.announcement import FIELD
from redis_stream_client._model.errors import RedisRejected, RedisUnavailable
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import SEEN_BYTES
from redis_stream_client._redis.error_mapping import Unanswered, is_withheld
from redis_stream_client._redis.script_calls import ScriptCalls

CHUNK = 500  # the most announcements in one request
CHUNK_BYTES = 256 * 1024  # the most bytes in one request, unless one announcement is larger: a line may be slow


class Wanted(NamedTuple):
    """A stream to announce.

    Attributes:
        stream: its name.
        payload: the announcement.
        but: the id of an announcement that does not count, even if it is outstanding.
    """

    stream: str
    payload: bytes
    but: str = ""

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.stream.encode()) + len(self.payload)


class Announced(NamedTuple):
    """What Redis did about one stream.

    Attributes:
        lbs_id: the id of its announcement; None if it is not announced.
        now: whether it was announced now; else that announcement was outstanding.
        error: why it is not announced, or why Redis could not remember that it is.
    """

    lbs_id: str | None
    now: bool
    error: ResponseError | None = None


async def announce(calls: ScriptCalls, keys: Keys, wanted: Sequence[Wanted]) -> list[Announced]:
    """Announce streams that have no outstanding announcement. Returns results for the first ones, at least one:
    where Redis had to read many large announcements, repeat it with the rest.

    Send no more than `chunks` says. Raises what `calls` raises.
    """
    args: list[str | bytes] = [FIELD, str(SEEN_BYTES)]
    for stream, payload, but in wanted:
        args += (stream, payload, but)
    reply = await calls.run(scripts.load("announce"), [keys.lbs, keys.announced], args)
    return [
        Announced(
            lbs_id.decode() or None, bool(now), *(ResponseError(text.decode(errors="replace")) for text in error)
        )
        for lbs_id, now, *error in reply
    ]


async def announce_all(calls: ScriptCalls, keys: Keys, chunk: Sequence[Wanted], tally: "Tally") -> None:
    """Announce the streams of a chunk, and tell the tally.

    Raises what ``calls`` raises, or the first error of a stream.
    """
    while chunk:
        try:
            results = await announce(calls, keys, chunk)
        except Unanswered as fault:
            tally.unknown = len(chunk) if fault.maybe_executed else 0
            raise
        tally.ids += (result.lbs_id for result in results)
        refused = next((result.error for result in results if result.error), None)
        if refused is not None:
            raise refused
        chunk = chunk[len(results) :]


def chunks(wanted: Sequence[Wanted]) -> Iterator[Sequence[Wanted]]:
    """Cut the streams into requests: bounded by number, and by size for the sake of slow lines."""
    return in_sized_chunks(wanted, lambda one: one.size, most=CHUNK, most_size=CHUNK_BYTES)


class Tally:
    """What is known about the announcements of one call.

    Args:
        count: how many streams there are.
        again: whether they are announced whatever is outstanding.

    Attributes:
        ids: those of the first streams, as far as Redis has answered; None: it refused.
        unknown: how many others may have been announced.
    """

    def __init__(self, count: int, again: bool) -> None:
        self._count = count
        self._again = again
        self.ids: list[str | None] = []
        self.unknown = 0

    def tell(self, error: RedisUnavailable | RedisRejected) -> None:
        """Say in an error what happened."""
        error.announced = (*self.ids, *[None] * (self._count - len(self.ids)))
        known = self._count - error.announced.count(None)
        hints = [error.hint] if error.hint else []
        if isinstance(error, RedisUnavailable) or self._count > 1 or known:
            hints.insert(0, self._outcome(known, self.unknown))
        if not self._again and is_withheld(error.__cause__):
            hints.append("the rule there for a producer is enough; with again=True, so is XADD")
        error.hint = "; ".join(hints)

    def _outcome(self, known: int, unknown: int) -> str:
        if not known and not unknown:
            return "nothing was announced"
        again = "announcing again adds another"
        if not self._again:
            again += " only if that one is finished by then"
        if self._count == 1:
            return "it was announced" if known else f"it may have been announced; {again}"
        parts = [f"{known} of {self._count} were announced"] if known else []
        if unknown:
            parts.append(f"{unknown} of {self._count} may have been announced, {again}")
        return "; ".join(parts)
