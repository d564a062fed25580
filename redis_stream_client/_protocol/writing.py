"""Writing entries to data streams so that all are read: who writes makes sure that an announcement of the stream
is outstanding, whose owner will read the entry.

Where the data stream is on the server of the load balancer stream (in a Cluster: in its slot), one script does it
all, `write`. Elsewhere there are three steps:

1. `announce` the stream unless an announcement of it is outstanding.
2. `append` the entry, unless that announcement is over meanwhile: its owner does not look for entries any more.
   Then begin again, and the announcement does not count.
3. `announce` again: the announcement may have been finished by an owner that left no mark.

A writer that dies after the first step leaves an announcement too many; one that dies after the second leaves an
entry that is read.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from redis_stream_client._concurrency.chunks import in_sized_chunks
from redis_stream_client._model.announcement import FIELD
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.fence import announcement_of
from redis_stream_client._model.keys import Keys
from redis_stream_client._model.options import PROGRESS_TTL
from redis_stream_client._protocol import scripts
from redis_stream_client._protocol.announcing import Announced, Wanted, announce
from redis_stream_client._protocol.base import SEEN_BYTES
from redis_stream_client._redis import error_mapping
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered, WrongType
from redis_stream_client._redis.script_calls import Call, ScriptCalls

CHUNK = 250  # the most entries in one request: about 3 ms of Redis
CHUNK_BYTES = 256 * 1024  # the most bytes in one request, unless one entry is larger: a line may be slow
ROUNDS = 10  # how often its announcement may be over before a writer gives up
ANY_ID = "*"  # Redis makes the id

Words = Sequence[str | bytes]
Fault = Unanswered | RedisRejected


class NewEntry(NamedTuple):
    """An entry to write.

    Attributes:
        stream: name of the data stream.
        payload: the announcement, should the stream need one.
        words: names and values by turns.
        id: the entry's id.
    """

    stream: str
    payload: bytes
    words: Words
    id: str = ANY_ID

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.payload) + sum(map(len, self.words))


@dataclass(slots=True)
class Writing:
    """The entries of one stream in one request, and what became of them.

    Attributes:
        stream, payload: as in `NewEntry`, of the first one.
        entries: in their order.
        ids: of those that are in the stream; None for one that is not known to be there.
        fault: why not all is done.
        unknown: whether the entries without an id may be there all the same.
    """

    stream: str
    payload: bytes
    entries: list[NewEntry] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    fault: Fault | None = None
    unknown: bool = False

    def failed(self, fault: Fault, *, maybe_written: bool = False) -> None:
        """Note a fault. The first one stays."""
        self.fault = self.fault or fault
        self.ids = self.ids or [None] * len(self.entries)
        self.unknown = self.unknown or (maybe_written and isinstance(fault, Unanswered) and fault.maybe_executed)

    def answered(self, reply: Sequence[Any]) -> None:
        """Note what a script says."""
        match reply:
            case [b"error", bytes(message)]:
                self.failed(_meaning(message, self.stream))
            case [b"but", bytes(message), *results]:
                self.ids = [_id(result) for result in results]
                self.failed(_meaning(message, self.stream))
            case _:
                self.ids = [_id(result) for result in reply]
        refusal = next((result[0] for result in reply if isinstance(result, list)), None)
        if refusal is not None:
            self.failed(_meaning(refusal, self.stream))


def chunks(entries: Sequence[NewEntry]) -> Iterator[Sequence[NewEntry]]:
    """Cut the entries into requests: bounded by number, and by size for the sake of slow lines."""
    return in_sized_chunks(entries, lambda entry: entry.size, most=CHUNK, most_size=CHUNK_BYTES)


class Writer:
    """Writes entries of the data streams of one service.

    Args:
        keys: name the service.
        calls: reaches the servers.
    """

    def __init__(self, keys: Keys, calls: ScriptCalls) -> None:
        self._keys = keys
        self._calls = calls

    async def write(self, entries: Sequence[NewEntry], maxlen: int | None) -> list[tuple[Writing, int]]:
        """Write the entries of one chunk. Returns for each where it was written, and as which of those entries.

        If the caller is cancelled, nothing is left running; any of them may have been written.
        """
        streams: dict[str, Writing] = {}
        places: list[tuple[Writing, int]] = []
        for entry in entries:
            writing = streams.setdefault(entry.stream, Writing(entry.stream, entry.payload))
            places.append((writing, len(writing.entries)))
            writing.entries.append(entry)
        here = self._calls.slot(self._keys.lbs)
        together = [writing for writing in streams.values() if self._calls.slot(writing.stream) == here]
        apart = [writing for writing in streams.values() if self._calls.slot(writing.stream) != here]
        if together:
            await self._write_together(together, maxlen)
        if apart:
            await self._write_apart(apart, maxlen)
        return places

    async def _write_together(self, left: Sequence[Writing], maxlen: int | None) -> None:
        while left:
            try:
                reply = await self._calls.ask(self._write(left, maxlen))
            except (Unanswered, RedisRejected) as fault:
                for writing in left:
                    writing.failed(fault, maybe_written=True)
                return
            for writing, result in zip(left, reply, strict=False):
                writing.answered(result)
            left = left[len(reply) :]

    async def _write_apart(self, streams: Sequence[Writing], maxlen: int | None) -> None:
        asks = [_Ask(writing) for writing in streams]
        left: Sequence[_Ask] = asks
        for _ in range(ROUNDS):
            left = await self._add(await self._announce(left), maxlen)
            if not left:
                break
        for ask in left:
            ask.writing.failed(
                Unanswered(
                    "each of its announcements was over before an entry could be added", maybe_executed=False
                )
            )
        there = [ask for ask in asks if ask.writing.unknown or any(ask.writing.ids)]
        for ask in there:
            ask.but = ""
        await self._announce(there)

    async def _announce(self, asks: Sequence["_Ask"]) -> list["_Ask"]:
        """Announce streams. Returns those that are announced."""
        done: list[_Ask] = []
        left = list(asks)
        while left:
            wanted = [Wanted(ask.writing.stream, ask.writing.payload, ask.but) for ask in left]
            try:
                results = await announce(self._calls, self._keys, wanted)
            except (Unanswered, RedisRejected) as fault:
                for ask in left:
                    ask.writing.failed(fault)
                break
            for ask, result in zip(left, results, strict=False):
                if result.error is not None:
                    ask.writing.failed(_fault(error_mapping.map_reply(result.error)))
                else:
                    ask.announced = result
                    done.append(ask)
            left = left[len(results) :]
        return done

    async def _add(self, asks: Sequence["_Ask"], maxlen: int | None) -> list["_Ask"]:
        """Add the entries of announced streams. Returns those whose announcement is over."""
        slots: dict[int, list[_Ask]] = defaultdict(list)
        for ask in asks:
            slots[self._calls.slot(ask.writing.stream)].append(ask)
        over: list[_Ask] = []
        groups = list(slots.values())
        replies = await self._calls.run_all([self._append(group, maxlen) for group in groups])
        for group, reply in zip(groups, replies, strict=True):
            for number, ask in enumerate(group):
                if isinstance(reply, Exception):
                    ask.writing.failed(_fault(reply), maybe_written=True)
                    continue
                match reply[number]:
                    case [b"asleep", bytes(mark)]:
                        ask.is_over(mark)
                        over.append(ask)
                    case result:
                        ask.writing.answered(result)
        return over

    def _write(self, streams: Sequence[Writing], maxlen: int | None) -> Call:
        keys = [self._keys.lbs, self._keys.announced]
        args: list[str | bytes] = [*_head(maxlen), FIELD, str(SEEN_BYTES)]
        for writing in streams:
            keys += (writing.stream, self._keys.progress(writing.stream))
            args.append(writing.payload)
            args += _words(writing.entries)
        return Call(scripts.load("write"), keys, args)

    def _append(self, asks: Sequence["_Ask"], maxlen: int | None) -> Call:
        keys: list[str] = []
        args: list[str | bytes] = _head(maxlen)
        for ask in asks:
            keys += (ask.writing.stream, self._keys.progress(ask.writing.stream))
            mark = ask.mark if ask.announced.now else ""  # another one may be older than the mark, and over by it
            args += (ask.announcement, mark, "1" if ask.announced.now else "0")
            args += _words(ask.writing.entries)
        return Call(scripts.load("append"), keys, args)


class _Ask:
    """One stream that is written apart.

    Attributes:
        writing: its entries.
        announced: its announcement.
        but: the id of an announcement that does not count, because it is over.
        mark: what the record says about that. Should the load balancer stream have begun anew, with smaller ids,
            then the next announcement is not over by it.
    """

    def __init__(self, writing: Writing) -> None:
        self.writing = writing
        self.announced = Announced(None, now=False)
        self.but = ""
        self.mark: str | bytes = ""

    @property
    def announcement(self) -> str:
        """Its announcement, as fences begin with it."""
        assert self.announced.lbs_id is not None
        return announcement_of(self.announced.lbs_id)

    def is_over(self, mark: bytes) -> None:
        """Note that its announcement is over. Nothing was written."""
        assert self.announced.lbs_id is not None
        self.but, self.mark = self.announced.lbs_id, mark


def _head(maxlen: int | None) -> list[str | bytes]:
    return [str(round(PROGRESS_TTL * 1000)), "" if maxlen is None else str(maxlen)]


def _words(entries: Sequence[NewEntry]) -> Iterator[str | bytes]:
    yield str(len(entries))
    for entry in entries:
        yield entry.id
        yield str(len(entry.words))
        yield from entry.words


def _id(result: Any) -> str | None:
    return result.decode() if isinstance(result, bytes) else None


def _meaning(message: bytes, stream: str) -> Fault:
    fault = _fault(error_mapping.map_reply(ResponseError(message.decode(errors="replace"))))
    if isinstance(fault, WrongType):
        fault.hint = f"{stream!r} must be a stream, or not exist; {fault.hint}"
    return fault


def _fault(error: Exception) -> Fault:
    if isinstance(error, GroupMissing):
        return Unanswered(str(error), maybe_executed=False)
    assert isinstance(error, Unanswered | RedisRejected)
    return error
