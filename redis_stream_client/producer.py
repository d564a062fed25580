"""The producer's side: announcing data streams."""

from collections.abc import Iterable, Iterator, Sequence

from redis.asyncio import Redis, RedisCluster

from redis_stream_client._model.announcement import FIELD, Info, encode
from redis_stream_client._model.errors import RedisRejected, RedisUnavailable
from redis_stream_client._model.keys import Keys, require_name
from redis_stream_client._redis.pooled import Loan, Pooled

CHUNK = 500  # announcements that travel in one pipeline, at the most
CHUNK_BYTES = 256 * 1024  # and their size together, but for a single larger one: a slow line needs its time for it


class LoadBalancerStream:
    """Announces data streams to the consumers of a service.

    Args:
        redis: a ``redis.asyncio.Redis`` or ``RedisCluster``. Connections are taken from the pool of a
            ``Redis`` and given back; a cluster is only a source of settings.
        service: name of the service.

    The wire format is that of the Go library `redis-stream-client-go`, whose producers may be mixed in.
    """

    def __init__(self, redis: Redis | RedisCluster, service: str) -> None:
        self._keys = Keys(require_name(service, "service"))
        self._pooled = Pooled(redis, self._keys.lbs)

    async def add(self, stream: str, info: Info | None = None) -> str:
        """Announce a data stream; one live consumer will own it.

        Args:
            stream: name of the data stream; its entries may be written before or after.
            info: what the consumer should know, a mapping that can be JSON. Small: an announcement has at
                most 256 KiB.

        Returns:
            The announcement's id.

        Raises:
            TypeError, ValueError: for what no consumer would accept.
            RedisUnavailable: no answer. Its hint says whether the stream may have been announced, or was not;
                announcing it again makes a second announcement of the same stream. Nothing is retried here.
            RedisRejected: Redis refuses.

        No answer means that Redis is silent for the connection's ``socket_timeout`` (5 s if it has none), and 1 s
        longer for each 32 KiB of the announcement; or that there is no connection within 10 s, however often
        redis-py tries to connect (twice its ``socket_connect_timeout``, if that is longer).
        """
        return (await self.add_many([(stream, info)]))[0]

    async def add_many(self, streams: Iterable[str | tuple[str, Info | None]]) -> list[str]:
        """Announce many data streams in few round trips.

        Args:
            streams: names, or pairs of name and info. All are checked before the first is sent.

        Returns:
            The announcements' ids, in the same order.

        Raises as `add`. Some may have been announced then: the error's hint counts them, and its ``announced`` has
        the ids of those that are known to be, in the same order, with None in the place of every other one.
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
    """What travels together: bounded by number, and by size, so that a slow line is done with it soon."""
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
    """What became of the announcements, for the hint of an error."""
    if not known and not unknown:
        return "nothing was announced"
    again = "announcing again adds another"
    if count == 1:
        return f"it may have been announced; {again}"
    parts = [f"{known} of {count} were announced"] if known else []
    if unknown:
        parts.append(f"{unknown} of {count} may have been announced, {again}")
    return "; ".join(parts)
