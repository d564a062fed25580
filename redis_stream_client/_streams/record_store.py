"""The record store: the progress records of all data streams, on whichever server they are."""

import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection

from redis_stream_client._concurrency.batching import Spawn
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.errors import ClientClosed, RedisRejected
from redis_stream_client._model.keys import Keys
from redis_stream_client._model.logs import Log
from redis_stream_client._protocol.progress_records import Owner, Records, Settle
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.outage import OutageLog
from redis_stream_client._redis.placement import Placement, learn
from redis_stream_client._redis.server import ServerIdentity
from redis_stream_client._redis.wordings import RECORDS, Wording
from redis_stream_client._streams.settle_queue import A, Item, SettleQueue

SETTLE_WAIT = 0.2
"""Seconds for which the end of a lease waits for its record."""


class _Stranger:
    """Refuses a server once if it has a new history. Requests that wait for the connection were meant for the old
    history, and must be made again."""

    def __init__(self, identity: ServerIdentity) -> None:
        self._identity = identity
        self._known: str | None = None

    async def __call__(self, connection: AbstractConnection, timeout: float) -> None:
        await self._identity(connection, timeout)
        before, self._known = self._known, self._identity.history or self._known
        if before not in (None, self._known):
            raise Unanswered("another server is responsible now, or it has lost writes", maybe_executed=False)


class RecordStore:
    """The records on all servers, over one connection for each, opened when needed."""

    def __init__(
        self,
        keys: Keys,
        consumer: str,
        placement: Placement,
        spawn: Spawn,
        gone: Callable[[], ClientClosed],
        patience: float,
        greeting: Callable[[Endpoint], ServerIdentity],
        *,
        log: Log,
        outage_at: Callable[[Wording, Endpoint], OutageLog],
        lookups: OutageLog,
        longest_patience: float = 0.0,
    ) -> None:
        self._log = log
        self._outage_at = outage_at
        self._lookups = lookups
        self._keys = keys
        self._consumer = consumer
        self._placement = placement
        self._spawn = spawn
        self._gone = gone
        self._patience = patience
        self._longest_patience = longest_patience
        self._greeting = greeting
        self._connections: dict[Endpoint, SharedConnection] = {}
        self._records: dict[Endpoint, Records] = {}
        self._queues: list[SettleQueue[Any]] = []
        self._settle_queue = self.queue(Records.settle, self._settled)

    def known(self, stream: str) -> Records | None:
        """The records of the server that holds this stream; None if not known."""
        endpoint = self._placement.endpoint(stream)
        if endpoint is None:
            return None
        records = self._records.get(endpoint)
        if records is None:
            connection = self._connections[endpoint] = SharedConnection(
                endpoint,
                greet=_Stranger(self._greeting(endpoint)),
                longest_patience=self._longest_patience,
                role="records",
            )
            records = self._records[endpoint] = Records(
                connection,
                self._placement.slot,
                self._spawn,
                self._gone,
                self._patience,
                log=self._log,
                outage=self._outage_at(RECORDS, endpoint),
            )
        return records

    async def records(self, stream: str, timeout: float) -> Records:
        """The records of the server that holds this stream, looked up if not known. Raises `Unanswered`."""
        records = self.known(stream)
        if records is None:
            await self._learn(max(timeout, self._longest_patience))
            records = self.known(stream)
            if records is None:
                raise Unanswered(f"no server holds {stream!r} now", maybe_executed=False)
        return records

    async def _learn_again(self) -> None:
        await self._learn(max(self._patience, self._longest_patience))

    async def _learn(self, timeout: float) -> None:
        await learn(self._placement, timeout, self._lookups)
        for endpoint in [endpoint for endpoint in self._records if not self._placement.current(endpoint)]:
            gone = self._records.pop(endpoint)
            del self._connections[endpoint]
            for queue in self._queues:
                queue.leave(gone)
            with contextlib.suppress(ClientClosed):
                self._spawn(gone.close())

    def queue(
        self,
        say: Callable[[Records, list[A], float], Awaitable[Sequence[object]]],
        heard: Callable[[A, object], None],
    ) -> SettleQueue[A]:
        """A queue of updates for these records; see `SettleQueue`."""
        queue = SettleQueue(say, heard, self.known, self._learn_again, self.moved, self._spawn, self._log)
        self._queues.append(queue)
        return queue

    async def together(self, records: Sequence[str]) -> Records | None:
        """The records of the server that holds all of these; None if not known, or if one call may not use all."""
        if not records or len({self._placement.slot(record) for record in records}) > 1:
            return None
        try:
            return await self.records(records[0], self._patience)
        except (Unanswered, RedisRejected):
            return None

    async def settle(
        self,
        leases: Iterable[LeaseState],
        lifetime: float,
        *,
        idle: bool = False,
        untried: Collection[LeaseState] = (),
    ) -> None:
        """Store that these leases have ended cleanly, so that their attempts do not count. Never fails.

        Waits at most `SETTLE_WAIT`. Requests without an answer are repeated in the background until Redis answers
        or the client ends.

        Args:
            leases: the leases; one that has not begun has no record.
            lifetime: seconds for which their records stay; 0: as long as the next owner needs them.
            idle: they go on, and have nothing left to do.
            untried: those for which the deaths of owners before them still count.
        """
        await self._settle_queue.settle(self._items(leases, lifetime, idle=idle, untried=untried), SETTLE_WAIT)

    async def settle_at_last(self, leases: Iterable[LeaseState]) -> None:
        """The client leaves: `settle` these leases, and all that were not answered before. The caller limits the
        time."""
        await self._settle_queue.last(self._items(leases, 0, ended=True))

    @property
    def unsettled(self) -> int:
        """How many records still have to be settled."""
        return sum(map(len, self._queues))

    @property
    def shrunk(self) -> int:
        """How often a request about records got no answer and was repeated for less."""
        return sum(queue.shrunk for queue in self._queues) + sum(
            records.shrunk for records in self._records.values()
        )

    def _items(
        self,
        leases: Iterable[LeaseState],
        lifetime: float,
        *,
        ended: bool = False,
        idle: bool = False,
        untried: Collection[LeaseState] = (),
    ) -> list[Item[Settle]]:
        return [
            Item(
                lease.stream,
                Settle(
                    self._keys.progress(lease.stream),
                    Owner(lease.fence_text, self._consumer),
                    lifetime,
                    (ended or lease.lost is not None) and lease.all_checkpointed,
                    idle,
                    lease in untried,
                ),
            )
            for lease in leases
            if lease.begun
        ]

    def renew(self, endpoint: Endpoint | None = None) -> None:
        """Reopen the connections to one server, or to all: another server may be behind them now."""
        reason = Unanswered("another server is responsible now, or it has lost writes", maybe_executed=True)
        for place, connection in self._connections.items():
            if endpoint is None or place is endpoint:
                connection.drop(reason)

    def moved(self) -> None:
        """Note that records have moved to another server."""
        self._placement.forget()

    async def close(self) -> None:
        """Close the connections."""
        for records in self._records.values():
            await records.close()

    def _settled(self, ask: Settle, result: object) -> None:
        if isinstance(result, Exception):  # it will never be accepted
            self._log.debug("%s is not settled: %s", ask.record, result)
