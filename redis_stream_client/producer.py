"""The producer's side: announcing data streams."""

from collections.abc import Iterable

from redis.asyncio import Redis, RedisCluster

from redis_stream_client.announcement import FIELD, Info, encode
from redis_stream_client.borrowed import Borrowed, exchange
from redis_stream_client.keys import Keys, require_name

CHUNK = 500  # announcements that travel in one pipeline


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
        self._borrowed = Borrowed(redis, self._keys.lbs)

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
            RedisUnavailable: no answer. It may have been announced; announcing it again makes a second
                announcement of the same stream. Nothing is retried here.
            RedisRejected: Redis refuses.
        """
        return (await self.add_many([(stream, info)]))[0]

    async def add_many(self, streams: Iterable[str | tuple[str, Info | None]]) -> list[str]:
        """Announce many data streams in few round trips.

        Args:
            streams: names, or pairs of name and info. All are checked before the first is sent.

        Returns:
            The announcements' ids, in the same order.

        Raises as `add`. After `RedisUnavailable`, some may have been announced.
        """
        if isinstance(streams, str):
            raise TypeError("streams must be an iterable of names, not one str; use add()")
        payloads = [encode(stream) if isinstance(stream, str) else encode(*_pair(stream)) for stream in streams]
        ids: list[str] = []
        if not payloads:
            return ids
        hint = "it may have been announced; announcing again adds another"
        async with self._borrowed.connection("announce", hint) as connection:
            for start in range(0, len(payloads), CHUNK):
                chunk = payloads[start : start + CHUNK]
                commands = [("XADD", self._keys.lbs, "*", FIELD, payload) for payload in chunk]
                ids += [reply.decode() for reply in await exchange(connection, commands)]
        return ids


def _pair(stream: object) -> tuple[str, Info | None]:
    if not isinstance(stream, tuple) or len(stream) != 2:
        raise TypeError(f"streams must hold names or (name, info) pairs, not {stream!r}")
    return stream
