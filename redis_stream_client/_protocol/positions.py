"""How far data streams were processed, seen from outside: their checkpoints, and what comes after these."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._model.entry import order
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.fence import announcement_of
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.base import ABSENT, encode_name
from redis_stream_client._redis import error_mapping
from redis_stream_client._redis.error_mapping import KeyRejected, Unanswered
from redis_stream_client._redis.script_calls import Call, Command, ScriptCalls, expected

if TYPE_CHECKING:
    from redis_stream_client._redis.endpoint import Endpoint

CALL = 250  # the most streams in one call
COUNTED = 100  # the most entries that are counted of one stream
ALL_COUNTED = 3_000  # the most entries that one call counts
COUNTED_BYTES = 1 << 20  # bytes of entries that one call counts
PATIENCE = 5.0  # seconds that a server has to answer, such as one that is replaced just then
SILENCE = 30.0  # seconds for which a server that did not answer is not asked again


@dataclass(frozen=True, slots=True)
class Position:
    """What is known of a data stream.

    Attributes:
        checkpoint: where its owner is; None: at the start.
        fence, failed: of its record, as it is: to which announcement `attempts` belongs, and `failures`.
        attempts, failures: counts.
        failing_ms: since when it has been failing, in ms of Unix time.
        error: the last failure.
        behind: age in seconds of the first entry after the checkpoint; 0 if there is none.
        entries: how many entries come after the checkpoint.
        more: whether there are more of them.
    """

    fence: str
    checkpoint: str | None
    attempts: int
    failures: int
    failing_ms: int | None
    failed: str
    error: str
    behind: float
    entries: int
    more: bool

    def attempts_at(self, lbs_id: str) -> int:
        """How many owners have begun at this announcement."""
        return self.attempts if self.fence.startswith(announcement_of(lbs_id)) else 0

    def fails_at(self, lbs_id: str) -> bool:
        """Whether its handlers fail, or its owners die, at this announcement and since this checkpoint."""
        mark, _, checkpoint = self.failed.partition(" ")
        return mark.startswith(announcement_of(lbs_id)) and checkpoint == (self.checkpoint or "")


class Positions:
    """Looks at data streams, wherever they are.

    A server that did not answer is not asked again for a while, since each page of a listing may have streams
    there.

    Args:
        calls: reaches the servers.
        keys: names the service.
    """

    def __init__(self, calls: ScriptCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys
        self._silent: dict[Endpoint | None, tuple[float, Exception]] = {}

    async def look(
        self, streams: Sequence[str], owners: Sequence[str]
    ) -> tuple[Mapping[str, Position | Exception], set[str]]:
        """Where these streams stand, or why that cannot be told; and which of these consumers live.

        Raises `Unanswered` or `RedisRejected` if the locks cannot be read, or if the server of the load balancer
        stream does not answer."""
        results: dict[str, Position | Exception] = {}
        locks = [encode_name(self._keys.lock(owner)) for owner in owners]
        first: list[Call | Command] = [Command(self._keys.lbs, ("PTTL", lock), reads=True) for lock in locks]
        groups = await self._groups(list(dict.fromkeys(streams)), results)
        living: set[str] | None = None
        while groups or living is None:
            asks = [*(first if living is None else ()), *map(self._positions, groups)]
            answers = await self._calls.run_all(asks, patience=PATIENCE)
            if living is None:
                living = {
                    owner
                    for owner, left in zip(owners, expected(answers[: len(locks)]), strict=True)
                    if left != ABSENT
                }
                answers = answers[len(locks) :]
            groups = await self._left(groups, answers, results)
        return results, living

    async def _groups(
        self, streams: Sequence[str], results: dict[str, Position | Exception]
    ) -> list[Sequence[str]]:
        """The streams by slot, without those whose servers do not answer."""
        now = clock.now()
        self._silent = {server: silent for server, silent in self._silent.items() if now - silent[0] < SILENCE}
        slots: dict[int, list[str]] = defaultdict(list)
        servers = await self._calls.servers(streams) if self._silent else [None] * len(streams)
        for stream, server in zip(streams, servers, strict=True):
            if server in self._silent:
                results[stream] = self._silent[server][1]
            else:
                slots[self._calls.slot(stream)].append(stream)
        return [some for group in slots.values() for some in in_chunks(group, CALL)]

    async def _left(
        self, groups: Sequence[Sequence[str]], answers: Sequence[Any], results: dict[str, Position | Exception]
    ) -> list[Sequence[str]]:
        """Note what was answered. Returns what is to be asked again: what there was no time for, and one by one
        those of which Redis has refused some key."""
        left: list[Sequence[str]] = []
        failed: dict[str, Exception] = {}
        for group, answer in zip(groups, answers, strict=True):
            match answer:
                case KeyRejected() if len(group) > 1:
                    left += [[stream] for stream in group]
                case Exception():
                    failed.update(dict.fromkeys(group, answer))
                case [now_ms, *found]:
                    results.update(
                        (stream, _position(one, int(now_ms))) for stream, one in zip(group, found, strict=False)
                    )
                    if len(found) < len(group):
                        left.append(group[len(found) :])
        results.update(failed)
        silent = [stream for stream, fault in failed.items() if isinstance(fault, Unanswered)]
        for stream in silent:
            if self._calls.slot(stream) == self._calls.slot(self._keys.lbs):  # of one server: all of them
                raise failed[stream]
        for stream, server in zip(silent, await self._calls.servers(silent), strict=True):
            if server is not None:
                self._silent[server] = clock.now(), failed[stream]
        return left

    def _positions(self, streams: Sequence[str]) -> Call:
        keys = [key for stream in streams for key in (self._keys.progress(stream), stream)]
        args = [str(COUNTED), str(ALL_COUNTED), str(COUNTED_BYTES)]
        return Call(scripts.load("positions"), keys, args, reads=True)


def _position(reply: Any, now_ms: int) -> Position | Exception:
    match reply:
        case [b"record" | b"stream" as what, bytes(message)]:
            fault = error_mapping.map_reply(ResponseError(message.decode(errors="replace")))
            which = "progress record" if what == b"record" else "data stream"
            return RedisRejected(f"its {which} cannot be read: {fault}")
    *words, first, entries, more = reply
    fence, checkpoint, attempts, failures, failing, failed, error = (
        word.decode(errors="replace") for word in words
    )
    return Position(
        fence=fence,
        checkpoint=checkpoint or None,
        attempts=_count(attempts),
        failures=_count(failures),
        failing_ms=_count(failing) or None,
        failed=failed,
        error=error,
        behind=max(0.0, (now_ms - order(first.decode())[0]) / 1000) if first else 0.0,
        entries=entries,
        more=bool(more),
    )


def _count(text: str) -> int:
    """A number of a record; 0 for what this library has not written."""
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 16 else 0
