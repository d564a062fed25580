"""The parts of one joined client. Only this module knows all of them."""

from collections.abc import Callable

from redis_stream_client._concurrency.home import Home
from redis_stream_client._concurrency.owned_tasks import OwnedTasks
from redis_stream_client._concurrency.shared_lock import SharedLock
from redis_stream_client._consumer.absences import PERIOD
from redis_stream_client._consumer.audit import Auditor
from redis_stream_client._consumer.balancer import Balancer
from redis_stream_client._consumer.connections import Connections
from redis_stream_client._consumer.heartbeat import Heartbeat, LockRenewal
from redis_stream_client._consumer.listener import Listener
from redis_stream_client._consumer.oldest_announcement import OldestAnnouncement
from redis_stream_client._consumer.orders import PAUSE, Orders
from redis_stream_client._consumer.peers import Peers
from redis_stream_client._consumer.presence import Presence
from redis_stream_client._consumer.presence_state import LEAST_GRACE, PresenceState
from redis_stream_client._consumer.reader import Reader
from redis_stream_client._consumer.report import Report
from redis_stream_client._consumer.roll_call import RollCall
from redis_stream_client._consumer.session import Session
from redis_stream_client._consumer.stale_announcements import StaleAnnouncements
from redis_stream_client._consumer.sweep_schedule import SweepSchedule
from redis_stream_client._consumer.sweeper import Sweeper
from redis_stream_client._consumer.wanted_streams import WantedStreams
from redis_stream_client._consumer.watcher import Watcher
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.errors import ClientClosed, RedisRejected, RedisStreamClientError
from redis_stream_client._model.logs import Log
from redis_stream_client._model.observer import Membership, SafeObserver
from redis_stream_client._model.options import MAX_OFFER_PAUSE, Options
from redis_stream_client._model.statistics import Counters, Statistics
from redis_stream_client._ownership.arrivals import Arrivals
from redis_stream_client._ownership.audit_schedule import AuditSchedule
from redis_stream_client._ownership.checkpoints import Progress
from redis_stream_client._ownership.claims import Claims
from redis_stream_client._ownership.endings import Endings
from redis_stream_client._ownership.gains import Gains
from redis_stream_client._ownership.last_signs import LastSigns
from redis_stream_client._ownership.losses import Losses
from redis_stream_client._ownership.redis_backend import RedisBackend
from redis_stream_client._ownership.retry import Retries
from redis_stream_client._ownership.sleeping import Sleeping
from redis_stream_client._ownership.takeover import Takeover
from redis_stream_client._protocol.announcements import Announcements
from redis_stream_client._protocol.base import PAGE, ReplySizes
from redis_stream_client._protocol.deliveries import Deliveries
from redis_stream_client._protocol.group import Group
from redis_stream_client._protocol.hints import Hints
from redis_stream_client._protocol.lock import Lock
from redis_stream_client._protocol.notifications import KeyspaceEvents
from redis_stream_client._protocol.pending import Pending
from redis_stream_client._protocol.presence import PresenceScripts
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.outage import FAILURES, OutageLog, Outages
from redis_stream_client._redis.placement import Placement
from redis_stream_client._redis.wordings import (
    ANNOUNCEMENTS,
    LOCK,
    OPERATIONS,
    PRESENCE,
    REBALANCING,
    REDIS,
    SERVERS,
    SUBSCRIPTION,
    SWEEPS,
    Wording,
)
from redis_stream_client._streams.fetcher import Fetcher
from redis_stream_client._streams.record_store import RecordStore
from redis_stream_client._streams.retention import Retention

FORKED = (
    "this client joined in process {process}, before the fork: its connections, its lock "
    "and its streams are that process's; make a new RedisStreamClient in this one"
)

OTHER_LOOP = (
    "this client joined on another event loop: use it there (asyncio.run_coroutine_threadsafe() does "
    "that from another thread), or make a new RedisStreamClient for this one"
)

LEAST = 1.0
"""Seconds for which a server must have failed to do one thing, though it answers beats, before the log says so."""


