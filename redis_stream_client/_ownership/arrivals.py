"""Arrivals: turns delivered entries into leases, whether they are new, found by an audit, or taken over."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._leases.backend import LeaseBackend
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.lease import Lease
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model import announcement
from redis_stream_client._model.announcement import Malformed
from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import Options
from redis_stream_client._model.statistics import Counters
from redis_stream_client._ownership.audit_schedule import AuditSchedule
from redis_stream_client._ownership.gains import ANNOUNCED, FOUND, Gains, Origin
from redis_stream_client._protocol.base import PAGE
from redis_stream_client._protocol.deliveries import Deliveries
from redis_stream_client._protocol.replies import Delivered
from redis_stream_client._redis.error_mapping import GroupMissing, KeyRejected, Unanswered


class Arrivals:
    """Puts delivered entries into the lease table and into the event queue."""

    def __init__(
        self,
        *,
        log: Log,
        options: Options,
        deliveries: Deliveries,
        lock_state: LockState,
        event_queue: EventQueue,
        table: LeaseTable,
        audits: AuditSchedule,
        capacity: Capacity,
        counters: Counters,
        backend: LeaseBackend,
        gains: Gains,
        observation: Observation | None = None,
    ) -> None:
        self._log = log
        self._consumer = options.consumer
        self._patience = options.patience
        self._deliveries = deliveries
        self._lock_state = lock_state
        self._event_queue = event_queue
        self._table = table
        self._audits = audits
        self._capacity = capacity
        self._counters = counters
        self._backend = backend
        self._gains = gains
        self._observation = observation

    async def receive(self, entries: Iterable[Delivered], origin: Origin = ANNOUNCED) -> int:
        """Make leases of entries that were delivered, adopted, or claimed. Returns the number of leases."""
        leases = 0
        malformed: list[tuple[Delivered, str]] = []
        for entry in await self._all_lifted(list(entries)):
            try:
                announced = announcement.decode(entry.fields)
            except Malformed as error:
                malformed.append((entry, str(error)))
                continue
            lease = LeaseState(
                entry.lbs_id,
                announced,
                entry.deliveries,
                unrecorded=origin.died,
                consumer=self._consumer,
                lived_since=self._table.lived_since(entry.lbs_id),
                given_back=origin.given_back,
            )
            lease.face = Lease(lease, self._backend)
            self._table.add(lease)
            self._event_queue.added(lease)
            leases += 1
            self._gains.gained(lease, origin, entry)
        for some in in_chunks(malformed):  # together, so that the reader does not wait for long
            await gather(*(self.bury_malformed(*one) for one in some), name="redis_stream_client burying")
        return leases

    async def _all_lifted(self, entries: list[Delivered]) -> list[Delivered]:
        """`lifted` for many entries at the same time: after a loss of writes it may be all of them."""
        handed_out = self._table.handed_out
        found: dict[str, Delivered | None] = {}
        for some in in_chunks([entry for entry in entries if entry.deliveries <= handed_out(entry.lbs_id)]):
            lifted = await gather(*map(self.lifted, some), name="redis_stream_client lifting")
            found.update(zip((entry.lbs_id for entry in some), lifted, strict=True))
        return [entry for before in entries if (entry := found.get(before.lbs_id, before)) is not None]

    async def lifted(self, entry: Delivered) -> Delivered | None:
        """The entry with a greater fence than every lease of it that was handed out here.

        A failover may make Redis forget earlier owners and count from the start. None: the entry is no longer
        ours, or we do not know; then the next audit finds it.
        """
        epoch, handed_out = self._lock_state.epoch, self._table.handed_out(entry.lbs_id)
        if entry.deliveries > handed_out:
            return entry
        try:
            outcome = await self._deliveries.lift(entry.lbs_id, entry.deliveries, handed_out + 1, self._patience)
        except (Unanswered, GroupMissing) as error:
            self._log.debug("could not lift %s yet: %s", entry.lbs_id, error)
            outcome = ""
        if outcome == "lifted" and self._lock_state.believed(epoch):
            return replace(entry, deliveries=handed_out + 1)
        self._audits.request()
        return None

    async def put_back(self, entries: Iterable[Delivered]) -> None:
        """Release entries for which there is no room any more. A peer takes them, or we do later."""
        given_back = [(entry.lbs_id, entry.deliveries) for entry in entries]
        try:
            await self._deliveries.release(given_back, self._patience)
        except Unanswered:
            self._audits.request()
            raise

    async def adopt(self, unknown: Sequence[tuple[str, int]], epoch: int) -> None:
        """Make leases of entries that are pending for us without one. Release those for which there is no room."""
        room = min(len(unknown), self._capacity.free)
        start = 0
        while start < room:
            page = unknown[start : min(room, start + PAGE)]
            adopted = await self._deliveries.adopt(page, self._patience)
            if adopted is None:
                self._lock_state.lapse("missing")
            if adopted is None or not self._lock_state.believed(epoch):
                return
            added = await self.receive(adopted.entries, FOUND)
            self._counters.streams_added += added
            start += len(page) - adopted.left
        for start in range(room, len(unknown), PAGE):
            await self._deliveries.release(unknown[start : start + PAGE], self._patience)

    async def bury_malformed(self, entry: Delivered, reason: str) -> None:
        """Move a malformed announcement to the dead letters. If that fails, it stays pending for us, and
        the next audit tries again."""
        try:
            outcome = await self._deliveries.bury(entry.lbs_id, entry.deliveries, reason, self._patience)
        except (Unanswered, GroupMissing, KeyRejected) as error:
            self._log.warning("could not bury %s yet: %s", entry.lbs_id, error, extra={"lbs_id": entry.lbs_id})
            return
        if outcome == "buried":
            self._counters.dead_letters += 1
            if self._observation is not None:
                self._observation.buried(entry.lbs_id, "malformed")
            self._log.error(
                "malformed announcement %s moved to the dead letters: %s",
                entry.lbs_id,
                reason,
                extra={"lbs_id": entry.lbs_id},
            )
