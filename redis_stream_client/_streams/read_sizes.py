"""How much one read asks for: streams, entries and bytes, as the line and the server bear it."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from redis_stream_client._redis.window import Window

STREAMS = 512  # streams in one read
READ = 1_024  # entries that one read may bring, of all its streams
READ_BYTES = 1 << 24  # and about how much of it, judging by what came before
LEAST_BYTES = 1 << 16
FIRST_PIECE = 8  # entries of one stream in one read, to begin with
LARGEST_PIECE = 1_024
PIECE_BYTES = 1 << 20  # and about how much of one stream
PAGE_SECONDS = 0.5  # about as long may the reply to one read take to arrive: the others wait


class Cursor(Protocol):
    """What is to be known of a stream to judge how much a read of it brings."""

    count: int
    idle: bool
    reassured: bool


class ReadSizes:
    """The sizes of reads from one server.

    What the next one brings is not known. So it is judged by what came before, and what goes unanswered is
    repeated for less: fewer streams, then fewer entries of each.
    """

    def __init__(self, quiet: float) -> None:
        self._streams = Window("data streams in a read", STREAMS, quiet)
        self._bytes = Window("bytes in a read of a data stream", READ_BYTES, quiet, smallest=LEAST_BYTES)
        self._entry_bytes = 0.0  # what an entry had lately
        self._rate = float("inf")  # bytes per second that large replies brought

    @property
    def patience(self) -> float:
        """Seconds of silence after which a read is given up."""
        return max(self._streams.patience, self._bytes.patience)

    def streams(self, first: Cursor) -> int:
        """How many streams to read together that are like this one."""
        most = self._streams.size
        if not first.idle:
            likely = self._most_bytes // max(1, round(first.count * self._entry_bytes))
            most = min(most, READ // first.count, likely)
        elif not first.reassured:  # it has changed: one entry at least is there
            most = min(most, self._most_bytes // max(1, round(self._entry_bytes)))
        return max(1, most)

    def entries(self, count: int, raw: Sequence[Any]) -> int:
        """How many entries to ask a stream for that has brought `count`, as many as it was asked for."""
        return next_count(count, raw, min(PIECE_BYTES, self._most_bytes))

    @property
    def _most_bytes(self) -> int:
        return int(max(LEAST_BYTES, min(self._bytes.size, self._rate * PAGE_SECONDS)))

    def answered(self, pieces: Iterable[Sequence[Any]], took: float) -> None:
        """A read brought this, in so many seconds."""
        self._streams.answered()
        self._bytes.answered()
        size, entries = size_of(pieces)
        if entries:
            self._entry_bytes = max(size / entries, self._entry_bytes * 0.75)  # what is large comes all at once
        if size >= LEAST_BYTES / 4:
            self._rate = size / max(took, 0.001)
        elif took < PAGE_SECONDS / 2:
            self._rate *= 1.5

    def unanswered(self, page: Sequence[Cursor]) -> None:
        """A read of all these streams was sent, and not answered."""
        if len(page) > 1:
            self._streams.unanswered(len(page))
        else:
            self._bytes.unanswered(min(self._bytes.size, max(LEAST_BYTES, round(self._entry_bytes * 4))))
        for cursor in page:
            cursor.count = max(1, cursor.count // 4)


def next_count(count: int, raw: Sequence[Any], most: float) -> int:
    """How many entries to ask for after a piece of `count` that was full, to get at most so many bytes."""
    size, entries = size_of([raw])
    return max(1, min(count * 4, LARGEST_PIECE, int(most * entries // max(1, size))))


def size_of(pieces: Iterable[Sequence[Any]]) -> tuple[int, int]:
    """Bytes and entries."""
    sizes = [sum(map(len, words)) for piece in pieces for _, words in piece]
    return sum(sizes), len(sizes)
