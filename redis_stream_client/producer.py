"""The producer's side: announces data streams to the consumers of a service."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ResponseError

from redis_stream_client._model import observer as observers
from redis_stream_client._model.announcement import FIELD, Info, encode, trace_context
from redis_stream_client._model.errors import RedisRejected, RedisUnavailable
from redis_stream_client._model.fields import Fields, require_maxlen, require_own_id
from redis_stream_client._model.fields import encode as encode_fields
from redis_stream_client._model.keys import Keys, require_name
from redis_stream_client._model.logs import Log
from redis_stream_client._model.observer import Observer, SafeObserver, Sending
from redis_stream_client._protocol import writing
from redis_stream_client._protocol.announcing import Tally, Wanted, announce_all, chunks
from redis_stream_client._protocol.writing import ANY_ID, NewEntry, Writer, Writing
from redis_stream_client._redis.error_mapping import Unanswered, is_withheld
from redis_stream_client._redis.pooled import Pooled
from redis_stream_client._redis.script_calls import ScriptCalls


class LoadBalancerStream:
    """Announces data streams to the consumers of a service.

    Args:
        redis: a ``redis.asyncio.Redis`` or ``RedisCluster``. Of a ``Redis``, it borrows connections from the pool,
            and waits for one if it has lent all of them. Of a cluster, it only reads the settings; it opens
            connections of its own, 16 to a node at the most, and keeps those that it does not use for 10 s.
        service: name of the service.
        observer: its `Observer.carrier` gives each announcement a trace context for the observer of the consumer;
            default: none.

    The wire format is that of the Go library `redis-stream-client-go`, so its producers can announce as well.
    """

    def __init__(self, redis: Redis | RedisCluster, service: str, *, observer: Observer | None = None) -> None:
        self._keys = Keys(require_name(service, "service"))
        self._pooled = Pooled(redis, self._keys.lbs)
        self._calls = ScriptCalls(redis, self._pooled, self._keys.lbs)
        self._writer = Writer(self._keys, self._calls)
        checked = observers.check(observer)
        self._observer = SafeObserver(checked, Log(service=service)) if checked is not None else None

    async def add(self, stream: str, info: Info | None = None, *, again: bool = False) -> str:
        """Announce a data stream, so that one live consumer will own it; once, however often you call it.

        As long as an announcement of the stream is outstanding, which is until its owner is done with it or it
        goes to the dead letters, the call returns the id of that one, and adds none. Then the new ``info`` is not
        stored. What counts are announcements that this method, `write` or `DeadLetters.put_back` made; not those
        of other libraries, of older versions, or with ``again``.

        Nothing is retried. If the call is cancelled, the stream may have been announced. You can repeat it.

        Args:
            stream: name of the data stream. You can write its entries before or after.
            info: what the consumer should know: a mapping that can be encoded as JSON. Keep it small: an
                announcement has at most 256 KiB.
            again: announce it whatever is outstanding, with a plain ``XADD``, for which ``+xadd`` is permission
                enough. If an older announcement is outstanding, the owner of the newer one supersedes its owner.

        Returns:
            The id of the announcement.

        Raises:
            TypeError, ValueError: no consumer would accept the argument.
            RedisUnavailable: no answer. The hint says whether the stream may have been announced. If you announce
                it again, that adds another announcement only if the first one is finished by then; then the stream
                is handled once more, after its last checkpoint. With ``again``, it adds another in any case.
            RedisRejected: Redis refuses.

        *No answer* means: Redis was silent for the ``socket_timeout`` of the connection (5 s if it has none), plus
        1 s for each 32 KiB of the announcement; or there was no connection within 10 s (or twice the
        ``socket_connect_timeout``, if that is longer), however often redis-py tries to connect.
        """
        return (await self.add_many([(stream, info)], again=again))[0]

    async def add_many(
        self, streams: Iterable[str | tuple[str, Info | None]], *, again: bool = False
    ) -> list[str]:
        """Announce many data streams in few round trips.

        Args:
            streams: names, or pairs of name and info. All are checked before the first is sent. Of two with the
                same name the first is announced, and both have its id.
            again: see `add`.

        Returns:
            The ids of the announcements, in the order of the streams.

        Raises what `add` raises. Some streams may have been announced then. The hint of the error counts them, and
        its ``announced`` has one item for each stream, in the same order: the id, or None if the stream is not
        known to be announced.
        """
        if isinstance(streams, str):
            raise TypeError("streams must be an iterable of names, not one str; use add()")
        pairs = [(stream, None) if isinstance(stream, str) else _pair(stream) for stream in streams]
        with self._sending("add", len(pairs)):
            return await self._announce(pairs, again=again)

    async def _announce(self, pairs: Sequence[tuple[str, Info | None]], *, again: bool) -> list[str]:
        carrier = self._carrier()
        wanted = [Wanted(stream, encode(stream, info, carrier)) for stream, info in pairs]
        if not wanted:
            return []
        self._require_data({one.stream for one in wanted})
        tally = Tally(len(wanted), again)
        try:
            await (self._add(wanted, tally) if again else self._add_once(wanted, tally))
        except (RedisUnavailable, RedisRejected) as error:
            tally.tell(error)
            raise
        return [id for id in tally.ids if id is not None]

    async def write(
        self,
        stream: str,
        fields: Fields,
        *,
        info: Info | None = None,
        maxlen: int | None = None,
        id: str | None = None,
    ) -> str:
        """Add an entry to a data stream, and make sure that a consumer reads it: announce the stream unless an
        announcement of it is outstanding.

        On one server that is one step. On a Cluster, a producer that dies midway leaves at worst an announcement
        too many. An entry that comes while its stream is put to sleep, by ``lease.done_if_idle()`` or
        ``entries(idle=…)``, wakes it. A plain ``done()`` does not look: an entry that was written just before it
        stays unread until the next one is written. So does one whose producer dies midway on a Cluster while the
        owner says ``done()`` and leaves no record, as with ``on_done="delete"`` or a member of an older version.

        Nothing is sent again that Redis may have executed. If the call is cancelled, or gets no answer, the entry
        may have been written; if you write it again, it is there twice, unless you give it an ``id``. Nothing is
        left running.

        Args:
            stream: name of the data stream.
            fields: names and values of the entry: at least one, and at most 3,500.
            info: what the consumer should know; see `add`. It is used only if the stream is announced now.
            maxlen: keep about so many entries (``MAXLEN ~``). Redis drops older ones, even unread ones.
            id: id of the entry, such as "1526919030474-55", greater than all before it. If the stream has an entry
                with this id, that is the same entry: nothing is added, and its id is returned. Once that entry was
                trimmed, Redis refuses the id; once the stream was deleted, the entry is added anew.

        Returns:
            The id of the entry.

        Raises:
            TypeError, ValueError: a wrong argument.
            RedisUnavailable: no answer, as for `add`. Its hint says whether the entry may have been written.
            RedisRejected: Redis refuses, for example an ``id`` that is not greater than the last one.

        In both errors, ``written`` has one item: the id of the entry, or None if it is not known to be written. An
        entry that was written may not be announced then; `add` makes sure of that.
        """
        own_id = ANY_ID if id is None else require_own_id(id)
        return (await self._observed_write([(stream, fields, info)], maxlen, own_id))[0]

    async def write_many(
        self,
        entries: Iterable[tuple[str, Fields] | tuple[str, Fields, Info | None]],
        *,
        maxlen: int | None = None,
    ) -> list[str]:
        """Add many entries to many data streams in few round trips. See `write`.

        The entries of a stream keep their order. If Redis refuses one, it gets no later ones of that stream.

        Args:
            entries: stream and fields of each, and possibly info. All are checked before the first is sent.
            maxlen: see `write`; for each stream.

        Returns:
            The ids of the entries, in the order in which you gave them.

        Raises what `write` raises. Some entries may have been written then. The hint of the error counts them, and
        its ``written`` has one item for each entry, in the same order: the id, or None if it is not known to be
        written.
        """
        return await self._observed_write([_checked(entry) for entry in entries], maxlen)

    async def _observed_write(
        self, entries: Sequence[tuple[str, Fields, Info | None]], maxlen: int | None, id: str = ANY_ID
    ) -> list[str]:
        with self._sending("write", len(entries)):
            return await self._write(_new_entries(entries, id, self._carrier()), maxlen)

    def _sending(self, operation: Literal["add", "write"], messages: int) -> AbstractContextManager[object]:
        """What surrounds one call, for the observer."""
        if self._observer is None:
            return nullcontext()
        return self._observer.sending(Sending(self._keys.service, operation, self._keys.lbs, messages))

    def _carrier(self) -> Mapping[str, str] | None:
        """What the announcements of one call carry; None: nothing."""
        return trace_context(self._observer.carrier()) if self._observer is not None else None

    async def _write(self, entries: Sequence[NewEntry], maxlen: int | None) -> list[str]:
        if maxlen is not None:
            require_maxlen(maxlen)
        self._require_data({entry.stream for entry in entries})
        places: list[tuple[Writing, int]] = []
        for chunk in writing.chunks(entries):
            places += await self._writer.write(chunk, maxlen)
            failed = next((place.fault for place, _ in places if place.fault is not None), None)
            if failed is not None:
                error = self._pooled.translated(failed, "write", None)
                assert isinstance(error, RedisUnavailable | RedisRejected)
                _tell_written(error, entries, places)
                raise error from error.__cause__
        return [id for place, number in places if (id := place.ids[number]) is not None]

    def _require_data(self, streams: set[str]) -> None:
        """Refuse streams of the service itself: their owner would read, and perhaps trim, what belongs to all."""
        own = streams & {self._keys.lbs, self._keys.dead}
        if own:
            raise ValueError(f"stream must be a data stream, and not one of the service's own: {own.pop()!r}")

    async def _add(self, wanted: Sequence[Wanted], tally: Tally) -> None:
        async with self._pooled.connection("announce") as loan:
            for chunk in chunks(wanted):
                try:
                    await loan.exchange(*(("XADD", self._keys.lbs, "*", FIELD, one.payload) for one in chunk))
                finally:
                    tally.ids += (reply.decode() if isinstance(reply, bytes) else None for reply in loan.replies)
                    tally.unknown = loan.unanswered

    async def _add_once(self, wanted: Sequence[Wanted], tally: Tally) -> None:
        try:
            for chunk in chunks(wanted):
                await announce_all(self._calls, self._keys, chunk, tally)
        except (Unanswered, RedisRejected, ResponseError) as fault:
            error = self._pooled.translated(fault, "announce", None)
            raise error from error.__cause__


def _tell_written(
    error: RedisUnavailable | RedisRejected, entries: Sequence[NewEntry], places: Sequence[tuple[Writing, int]]
) -> None:
    """Say in an error which entries were written."""
    ids = [place.ids[number] for place, number in places]
    error.written = (*ids, *[None] * (len(entries) - len(ids)))
    known = len(entries) - error.written.count(None)
    unknown = sum(place.unknown for place, _ in places if place.ids)
    hints = [error.hint] if error.hint else []
    if isinstance(error, RedisUnavailable) or len(entries) > 1 or known:
        hints.insert(0, _written(entries, known, unknown))
    if is_withheld(error.__cause__):
        hints.append("the rule there for a producer is enough")
    error.hint = "; ".join(hints)


def _written(entries: Sequence[NewEntry], known: int, unknown: int) -> str:
    """Which entries were written, for the hint of an error."""
    if not known and not unknown:
        return "nothing was written"
    if len(entries) == 1:
        if known:
            return "it was written; if it may not be announced, add() makes sure of that"
        if entries[0].id == ANY_ID:
            return "it may have been written; written again, it is there twice"
        return "it may have been written; repeating the call with this id is safe"
    parts = [f"{known} of {len(entries)} were written"] if known else []
    if unknown:
        parts.append(f"{unknown} of {len(entries)} may have been written; written again, they are there twice")
    return "; ".join(parts)


def _new_entries(
    entries: Sequence[tuple[str, Fields, Info | None]], id: str, carrier: Mapping[str, str] | None
) -> list[NewEntry]:
    return [
        NewEntry(stream, encode(stream, info, carrier), encode_fields(fields), id)
        for stream, fields, info in entries
    ]


def _checked(entry: object) -> tuple[str, Fields, Info | None]:
    if not isinstance(entry, tuple) or len(entry) not in (2, 3):
        raise TypeError(f"entries must hold (stream, fields) or (stream, fields, info), not {entry!r:.200}")
    return entry if len(entry) == 3 else (*entry, None)


def _pair(stream: object) -> tuple[str, Info | None]:
    if not isinstance(stream, tuple) or len(stream) != 2:
        raise TypeError(f"streams must hold names or (name, info) pairs, not {stream!r}")
    return stream
