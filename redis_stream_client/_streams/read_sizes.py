"""Read sizes: how many streams, entries and bytes one read asks for, adapted to the line and the server."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from redis_stream_client._model.logs import Log
from redis_stream_client._redis.window import Window

STREAMS = 512  # the most streams in one read
READ = 1_024  # the most entries in one read, of all its streams
READ_BYTES = 1 << 24  # about the most bytes in one read, estimated from earlier reads
LEAST_BYTES = 1 << 16
FIRST_PIECE = 8  # entries of one stream in its first read
LARGEST_PIECE = 1_024
PIECE_BYTES = 1 << 20  # about the most bytes of one stream in one read
PAGE_SECONDS = 0.5  # about the longest time for one reply to arrive, because all other streams wait


class Cursor(Protocol):
    """What the estimate needs to know about a stream."""

    count: int
    idle: bool
    reassured: bool


class ReadSizes:
    """The sizes of reads from one server.

    Nobody knows how much the next read brings. So it is estimated from earlier reads. A read without an answer is
    repeated for less: for fewer streams, then for fewer entries of each.
    """

    def __init__(self, quiet: float, log: Log) -> None:
        self._streams = Window("data streams in a read", STREAMS, quiet, log=log)
        self._bytes = Window("bytes in a read of a data stream", READ_BYTES, quiet, log=log, smallest=LEAST_BYTES)
        self._entry_bytes = 0.0  # bytes of a recent entry
        self._rate = float("inf")  # bytes per second that large replies brought

    @property
    def patience(self) -> float:
        """Seconds of silence after which to give up a read."""
        return max(self._streams.patience, self._bytes.patience)

    def streams(self, first: Cursor) -> int:
        """How many streams like this one to read together."""
        most = self._streams.size
        if not first.idle:
            likely = self._most_bytes // max(1, round(first.count * self._entry_bytes))
            most = min(most, READ // first.count, likely)
        elif not first.reassured:  # it has changed, so at least one entry is there
            most = min(most, self._most_bytes // max(1, round(self._entry_bytes)))
        return max(1, most)

    def entries(self, count: int, raw: Sequence[Any]) -> int:
        """How many entries to ask for next, after a read that brought all `count` entries that it asked for."""
        return next_count(count, raw, min(PIECE_BYTES, self._most_bytes))

    @property
    def _most_bytes(self) -> int:
        return int(max(LEAST_BYTES, min(self._bytes.size, self._rate * PAGE_SECONDS)))

    def answered(self, streams: int, pieces: Iterable[Sequence[Any]], took: float) -> None:
        """Learn from a read of so many streams that brought these pieces in `took` seconds."""
        self._streams.answered(size=streams)
        self._bytes.answered()
        size, entries = size_of(pieces)
        if entries:
            self._entry_bytes = max(size / entries, self._entry_bytes * 0.75)  # grow at once, shrink slowly
        if size >= LEAST_BYTES / 4:
            self._rate = size / max(took, 0.001)
        elif took < PAGE_SECONDS / 2:
            self._rate *= 1.5

    def unanswered(self, page: Sequence[Cursor]) -> None:
        """Learn from a read of these streams that was sent and not answered."""
        if len(page) > 1:
            self._streams.unanswered(len(page))
        else:
            self._bytes.unanswered(min(self._bytes.size, max(LEAST_BYTES, round(self._entry_bytes * 4))))
        for cursor in page:
            cursor.count = max(1, cursor.count // 4)


def next_count(count: int, raw: Sequence[Any], most: float) -> int:
    """How many entries to ask for after a full piece of `count` entries, to get at most `most` bytes."""
    size, entries = size_of([raw])
    return max(1, min(count * 4, LARGEST_PIECE, int(most * entries // max(1, size))))


def size_of(pieces: Iterable[Sequence[Any]]) -> tuple[int, int]:
    """The number of bytes, and the number of entries."""
    sizes = [sum(map(len, words)) for piece in pieces for _, words in piece]
    return sum(sizes), len(sizes)
