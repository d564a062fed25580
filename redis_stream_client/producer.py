"""The producer's side: announces data streams to the consumers of a service."""

from collections.abc import Iterable, Iterator, Sequence

from redis.asyncio import Redis, RedisCluster

from redis_stream_client._model.announcement import FIELD, Info, encode
from redis_stream_client._model.errors import RedisRejected, RedisUnavailable
from redis_stream_client._model.keys import Keys, require_name
from redis_stream_client._redis.pooled import Loan, Pooled

CHUNK = 500  # the most announcements in one pipeline
CHUNK_BYTES = 256 * 1024  # the most bytes in one pipeline, unless one announcement is larger: a line may be slow


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

    async def add(self, stream: str, info: Info | None = None) -> str:
        """Announce a data stream, so that one live consumer will own it.

        Nothing is retried. If the call is cancelled, the stream may have been announced.

        Args:
            stream: name of the data stream. You can write its entries before or after.
            info: what the consumer should know: a mapping that can be encoded as JSON. Keep it small: an
                announcement has at most 256 KiB.

        Returns:
            The id of the announcement.

        Raises:
            TypeError, ValueError: no consumer would accept the argument.
            RedisUnavailable: no answer. The hint says whether the stream may have been announced. If you announce
                it again, there may be two announcements of the same stream.
            RedisRejected: Redis refuses.

        *No answer* means: Redis was silent for the ``socket_timeout`` of the connection (5 s if it has none), plus
        1 s for each 32 KiB of the announcement; or there was no connection within 10 s (or twice the
        ``socket_connect_timeout``, if that is longer), however often redis-py tries to connect.
        """
        return (await self.add_many([(stream, info)]))[0]

    async def add_many(self, streams: Iterable[str | tuple[str, Info | None]]) -> list[str]:
        """Announce many data streams in few round trips.

        Args:
            streams: names, or pairs of name and info. All are checked before the first is sent.

        Returns:
            The ids of the announcements, in the order of the streams.

        Raises what `add` raises. Some streams may have been announced then. The hint of the error counts them, and
        its ``announced`` has one item for each stream, in the same order: the id, or None if the stream is not
        known to be announced.
        """
        if isinstance(streams, str):
            raise TypeError("streams must be an iterable of names, not one str; use add()")
        payloads = [encode(stream) if isinstance(stream, str) else encode(*_pair(stream)) for stream in streams]
        ids: list[str | None] = []
        if not payloads:
            return []
        loan: Loan | None = None
        try:
            async with self._pooled.connection("announce") as loan:
                for chunk in _chunks(payloads):
                    try:
                        await loan.exchange(*(("XADD", self._keys.lbs, "*", FIELD, payload) for payload in chunk))
                    finally:
                        ids += map(_id, loan.replies)
        except (RedisUnavailable, RedisRejected) as error:
            unknown = loan.unanswered if loan is not None else 0
            error.announced = (*ids, *[None] * (len(payloads) - len(ids)))
            outcome = _outcome(len(payloads), len(payloads) - error.announced.count(None), unknown)
            if isinstance(error, RedisUnavailable) or len(payloads) > 1:
                error.hint = f"{outcome}; {error.hint}" if error.hint else outcome
            raise
        return [id for id in ids if id is not None]


def _pair(stream: object) -> tuple[str, Info | None]:
    if not isinstance(stream, tuple) or len(stream) != 2:
        raise TypeError(f"streams must hold names or (name, info) pairs, not {stream!r}")
    return stream


def _chunks(payloads: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut the announcements into pipelines: bounded by number, and by size for the sake of slow lines."""
    start = size = 0
    for index, payload in enumerate(payloads):
        size += len(payload)
        if index > start and (size > CHUNK_BYTES or index - start == CHUNK):
            yield payloads[start:index]
            start, size = index, len(payload)
    yield payloads[start:]


def _id(reply: object) -> str | None:
    return reply.decode() if isinstance(reply, bytes) else None


def _outcome(count: int, known: int, unknown: int) -> str:
    """What happened to the announcements, for the hint of an error."""
    if not known and not unknown:
        return "nothing was announced"
    again = "announcing again adds another"
    if count == 1:
        return f"it may have been announced; {again}"
    parts = [f"{known} of {count} were announced"] if known else []
    if unknown:
        parts.append(f"{unknown} of {count} may have been announced, {again}")
    return "; ".join(parts)
