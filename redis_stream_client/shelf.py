"""The records of all data streams, wherever they are."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from redis_stream_client.batch import Spawn
from redis_stream_client.errors import ClientClosed, RedisRejected
from redis_stream_client.faults import Unanswered
from redis_stream_client.keys import Keys
from redis_stream_client.lease import Lease
from redis_stream_client.link import Link
from redis_stream_client.logs import log
from redis_stream_client.places import Places
from redis_stream_client.records import Owner, Records

if TYPE_CHECKING:
    from redis_stream_client.endpoint import Endpoint

PROGRESS_TTL = 7 * 86_400.0
"""Seconds that the record of a finished stream stays, and a consumer that wakes late is refused."""

SETTLE_TIMEOUT = 0.2
"""Seconds that ending a lease waits for its record. One that is not told counts one attempt more, or stays."""


class Shelf:
    """One connection for each server that holds data streams, opened when it is needed."""

    def __init__(
        self,
        keys: Keys,
        consumer: str,
        places: Places,
        spawn: Spawn,
        gone: Callable[[], ClientClosed],
        patience: float,
    ) -> None:
        self._keys = keys
        self._consumer = consumer
        self._places = places
        self._spawn = spawn
        self._gone = gone
        self._patience = patience
        self._records: dict[Endpoint, Records] = {}

    async def records(self, stream: str, timeout: float) -> Records:
        """Where the record of a stream is. Raises `Unanswered`."""
        endpoint = self._places.of(stream)
        if endpoint is None:
            await self._places.learn(timeout)
            endpoint = self._places.of(stream)
            if endpoint is None:
                raise Unanswered(f"no server holds {stream!r} now", maybe_executed=False)
        if endpoint not in self._records:
            self._records[endpoint] = Records(
                Link(endpoint), self._places.slot, self._spawn, self._gone, self._patience
            )
        return self._records[endpoint]

    async def together(self, records: Sequence[str]) -> Records | None:
        """Where these records are, if one call may look at all of them, and it is known where they are."""
        if not records or len({self._places.slot(record) for record in records}) > 1:
            return None
        try:
            return await self.records(records[0], self._patience)
        except (Unanswered, RedisRejected):
            return None

    async def settle(self, leases: Iterable[Lease], lifetime: float) -> None:
        """These leases end in good order: their attempts do not count. Best effort: it fails for nobody.

        `lifetime` is how long, in seconds, their records stay; 0 for as long as the next owner needs them.
        """
        servers: dict[Records, list[tuple[str, Owner]]] = defaultdict(list)
        lost = False  # it is not known where the others are, and could not be learned
        for lease in leases:
            if lease._begun and not (lost and self._places.of(lease.stream) is None):
                try:
                    records = await self.records(lease.stream, SETTLE_TIMEOUT)
                except (Unanswered, RedisRejected) as error:
                    lost = True
                    log.debug("could not settle %s: %s", lease.stream, error)
                    continue
                servers[records].append(
                    (self._keys.progress(lease.stream), Owner(str(lease.fence), self._consumer))
                )
        for records, owned in servers.items():
            await records.settle(owned, lifetime, SETTLE_TIMEOUT)

    def moved(self) -> None:
        """Records are elsewhere by now."""
        self._places.forget()

    async def close(self) -> None:
        """Close the connections."""
        for records in self._records.values():
            await records.close()
