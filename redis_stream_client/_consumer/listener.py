"""The listener: learns from Redis that locks are gone, and from peers their hints. It only makes recovery
faster."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._consumer.orders import Orders
from redis_stream_client._consumer.peers import Peers
from redis_stream_client._consumer.presence_state import PresenceState
from redis_stream_client._consumer.sweep_schedule import SweepSchedule
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.events import ExpiredStream
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import Options
from redis_stream_client._ownership.audit_schedule import AuditSchedule
from redis_stream_client._ownership.last_signs import LastSigns
from redis_stream_client._protocol import notifications
from redis_stream_client._protocol.hints import (
    AboutConsumer,
    Claimed,
    Dead,
    Deposed,
    Draining,
    Give,
    Hint,
    Joined,
    Left,
    Ordered,
    Present,
    Recovered,
    Released,
    Taken,
    Wants,
)
from redis_stream_client._protocol.notifications import KeyspaceEvents, LockGone, missing_flags
from redis_stream_client._redis import error_mapping, wire
from redis_stream_client._redis.connection import Greeting
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.opener import Opener
from redis_stream_client._redis.outage import OutageLog

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection


class Listener:
    """Subscribes to the keyspace events of the locks and to the control channel."""

    def __init__(
        self,
        *,
        log: Log,
        options: Options,
        endpoint: Endpoint,
        greet: Greeting,
        keyspace_events: KeyspaceEvents,
        outage: OutageLog,
        lock_state: LockState,
        event_queue: EventQueue,
        peers: Peers,
        sweeps: SweepSchedule,
        presence_state: PresenceState,
        orders: Orders,
        audits: AuditSchedule,
        table: LeaseTable,
        last_signs: LastSigns | None = None,
    ) -> None:
        self._log = log
        self._last_signs = last_signs
        self._options = options
        self._greet = greet
        self._keys = options.keys
        self._endpoint = endpoint
        self._opener = Opener(endpoint, "listener", options.pace, options.connect_timeout)
        self._keyspace_events = keyspace_events
        self._lock_state = lock_state
        self._event_queue = event_queue
        self._peers = peers
        self._sweeps = sweeps
        self._presence_state = presence_state
        self._orders = orders
        self._audits = audits
        self._table = table
        presence_state.blind.add(self.move)
        self._outage = outage
        self._warned = False
        self._connection: AbstractConnection | None = None
        self._first_try = asyncio.Event()
        self.gaps = 0

    async def run(self) -> None:
        """Until cancelled. Raises `RedisRejected` when subscribing is not permitted."""
        backoff = Backoff(0.01, max(0.1, self._options.pace / 2))
        while True:
            started = clock.now()
            try:
                await self._listen_once()
            except Unanswered as error:
                self._outage.failed(error)
            finally:
                self._first_try.set()
            self.gaps += 1
            if clock.now() - started > self._options.pace:
                backoff.reset()
            await asyncio.sleep(backoff.pause())

    async def tried_to_subscribe(self) -> None:
        """Wait until the first attempt to subscribe has succeeded or failed."""
        await self._first_try.wait()

    def move(self) -> None:
        """Subscribe again, because another server is responsible: each node announces only its own events."""
        if self._connection is not None:
            wire.abort(self._connection)

    def inherited(self) -> None:
        """Called on the copy in a forked child: the peers must see when the parent dies."""
        if self._connection is not None:
            wire.disown(self._connection)

    async def _listen_once(self) -> None:
        began = clock.now()
        connection = self._connection = await self._opener.open()
        try:
            # Events come only from the server to which the commands go.
            await self._greet(connection, self._opener.seconds)
            await self._subscribe(connection, began)
            await self._enable_notifications()
            self._outage.answered()
            self._sweeps.sweep_now()
            self._first_try.set()
            quiet = self._options.pace
            while True:
                message = await wire.next_message(connection, quiet, max(quiet / 2, self._opener.took))
                self._hear(notifications.decode(message, self._keys, self._endpoint.db))
        except (RedisError, OSError, TimeoutError) as error:
            raise error_mapping.map_error(error) from error
        finally:
            self._connection = None
            self._presence_state.heard_unsubscribed()
            wire.abort(connection)

    async def _subscribe(self, connection: "AbstractConnection", began: float) -> None:
        present = self._options.consumer if self._presence_state.wanted else None
        accepted = await notifications.subscribe(
            connection, self._keys, self._endpoint.db, self._opener.seconds, present=present
        )
        if accepted:
            self._presence_state.heard_subscribed(clock.now() - began)
        elif present is not None:
            self._presence_state.impossible("Redis does not permit the subscription")

    def _hear(self, heard: Hint | LockGone | None) -> None:
        match heard:
            case LockGone(self._options.consumer):
                self._lock_state.doubt()
            case LockGone(owner, expired):
                if self._last_signs is not None and expired:
                    self._last_signs.lock_expired(owner)
                self._sweeps.suspect(owner)
                self._peers.died()
            case Released():
                self._sweeps.suspect(NOBODY)
            case Wants(consumer, streams):
                self._sweeps.shared_anew.add(NOBODY)  # what peers give away now is for those that have too few
                self._peers.wants.notify(consumer, streams)
            case Give(self._options.consumer, lbs_id, deliveries):
                self._orders.give.notify(lbs_id, deliveries)
            case Ordered():
                self._orders.heard()
            case Taken(self._options.consumer, lbs_ids):
                self._leave_to_others(lbs_ids)
                self._audits.request()
            case Claimed(lbs_ids):
                for lbs_id in lbs_ids:
                    self._event_queue.withdraw(lbs_id)  # if the hint is wrong, the next look offers it again
            case (
                Joined(consumer)
                | Draining(consumer)
                | Left(consumer)
                | Dead(consumer)
                | Deposed(consumer)
                | Recovered(consumer)
                | Present(consumer)
            ):
                if consumer != self._options.consumer:
                    self._hear_of_peer(heard)
                elif isinstance(heard, Dead):
                    self._lock_state.doubt()  # a peer has taken us for dead, or an operator has evicted us

    def _leave_to_others(self, lbs_ids: Iterable[str]) -> None:
        """An operator has taken these away from us, or so it seems: peers shall have them."""
        for lbs_id in lbs_ids:
            lease = self._table.get(lbs_id)
            if lease is not None:
                orphan = ExpiredStream(lease.stream, lbs_id, lease.info, None, lease.deliveries)
                self._event_queue.hold_back(orphan, clock.now() + self._options.pace)

    def _hear_of_peer(self, heard: AboutConsumer) -> None:
        match heard:
            case Joined():
                self._peers.joined()
            case Draining(peer):
                self._peers.departs(peer)
            case Left(peer):
                if self._last_signs is not None:
                    self._last_signs.left(peer)
                self._sweeps.suspect(peer)
                self._peers.left(peer)
            case Deposed(peer):
                if self._last_signs is not None:
                    self._last_signs.deposed(peer)
            case Dead(peer):
                self._sweeps.suspect(peer)
                if peer != NOBODY:
                    self._peers.died()
            case Recovered():
                self._peers.recovered.notify()
            case Present():
                self._presence_state.heard_of_other()

    async def _enable_notifications(self) -> None:
        """Add the missing flags of ``Kx`` to those of the server; never remove one."""
        timeout = self._options.pace
        what = "cannot see or set notify-keyspace-events, which should contain 'Kx'"
        try:
            flags = await self._keyspace_events.flags(timeout)
            missing = missing_flags(flags)
            if missing:
                what = f"notify-keyspace-events is {flags!r}, lacks {missing!r}, and cannot be set"
                await self._keyspace_events.set_flags(flags + missing, timeout)
        except RedisRejected as error:
            if not self._warned:
                self._warned = True
                self._log.warning(
                    "%s: dead members are still found, but later; set it on the server, or permit CONFIG (%s)",
                    what,
                    error,
                    extra={"error": str(error)},
                )
        except (Unanswered, GroupMissing) as error:
            self._log.debug("could not look at notify-keyspace-events: %s", error)
