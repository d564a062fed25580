"""Dead letters: announcements that nobody could process. Look at them, put them back, or discard them."""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.asyncio import Redis, RedisCluster

from redis_stream_client._model import letter_details
from redis_stream_client._model.announcement import Info, Malformed, decode
from redis_stream_client._model.entry import order, parse_id
from redis_stream_client._model.errors import RedisUnavailable, StreamGone
from redis_stream_client._model.keys import Keys, require_name
from redis_stream_client._model.letter_details import LetterDetails
from redis_stream_client._model.logs import Log
from redis_stream_client._protocol import letters, msgpack
from redis_stream_client._redis.pooled import Loan, Pooled
from redis_stream_client._redis.window import Window

PAGE = 50
"""The most letters that one XRANGE asks for."""

FIRST_PAGE = 4
PAGE_BYTES = 2**20
"""The most bytes of a page, estimated from the page before it: a single letter may have a megabyte."""

MOST_FIELDS = 10_000
"""The most fields of an announcement that can be put back. For so many Redis needs about 40 ms."""

_HEAD = (b"reason", b"lbs-id", b"consumer", b"deliveries")
_DETAILS = b"letter-details"
_PACKED = b"fields-msgpack"
_PACKED_FROM = 4000  # names and values; fewer are never packed
_COUNT = re.compile(rb"[0-9]{1,20}")
_READING = "read the dead letters"
_UNDONE = "nothing was changed"
_TOO_LARGE = (
    "one letter alone gets no answer; if others do, it is too large for the line or for the server's "
    "client-output-buffer-limit"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_OF_TIME = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An announcement that nobody could process.

    An entry that somebody else wrote to the stream of dead letters is a letter, too: then `reason`, `lbs_id` and
    `consumer` are empty, `deliveries` is 0, and `fields` has all fields of the entry.

    Attributes:
        id: id of the letter.
        reason: why the announcement went to the dead letters.
        lbs_id: id that the announcement had.
        consumer: id of the consumer that moved it.
        deliveries: delivery count of the announcement.
        stream: name of the data stream; None if the announcement is not well-formed.
        info: the ``Info`` of the announcement, decoded JSON, or None.
        fields: the fields of the announcement, byte for byte: pairs of name and value.
        position: the last checkpoint of the stream; None if there was none. This attribute and the following ones
            are known of streams whose handlers failed or whose owners died. Letters of earlier versions lack them.
        last_entry: id of the last entry that the last handler got; None if it got none. Look there first.
        error_type: class of the last error, or None.
        error: text of the last error, or None.
        failures: how often handlers failed since the checkpoint last advanced.
        deaths: how many owners died since then.
        failing_since: when that began, in seconds of Unix time; None if it is not known.
    """

    id: str
    reason: str
    lbs_id: str
    consumer: str
    deliveries: int
    stream: str | None
    info: Info | None = field(compare=False)
    fields: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    position: str | None = None
    last_entry: str | None = None
    error_type: str | None = None
    error: str | None = None
    failures: int = 0
    deaths: int = 0
    failing_since: float | None = None

    @property
    def time(self) -> datetime:
        """When it went to the dead letters, by the clock of the server, in UTC."""
        milliseconds, _ = order(self.id)
        return _EPOCH + timedelta(milliseconds=min(milliseconds, _END_OF_TIME))


class DeadLetters:
    """The dead letters of a service.

    Args:
        redis: a ``redis.asyncio.Redis`` or ``RedisCluster``. Of a ``Redis``, it borrows connections from the pool;
            of a cluster, it only reads the settings.
        service: name of the service.

    ``async for letter in letters`` gives the letters that are there when it begins, the oldest first. It reads
    pages of at most 50 letters and holds no connection between two pages, so you can put back or discard letters
    in the loop. Letters that arrive meanwhile come with the next ``async for``. ``break`` and a cancellation leave
    nothing behind. If a page gets no answer, the iterator asks for fewer letters, down to one. After an error the
    same iterator can go on where it was.

    Nothing else is retried. All methods, and the iterator, raise `RedisUnavailable` if Redis is silent for the
    ``socket_timeout`` of the connection (5 s if it has none) or if there is no connection within 10 s, and
    `RedisRejected` if Redis refuses.
    """

    def __init__(self, redis: Redis | RedisCluster, service: str) -> None:
        self._keys = Keys(require_name(service, "service"))
        self._stream = _LetterStream(redis, self._keys.dead)
        self._log = Log(service=self._keys.service)

    def __repr__(self) -> str:
        return f"<DeadLetters of {self._keys.service!r}>"

    def __aiter__(self) -> AsyncIterator[DeadLetter]:
        return _Listing(self._stream, self._log)

    async def count(self) -> int:
        """The number of dead letters."""
        return int(await self._stream.ask("count the dead letters", "XLEN"))

    async def get(self, id: str) -> DeadLetter | None:
        """One letter, or None if it is not there.

        Raises:
            TypeError, ValueError: the argument is not the id of a letter.
        """
        require_id(id)
        entries = await self._stream.ask("read a dead letter", "XRANGE", id, id)
        return _letter(entries[0]) if entries else None

    async def put_back(self, letter: DeadLetter | str) -> str:
        """Announce the stream of a letter again, with the fields of the old announcement, and remove the letter.

        Redis does both in one step. Repair the cause first, or the letter comes back. If the call is cancelled,
        the letter may have been put back, as with `RedisUnavailable`.

        Args:
            letter: the letter, or its id.

        Returns:
            The id of the new announcement.

        Raises:
            StreamGone: the letter is not there: it was put back or discarded before.
            TypeError, ValueError: the argument is neither a letter nor the id of one.
            ValueError: the letter holds no well-formed announcement, so that it would only come back; or it has
                more than 10,000 fields. Nothing was changed. Discard it, or announce its stream with
                `LoadBalancerStream.add`.
            RedisUnavailable: no answer. The letter may have been put back. You can safely repeat the call: if it
                was, the repeated call raises `StreamGone`, and nothing is announced twice.
        """
        id = _id_of(letter)
        if not isinstance(letter, DeadLetter):
            found = await self.get(id)
            if found is None:
                raise _gone(id)
            letter = found
        problem = _problem(letter)
        if problem:
            raise ValueError(
                f"dead letter {id} cannot be put back: {problem}; discard it, or announce the stream with "
                "LoadBalancerStream.add()"
            )
        hint = "it may have been put back; repeating is safe, and raises StreamGone if it was"
        async with self._stream.connection("put back a dead letter", hint, undone=_UNDONE) as loan:
            announced = await letters.put_back(loan, self._keys, id)
        if announced is None:
            raise _gone(id, letter)
        return announced

    async def discard(self, letter: DeadLetter | str) -> bool:
        """Remove a letter for good. If the call is cancelled, the letter may have been removed.

        Args:
            letter: the letter, or its id.

        Returns:
            Whether the letter was there.

        Raises:
            TypeError, ValueError: the argument is neither a letter nor the id of one.
            RedisUnavailable: no answer. The letter may have been discarded. You can safely repeat the call; it
                returns False if it was.
        """
        id = _id_of(letter)
        hint = "it may have been discarded; repeating is safe"
        return bool(await self._stream.ask("discard a dead letter", "XDEL", id, hint=hint))


class _LetterStream(Pooled):
    """The stream that holds the letters. Each request borrows a connection."""

    async def ask(self, doing: str, command: str, *words: Any, hint: str | None = None) -> Any:
        """Send one command about the stream, and return the reply. Give a `hint` if the command changes
        something."""
        async with self.connection(doing, hint, undone=_UNDONE if hint else None) as loan:
            [reply] = await loan.exchange((command, self._key, *words))
        return reply

    async def newest(self) -> str | None:
        """The id of the newest letter."""
        entries = await self.ask(_READING, "XREVRANGE", "+", "-", "COUNT", 1)
        return entries[0][0].decode() if entries else None

    async def page(self, first: str, last: str, count: int) -> list[Any] | None:
        """At most `count` letters as Redis sends them; None if Redis got the request and did not answer."""
        loan: Loan | None = None
        try:
            async with self.connection(_READING, _TOO_LARGE if count == 1 else None) as loan:
                [entries] = await loan.exchange(("XRANGE", self._key, first, last, "COUNT", count))
        except RedisUnavailable:
            if loan is None or not loan.unanswered or count == 1:
                raise
            return None
        return list(entries)


class _Listing(AsyncIterator[DeadLetter]):
    """One walk through the letters. A failed or cancelled step skips nothing, and can be repeated."""

    def __init__(self, stream: _LetterStream, log: Log) -> None:
        self._stream = stream
        self._page: list[DeadLetter] = []  # in reverse
        self._next: str | None = "-"  # where the next page begins; None at the end
        self._last: str | None = None  # the newest letter when it began: one that is buried again comes after it
        patience = stream.patience  # counts silence, so there is no need for more of it
        self._window = Window("dead letters in a page", PAGE, patience, log=log, longest_patience=patience)
        self._window.size = FIRST_PAGE
        self._letter_bytes = 0

    async def __anext__(self) -> DeadLetter:
        if not self._page and self._next is not None:
            if self._last is None:
                self._last = await self._stream.newest()
            if self._last is not None:
                entries = await self._read(self._next, self._last)
                self._page = [_letter(entry) for entry in reversed(entries)]
            ended = not self._page or self._page[0].id == self._last
            self._next = None if ended else f"({self._page[0].id}"
        if not self._page:
            raise StopAsyncIteration
        return self._page.pop()

    async def _read(self, first: str, last: str) -> list[Any]:
        """The next page. Asks for fewer letters while there is no answer."""
        while True:
            count = min(self._window.size, max(1, PAGE_BYTES // max(1, self._letter_bytes)))
            entries = await self._stream.page(first, last, count)
            if entries is not None:
                self._window.answered()
                size = sum(len(word) for _, words in entries for word in words)
                self._letter_bytes = size // max(1, len(entries))
                return entries
            self._window.unanswered(count)


def require_id(value: object, parameter: str = "id", kind: str = "a str") -> str:
    """Check the id of a letter. Raises ``TypeError`` or ``ValueError``."""
    if not isinstance(value, str):
        hint = " (decode it first)" if isinstance(value, bytes) else ""
        raise TypeError(f"{parameter} must be {kind}, not {type(value).__name__}{hint}")
    if parse_id(value) is None:
        raise ValueError(f"{value!r} is not a dead letter's id, which looks like '1526919030474-0'")
    return value


def _id_of(letter: object) -> str:
    known = letter.id if isinstance(letter, DeadLetter) else letter
    return require_id(known, "letter", "a DeadLetter or its id, a str")


def _letter(entry: Sequence[Any]) -> DeadLetter:
    """Read a letter as Redis sends it: its id, then names and values in turn."""
    id, words = entry[0].decode(), entry[1]
    head: Sequence[bytes] = words[1:8:2]
    if tuple(words[0:8:2]) == _HEAD and _COUNT.fullmatch(head[3]):
        words = words[8:]
    else:
        head = ()
    if head and len(words) == 2 and words[0] == _PACKED:
        unpacked = msgpack.unpack(words[1])
        if unpacked is not None and len(unpacked) > _PACKED_FROM and len(unpacked) % 2 == 0:
            words = unpacked
    details = LetterDetails()
    if head and tuple(words[:1]) == (_DETAILS,):
        details, words = letter_details.decode(words[1]), words[2:]
    stream: str | None = None
    info: Info | None = None
    try:
        if head:
            announced = decode(words)
            stream, info = announced.stream, announced.info
    except Malformed:
        pass
    reason, lbs_id, consumer = (
        (word.decode(errors="backslashreplace") for word in head[:3]) if head else ("", "", "")
    )
    return DeadLetter(
        id=id,
        reason=reason,
        lbs_id=lbs_id,
        consumer=consumer,
        deliveries=int(head[3]) if head else 0,
        stream=stream,
        info=info,
        fields=tuple(zip(words[::2], words[1::2], strict=True)),
        position=details.position,
        last_entry=details.last_entry,
        error_type=details.error_type,
        error=details.error,
        failures=details.failures,
        deaths=details.deaths,
        failing_since=details.failing_since,
    )


def _problem(letter: DeadLetter) -> str | None:
    """Why a letter cannot be put back, or None."""
    if len(letter.fields) > MOST_FIELDS:
        return f"it has {len(letter.fields)} fields, more than {MOST_FIELDS}"
    if letter.stream is not None:
        return None
    try:
        decode([word for pair in letter.fields for word in pair])
    except Malformed as error:
        return f"its announcement is malformed ({error}) and would only come back"
    return "it was not written by this library"


def _gone(id: str, letter: DeadLetter | None = None) -> StreamGone:
    return StreamGone(
        f"there is no dead letter {id}: it was put back or discarded",
        stream=letter.stream if letter else None,
        lbs_id=letter.lbs_id if letter else None,
    )
