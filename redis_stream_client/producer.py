"""The producer's side: announces data streams to the consumers of a service."""

from collections.abc import Iterable, Sequence

from redis.asyncio import Redis, RedisCluster

from redis_stream_client._model.announcement import FIELD, Info, encode
from redis_stream_client._model.errors import RedisRejected, RedisUnavailable
from redis_stream_client._model.keys import Keys, require_name
from redis_stream_client._protocol.announcing import Wanted, announce, chunks
from redis_stream_client._redis.error_mapping import is_permission
from redis_stream_client._redis.pooled import Loan, Pooled


class LoadBalancerStream:
    """Announces data streams to the consumers of a service.

    Args:
        redis: a ``redis.asyncio.Redis`` or ``RedisCluster``. Of a ``Redis``, it borrows connections from the pool;
            of a cluster, it only reads the settings.
        service: name of the service.

    The wire format is that of the Go library `redis-stream-client-go`, so its producers can announce as well.
    """

    def __init__(self, redis: Redis | RedisCluster, service: str) -> None:
        self._keys = Keys(require_name(service, "service"))
        self._pooled = Pooled(redis, self._keys.lbs)

    async def add(self, stream: str, info: Info | None = None, *, again: bool = False) -> str:
        """Announce a data stream, so that one live consumer will own it; once, however often you call it.

        As long as an announcement of the stream is outstanding, which is until its owner is done with it or it
        goes to the dead letters, the call returns the id of that one, and adds none. Then the new ``info`` is not
        stored. What counts are announcements that this method or `DeadLetters.put_back` made; not those of other
        libraries, of older versions, or with ``again``.

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
        wanted = [_wanted(stream) if isinstance(stream, str) else _wanted(*_pair(stream)) for stream in streams]
        if not wanted:
            return []
        tally = _Tally(len(wanted), again)
        try:
            async with self._pooled.connection("announce") as tally.loan:
                for chunk in chunks(wanted):
                    await (
                        self._add(tally.loan, chunk, tally) if again else self._add_once(tally.loan, chunk, tally)
                    )
        except (RedisUnavailable, RedisRejected) as error:
            tally.tell(error)
            raise
        return [id for id in tally.ids if id is not None]

    async def _add(self, loan: Loan, chunk: Sequence[Wanted], tally: "_Tally") -> None:
        try:
            await loan.exchange(*(("XADD", self._keys.lbs, "*", FIELD, wanted.payload) for wanted in chunk))
        finally:
            tally.ids += (reply.decode() if isinstance(reply, bytes) else None for reply in loan.replies)

    async def _add_once(self, loan: Loan, chunk: Sequence[Wanted], tally: "_Tally") -> None:
        while chunk:
            tally.in_script = len(chunk)
            results = await announce(loan, self._keys, chunk)
            tally.ids += (result.lbs_id for result in results)
            refused = next((result.error for result in results if result.error), None)
            if refused is not None:
                loan.refuse(refused)
            chunk = chunk[len(results) :]


class _Tally:
    """What is known about the announcements of one call.

    Attributes:
        ids: those of the first streams, as far as Redis has answered; None: it refused.
        loan: the connection; None: there was none.
        in_script: how many streams are in the call of the script that was sent last.
    """

    def __init__(self, count: int, again: bool) -> None:
        self._count = count
        self._again = again
        self.ids: list[str | None] = []
        self.loan: Loan | None = None
        self.in_script = 1

    def tell(self, error: RedisUnavailable | RedisRejected) -> None:
        """Say in an error what happened."""
        error.announced = (*self.ids, *[None] * (self._count - len(self.ids)))
        known = self._count - error.announced.count(None)
        unknown = self.loan.unanswered * (1 if self._again else self.in_script) if self.loan else 0
        hints = [error.hint] if error.hint else []
        if isinstance(error, RedisUnavailable) or self._count > 1 or known:
            hints.insert(0, self._outcome(known, unknown))
        if not self._again and is_permission(error.__cause__):
            hints.append("its section Permissions says what a producer needs; with again=True, +xadd is enough")
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


def _wanted(stream: str, info: Info | None = None) -> Wanted:
    return Wanted(stream, encode(stream, info))


def _pair(stream: object) -> tuple[str, Info | None]:
    if not isinstance(stream, tuple) or len(stream) != 2:
        raise TypeError(f"streams must hold names or (name, info) pairs, not {stream!r}")
    return stream
