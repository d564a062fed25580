"""The report: whether anything is stuck, and the counts of the client."""

import heapq
import time
from collections.abc import Collection

from redis_stream_client._concurrency import clock
from redis_stream_client._consumer.connections import Connections
from redis_stream_client._consumer.listener import Listener
from redis_stream_client._consumer.oldest_announcement import OldestAnnouncement
from redis_stream_client._consumer.orders import Orders
from redis_stream_client._consumer.peers import Peers
from redis_stream_client._consumer.presence_state import PresenceState
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.health import Health, judge
from redis_stream_client._model.options import Options
from redis_stream_client._model.statistics import (
    MOST_FAILING,
    Counters,
    FailingStream,
    Outage,
    Presence,
    Statistics,
)
from redis_stream_client._protocol.base import ReplySizes
from redis_stream_client._streams.fetcher import Fetcher
from redis_stream_client._streams.record_store import RecordStore


class Report:
    """Collects what the parts of a client know. No I/O."""

    def __init__(
        self,
        *,
        options: Options,
        connections: Connections,
        sizes: ReplySizes,
        lock_state: LockState,
        event_queue: EventQueue,
        table: LeaseTable,
        capacity: Capacity,
        orders: Orders,
        peers: Peers,
        oldest_announcement: OldestAnnouncement,
        counters: Counters,
        record_store: RecordStore,
        fetcher: Fetcher,
        listener: Listener,
        presence_state: PresenceState,
    ) -> None:
        self._options = options
        self._connections = connections
        self._sizes = sizes
        self._lock_state = lock_state
        self._event_queue = event_queue
        self._table = table
        self._capacity = capacity
        self._orders = orders
        self._peers = peers
        self._oldest_announcement = oldest_announcement
        self._counters = counters
        self._record_store = record_store
        self._fetcher = fetcher
        self._listener = listener
        self._presence = presence_state

    def health(self, handled: Collection[LeaseState] | None, outage: Outage | None) -> Health:
        """The health of the client. `handled`: in `run()`, the leases whose handler was called."""
        now = clock.now()
        held = [
            lease
            for lease in self._table
            if not lease.handed_out or (handled is not None and lease not in handled)
        ]
        oldest = min(held, key=lambda lease: lease.progress_at, default=None)
        return judge(
            self._options,
            alive=self._lock_state.alive,
            announcement=self._oldest_announcement.age(now),
            full=not self._capacity.to_read,
            outage=outage is not None,
            paused=self._orders.pause,
            lease=(oldest.stream, now - oldest.progress_at) if oldest is not None else None,
            wakeup=self._fetcher.oldest_unread(now),
        )

    def _failing(self) -> tuple[FailingStream, ...]:
        """The streams that have been failing for longest."""
        failing = [(lease, trouble) for lease in self._table if (trouble := lease.trouble) and trouble.failures]
        now, unix = clock.now(), time.time()
        return tuple(
            FailingStream(lease.stream, trouble.failures, unix - (now - trouble.since), trouble.error)
            for lease, trouble in heapq.nsmallest(MOST_FAILING, failing, key=lambda each: each[1].since)
        )

    def statistics(self, health: Health, outage: Outage | None) -> Statistics:
        """The statistics of the client."""
        counters = self._counters
        beat_at = self._lock_state.beat_at
        return Statistics(
            leases=len(self._table),
            unread_events=self._event_queue.unread,
            last_beat_age=None if beat_at is None else clock.now() - beat_at,
            beats=counters.beats,
            lapses=self._lock_state.lapses,
            reconnects=self._connections.losses + self._listener.gaps,
            streams_added=counters.streams_added,
            claims_won=counters.claims_won,
            claims_lost=counters.claims_lost,
            streams_done=counters.streams_done,
            streams_slept=counters.streams_slept,
            streams_released=counters.streams_released,
            streams_disowned=counters.streams_disowned,
            handlers=counters.handlers,
            suspects=counters.suspects,
            handlers_failed=counters.handlers_failed,
            dead_letters=counters.dead_letters,
            audits=counters.audits,
            sweeps=counters.sweeps,
            rebalance_asks=counters.rebalance_asks,
            streams_received=counters.streams_received,
            streams_given=counters.streams_given,
            streams_going=counters.streams_going,
            gaps=counters.gaps,
            entries_skipped=counters.entries_skipped,
            live_members=self._peers.live,
            oldest_announcement=health.oldest_announcement,
            oldest_unhandled=health.oldest_unhandled,
            oldest_wakeup=health.oldest_wakeup,
            requests_shrunk=(self._sizes.shrunk + self._fetcher.requests_shrunk + self._record_store.shrunk),
            records_unsettled=self._record_store.unsettled,
            failing=self._failing(),
            outage=outage,
            paused=health.paused,
            presence=self._presence_now(),
        )

    def _presence_now(self) -> Presence:
        presence = self._presence
        return Presence(
            state=presence.standing,
            members=presence.members,
            watching=presence.watching,
            deposed=presence.deposed,
            withdrawals=presence.withdrawals,
        )