class Parts:
    """Makes the parts in the order in which they need each other, and gives each what it needs, by name.

    A part knows only parts that were made before it. Information in the other direction goes through state that
    one part writes and another waits for. No part gets this object; only code that starts, ends or uses a client
    does.
    """

    def __init__(
        self,
        options: Options,
        where: Endpoint,
        where_streams_are: Placement,
        statistics: Callable[[], Statistics],
    ) -> None:
        self.options = options
        self.log = log = Log(service=options.keys.service, consumer=options.consumer)
        self.home = Home(forked=FORKED, other_loop=OTHER_LOOP)
        self.tasks = OwnedTasks(self.home, closed=_closed, expected=_expected)
        self.connections = Connections(
            where,
            options.connect_timeout,
            self.tasks,
            log=log,
            longest_patience=options.longest_patience,
            longest_beat=options.heartbeat_interval,
        )
        self.observer = SafeObserver(options.observer, log) if options.observer is not None else None
        self.observation: Observation | None = None
        self.last_signs: LastSigns | None = None
        if self.observer is not None:
            self.observation = Observation(self.observer, options.consumer)
            self.last_signs = LastSigns(options.lock_ttl, LEAST_GRACE + PERIOD / 2)
        self.outages = Outages(log, self.observer)
        self._where = where
        self._outage = self.outages.of_server(REDIS, where)
        self._make_stubs(where.db)
        self._make_state()
        self._make_stream_access(where_streams_are)
        self._make_ownership()
        renewal = self._make_heartbeat()
        self._make_reader()
        self._make_recovery(renewal)
        self._connect_anew_together()
        self._make_session(statistics)

    def _at(self, wording: Wording, endpoint: Endpoint) -> OutageLog:
        """The log of what a server does not do. What the outage of our own explains does not count."""
        if endpoint is self._where:
            return self._here(wording)
        return self.outages.of_server(wording, endpoint, least=LEAST)

    def _here(self, wording: Wording, *, failures: int = FAILURES) -> OutageLog:
        """The log of what the server of the load balancer stream does not do, though it answers beats."""
        return self.outages.of_server(wording, self._where, within=self._outage, failures=failures, least=LEAST)

    def _make_stubs(self, db: int) -> None:
        """Make the stubs for the load balancer stream. No I/O."""
        options = self.options
        beats, commands = self.connections.beats, self.connections.commands
        self.sizes = ReplySizes(options.patience, self.log)
        self.lock = Lock(options, beats=beats, commands=commands)
        self.deliveries = Deliveries(options, commands=commands, sizes=self.sizes)
        self.announcements = Announcements(
            options,
            reads=self.connections.reads,
            beats=beats,
            deliveries=self.deliveries,
            sizes=self.sizes,
        )
        self.pending = Pending(options, commands=commands, sizes=self.sizes)
        self.group = Group(options, commands=commands)
        self.hints = Hints(options.keys, commands=commands)
        self.keyspace_events = KeyspaceEvents(commands=commands)
        self.presence_scripts = PresenceScripts(options, db=db, beats=beats)

    def _make_state(self) -> None:
        """Make the state: the leases, the lock, and what the parts tell each other. No I/O."""
        options = self.options
        self.counters = Counters()
        self.event_queue = EventQueue(options.pace, MAX_OFFER_PAUSE)
        self.table = LeaseTable(self.event_queue, self.observation)
        self.capacity = Capacity(
            self.table,
            self.event_queue,
            max_streams=options.max_streams,
            prefetch=options.prefetch,
            at_once=PAGE,
        )
        self.lapse = self.outages.watch(LOCK, lambda: {"streams": len(self.table)}, within=self._outage, each=True)
        self.losses = Losses(
            log=self.log,
            lapse=self.lapse,
            table=self.table,
            capacity=self.capacity,
            counters=self.counters,
            observation=self.observation,
        )
        self.lock_state = LockState(options.lock_ttl, options.heartbeat_interval, self.losses.lapsed)
        self.audit_lock = SharedLock()
        self.audits = AuditSchedule(options.pace, late=options.block + 1.0)
        self.sweeps = SweepSchedule(options.pace)
        self.peers = Peers(options.weight)
        self.orders = Orders(self.log, self.outages.watch(PAUSE, each=True), options.pace / 2)
        if (observation := self.observation) is not None:
            self.orders.changed.add(lambda: observation.pause_is(self.orders.pause))
        self.presence_state = PresenceState(options.lock_ttl, wanted=options.presence)
        self.oldest_announcement = OldestAnnouncement()

    def _make_stream_access(self, placement: Placement) -> None:
        """Make the parts for data streams and their progress records."""
        options = self.options
        lookups = self.outages.watch(SERVERS, within=self._outage, least=LEAST)
        self.record_store = RecordStore(
            options.keys,
            options.consumer,
            placement,
            self.tasks.spawn,
            self.tasks.gone,
            options.patience,
            self.connections.identity_at,
            log=self.log,
            outage_at=self._at,
            lookups=lookups,
            longest_patience=options.longest_patience,
        )
        self.retention = Retention(log=self.log, options=options, record_store=self.record_store)
        self.fetcher = Fetcher(
            placement,
            options.pace,
            self.tasks.spawn,
            self.tasks.gone,
            log=self.log,
            outage_at=self._at,
            lookups=lookups,
            patience=options.longest_patience,
            lock=options.keys.lock(options.consumer),
            renewed=self.connections.met,
        )

    def _make_ownership(self) -> None:
        """Make the parts that change the owner of a stream."""
        retries = Retries(
            options=self.options,
            outage=self._here(OPERATIONS),
            lock_state=self.lock_state,
            audits=self.audits,
        )
        self.progress = Progress(
            log=self.log,
            options=self.options,
            pending=self.pending,
            deliveries=self.deliveries,
            lock_state=self.lock_state,
            table=self.table,
            audit_lock=self.audit_lock,
            tasks=self.tasks,
            losses=self.losses,
            retries=retries,
            record_store=self.record_store,
            fetcher=self.fetcher,
            observation=self.observation,
        )
        self.endings = Endings(
            options=self.options,
            lock=self.lock,
            deliveries=self.deliveries,
            identity=self.connections.identity,
            lock_state=self.lock_state,
            event_queue=self.event_queue,
            table=self.table,
            audit_lock=self.audit_lock,
            capacity=self.capacity,
            losses=self.losses,
            retries=retries,
            tasks=self.tasks,
            counters=self.counters,
            record_store=self.record_store,
            retention=self.retention,
        )
        self.sleeping = Sleeping(
            log=self.log,
            consumer=self.options.consumer,
            deliveries=self.deliveries,
            lock_state=self.lock_state,
            table=self.table,
            losses=self.losses,
            retries=retries,
            tasks=self.tasks,
            progress=self.progress,
            endings=self.endings,
        )
        self.backend = RedisBackend(
            log=self.log,
            lock_state=self.lock_state,
            capacity=self.capacity,
            home=self.home,
            tasks=self.tasks,
            counters=self.counters,
            progress=self.progress,
            endings=self.endings,
            sleeping=self.sleeping,
            observation=self.observation,
        )
        gains = Gains(log=self.log, observation=self.observation, last_signs=self.last_signs)
        self.arrivals = Arrivals(
            log=self.log,
            options=self.options,
            deliveries=self.deliveries,
            lock_state=self.lock_state,
            event_queue=self.event_queue,
            table=self.table,
            audits=self.audits,
            capacity=self.capacity,
            counters=self.counters,
            backend=self.backend,
            gains=gains,
            observation=self.observation,
        )
        self.claims = Claims(
            options=self.options,
            deliveries=self.deliveries,
            lock_state=self.lock_state,
            event_queue=self.event_queue,
            table=self.table,
            audit_lock=self.audit_lock,
            audits=self.audits,
            tasks=self.tasks,
            counters=self.counters,
            arrivals=self.arrivals,
            endings=self.endings,
            backend=self.backend,
            gains=gains,
            observation=self.observation,
        )
        self.takeover = Takeover(
            options=self.options,
            deliveries=self.deliveries,
            lock_state=self.lock_state,
            event_queue=self.event_queue,
            table=self.table,
            audit_lock=self.audit_lock,
            audits=self.audits,
            capacity=self.capacity,
            counters=self.counters,
            arrivals=self.arrivals,
            gains=gains,
        )

    def _make_heartbeat(self) -> LockRenewal:
        """Make the parts that keep the lock."""
        renewal = LockRenewal(
            lock=self.lock,
            lock_state=self.lock_state,
            orders=self.orders,
            outage=self._outage,
            counters=self.counters,
            patience=self.options.beat_patience,
        )
        self.heartbeat = Heartbeat(
            log=self.log,
            lapse=self.lapse,
            options=self.options,
            lock=self.lock,
            pending=self.pending,
            announcements=self.announcements,
            renewal=renewal,
            lock_state=self.lock_state,
            orders=self.orders,
            table=self.table,
            outage=self._outage,
            audits=self.audits,
            sweeps=self.sweeps,
            losses=self.losses,
        )
        return renewal

    def _make_reader(self) -> None:
        """Make the reader, which takes new streams, and the audit."""
        auditor = Auditor(
            log=self.log,
            options=self.options,
            pending=self.pending,
            deliveries=self.deliveries,
            group=self.group,
            identity=self.connections.identity,
            lock_state=self.lock_state,
            table=self.table,
            audit_lock=self.audit_lock,
            audits=self.audits,
            oldest_announcement=self.oldest_announcement,
            counters=self.counters,
            losses=self.losses,
            arrivals=self.arrivals,
        )
        self.reader = Reader(
            log=self.log,
            outage=self._here(ANNOUNCEMENTS),
            options=self.options,
            announcements=self.announcements,
            group=self.group,
            lock_state=self.lock_state,
            capacity=self.capacity,
            orders=self.orders,
            audits=self.audits,
            auditor=auditor,
            peers=self.peers,
            oldest_announcement=self.oldest_announcement,
            counters=self.counters,
            arrivals=self.arrivals,
        )

    def _make_recovery(self, renewal: LockRenewal) -> None:
        """Make the parts that find dead members, and prove to them that we live."""
        presence_outage = self._here(PRESENCE)
        self.presence = Presence(
            log=self.log,
            outage=presence_outage,
            options=self.options,
            scripts=self.presence_scripts,
            lock_state=self.lock_state,
            presence_state=self.presence_state,
        )
        self.watcher = Watcher(
            log=self.log,
            outage=presence_outage,
            options=self.options,
            scripts=self.presence_scripts,
            lock_state=self.lock_state,
            presence_state=self.presence_state,
        )
        roll_call = RollCall(options=self.options, group=self.group, peers=self.peers, last_signs=self.last_signs)
        self.sweeper = Sweeper(
            log=self.log,
            outage=self._here(SWEEPS),
            options=self.options,
            group=self.group,
            pending=self.pending,
            hints=self.hints,
            renewal=renewal,
            lock_state=self.lock_state,
            event_queue=self.event_queue,
            table=self.table,
            capacity=self.capacity,
            sweeps=self.sweeps,
            peers=self.peers,
            roll_call=roll_call,
            counters=self.counters,
            takeover=self.takeover,
            stale_announcements=StaleAnnouncements(log=self.log, options=self.options, group=self.group),
            last_signs=self.last_signs,
        )
        self.balancer = Balancer(
            log=self.log,
            outage=self._here(REBALANCING),
            options=self.options,
            group=self.group,
            hints=self.hints,
            lock_state=self.lock_state,
            capacity=self.capacity,
            orders=self.orders,
            peers=self.peers,
            roll_call=roll_call,
            counters=self.counters,
        )
        self.wanted_streams = WantedStreams(
            table=self.table,
            event_queue=self.event_queue,
            capacity=self.capacity,
            orders=self.orders,
            counters=self.counters,
        )
        self.listener = Listener(
            log=self.log,
            options=self.options,
            endpoint=self._where,
            greet=self.connections.identity,
            keyspace_events=self.keyspace_events,
            outage=self._here(SUBSCRIPTION, failures=5),
            lock_state=self.lock_state,
            event_queue=self.event_queue,
            peers=self.peers,
            sweeps=self.sweeps,
            last_signs=self.last_signs,
            presence_state=self.presence_state,
            orders=self.orders,
            audits=self.audits,
            table=self.table,
        )

    def _connect_anew_together(self) -> None:
        """If one connection finds that its server has changed, or has lost writes, all connections to it
        reconnect."""
        connections, record_store, fetcher = self.connections, self.record_store, self.fetcher
        connections.lost.add(self.audits.request)
        connections.lost.add(self.lock_state.doubt)  # our lock may be gone, too
        connections.moved.add(self.listener.move)
        connections.new_history.add(lambda endpoint, history: record_store.renew())
        connections.new_history.add(fetcher.met)
        connections.moved.add(lambda: fetcher.renew())
        connections.new_history_elsewhere.add(lambda endpoint, history: record_store.renew(endpoint))
        connections.new_history_elsewhere.add(fetcher.met)
        connections.new_history_elsewhere.add(lambda endpoint, history: fetcher.renew(endpoint))

    def _make_session(self, statistics: Callable[[], Statistics]) -> None:
        """Make the session, which starts and ends the tasks, and the report for users."""
        options = self.options
        self.session = Session(
            log=self.log,
            outages=self.outages,
            options=options,
            observer=self.observer,
            membership=None
            if self.observer is None
            else Membership(options.consumer, options.keys.service, statistics),
            home=self.home,
            tasks=self.tasks,
            connections=self.connections,
            lock=self.lock,
            lock_state=self.lock_state,
            event_queue=self.event_queue,
            table=self.table,
            record_store=self.record_store,
            retention=self.retention,
            fetcher=self.fetcher,
            heartbeat=self.heartbeat,
            reader=self.reader,
            listener=self.listener,
            sweeper=self.sweeper,
            balancer=self.balancer,
            presence=self.presence,
            watcher=self.watcher,
        )
        self.report = Report(
            options=self.options,
            connections=self.connections,
            sizes=self.sizes,
            lock_state=self.lock_state,
            event_queue=self.event_queue,
            table=self.table,
            capacity=self.capacity,
            orders=self.orders,
            peers=self.peers,
            oldest_announcement=self.oldest_announcement,
            counters=self.counters,
            record_store=self.record_store,
            fetcher=self.fetcher,
            listener=self.listener,
            presence_state=self.presence_state,
        )


def _closed() -> ClientClosed:
    return ClientClosed("the client is closed")


def _expected(error: BaseException) -> bool:
    """Whether an error concerns only those who wait for the operation. A refusal of Redis ends the client."""
    return isinstance(error, RedisStreamClientError) and not isinstance(error, RedisRejected)
