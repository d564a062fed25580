"""Retention: what becomes of data streams and of their progress records once the streams are done, and how streams
are trimmed while they are read.

All of this is done in the background, under the fence of the owner that asks, and repeated until Redis answers. No
lease waits for it. If the process dies before, the stream stays.
"""

from collections.abc import Collection, Iterable

from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import PROGRESS_TTL, Options
from redis_stream_client._protocol.progress_records import Owner, Records, Retain, Retained
from redis_stream_client._streams.record_store import RecordStore
from redis_stream_client._streams.settle_queue import Item

ASLEEP = 3600.0
"""Seconds for which the record of a stream that was put to sleep says so at least. A producer that saw our
announcement before, and was stopped for longer than that before it adds its entry, must live to announce it."""


class Retention:
    """Trims and deletes data streams, and deletes their records, for one client.

    Attributes:
        settled_for: seconds that the record of a stream stays from the moment before it is done. Not less than the
            default, because the stream may turn out not to be done, and its next owner needs the checkpoint then.
    """

    def __init__(self, *, log: Log, options: Options, record_store: RecordStore) -> None:
        self._log = log
        self._keys = options.keys
        self._consumer = options.consumer
        self._progress_ttl = options.progress_ttl
        self.settled_for = max(options.progress_ttl, PROGRESS_TTL)
        self._queue = record_store.queue(Records.retain, self._heard)
        self._failed = 0

    @property
    def left(self) -> int:
        """How many streams wait for it."""
        return len(self._queue)

    async def done(self, leases: Iterable[LeaseState], asleep: Collection[LeaseState] = ()) -> None:
        """Their announcements were acknowledged: do to the streams what `run()` was told. Waits for nothing.
        `asleep`: those that were put to sleep."""
        asks = [self._at_the_end(lease, asleep=lease in asleep) for lease in leases]
        await self._queue.settle([Item(ask.stream, ask) for ask in asks if ask is not None], 0.0)

    async def trim(self, leases: Iterable[LeaseState]) -> None:
        """Trim the streams of these leases up to their checkpoints. Waits for nothing."""
        asks = [self._ask(lease) for lease in leases]
        await self._queue.settle([Item(ask.stream, ask) for ask in asks], 0.0)

    async def last(self) -> None:
        """Do what is left, because the client is leaving. The caller bounds the time."""
        await self._queue.last(())

    def _at_the_end(self, lease: LeaseState, *, asleep: bool) -> Retain | None:
        ask = self._ask(lease)
        if lease.on_done == "delete":
            upto, lifetime = lease.reached, ASLEEP if asleep else None
            return ask._replace(what="delete", upto=upto, added=lease.added_up_to(upto), lifetime=lifetime)
        if not lease.begun:  # it has no record, and no checkpoint
            return None
        if lease.on_done == "trim":
            return ask  # the record stays: it tells the next owner that nothing is missing
        if self._progress_ttl < self.settled_for:
            return ask._replace(what="keep", lifetime=max(self._progress_ttl, ASLEEP if asleep else 0.0))
        return None

    def _ask(self, lease: LeaseState) -> Retain:
        owner = Owner(lease.fence_text, self._consumer)
        return Retain(self._keys.progress(lease.stream), owner, lease.stream, "trim")

    def _heard(self, ask: Retain, result: object) -> None:
        match result:
            case Retained("newer") if ask.lifetime is not None:
                self._log.debug(
                    "%s slept, and an entry has woken it: it is trimmed, and not deleted",
                    ask.stream,
                    extra={"stream": ask.stream},
                )
            case Retained("newer"):
                self._log.warning(
                    "%s is done and was not deleted: entries came after the last one that its handler got. Those "
                    "before them are trimmed",
                    ask.stream,
                    extra={"stream": ask.stream},
                )
            case Retained("other"):
                self._log.warning(
                    "%s is done and was not deleted: Redis has lost writes since its handler read it",
                    ask.stream,
                    extra={"stream": ask.stream},
                )
            case Exception():
                self._failed += 1
                if self._failed & (self._failed - 1) == 0:  # 1, 2, 4, 8, …
                    self._log.warning(
                        "%s could not be trimmed or deleted (%d failures so far): %s",
                        ask.stream,
                        self._failed,
                        result,
                        extra={"stream": ask.stream},
                    )
            case _:
                self._log.debug("%s: %s, %s", ask.stream, ask.what, result, extra={"stream": ask.stream})
