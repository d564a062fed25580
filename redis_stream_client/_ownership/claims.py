"""Claims: take over one orphan by compare-and-set, repeat after a lost reply, and explain a refusal."""

import asyncio
import contextlib

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.owned_tasks import OwnedTasks
from redis_stream_client._concurrency.shared_lock import SharedLock
from redis_stream_client._leases.backend import LeaseBackend
from redis_stream_client._leases.event_queue import EventQueue, owner_of
from redis_stream_client._leases.events import ExpiredStream
from redis_stream_client._leases.lease import Lease
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model import announcement
from redis_stream_client._model.errors import AlreadyClaimed, ClientClosed, NotJoined, StreamGone, no_answer
from redis_stream_client._model.options import FIRST_PAUSE, Options
from redis_stream_client._model.statistics import Counters
from redis_stream_client._ownership.arrivals import Arrivals
from redis_stream_client._ownership.audit_schedule import AuditSchedule
from redis_stream_client._ownership.endings import Endings
from redis_stream_client._ownership.gains import Gains, Origin
from redis_stream_client._protocol.deliveries import Deliveries
from redis_stream_client._protocol.replies import Delivered, Refusal, Won
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered


class Claims:
    """The claims of one client. There is at most one at a time for each announcement."""

    def __init__(
        self,
        *,
        options: Options,
        deliveries: Deliveries,
        lock_state: LockState,
        event_queue: EventQueue,
        table: LeaseTable,
        audit_lock: SharedLock,
        audits: AuditSchedule,
        tasks: OwnedTasks[ClientClosed],
        counters: Counters,
        arrivals: Arrivals,
        endings: Endings,
        backend: LeaseBackend,
        gains: Gains,
        observation: Observation | None = None,
    ) -> None:
        self._consumer = options.consumer
        self._lock_ttl = options.lock_ttl
        self._patience = options.patience
        self._longest_pause = options.longest_pause
        self._deliveries = deliveries
        self._lock_state = lock_state
        self._event_queue = event_queue
        self._table = table
        self._audit_lock = audit_lock
        self._audits = audits
        self._tasks = tasks
        self._counters = counters
        self._arrivals = arrivals
        self._endings = endings
        self._backend = backend
        self._gains = gains
        self._observation = observation
        self._claiming: set[str] = set()

    async def claim(self, payload: ExpiredStream) -> Lease:
        """Take over an orphan. See `RedisStreamClient.claim`."""
        self._lock_state.check()
        if not self._lock_state.alive:  # in doubt, Redis decides: a claim checks that our lock exists
            raise self._not_joined(payload)
        if payload.lbs_id in self._claiming:
            raise self._already(payload, self._consumer, "another task of this client is claiming it")
        self._claiming.add(payload.lbs_id)
        task = self._tasks.spawn(self._claim_while_marked(payload))
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.add_done_callback(self._give_back)
            raise
        if task.cancelled():
            raise self._tasks.gone()
        return task.result()  # type: ignore[no-any-return]

    async def _claim_while_marked(self, payload: ExpiredStream) -> Lease:
        try:
            await asyncio.sleep(max(0.0, self._lock_state.quiet_until - clock.now()))
            async with self._audit_lock.passing():
                return await self._claim(payload)
        except (AlreadyClaimed, StreamGone) as refused:
            self._counters.claims_lost += 1
            if self._observation is not None:
                self._observation.claim_lost(payload.stream, payload.lbs_id, refused.owner)
            self._event_queue.withdraw(payload.lbs_id)
            raise
        finally:
            self._claiming.discard(payload.lbs_id)

    async def _claim(self, payload: ExpiredStream) -> Lease:
        epoch = self._lock_state.epoch
        owner = owner_of(payload)
        sent = False
        give_up = clock.now() + self._lock_ttl  # as long as our own lock, and any belief in it, can last
        backoff = Backoff(FIRST_PAUSE, self._longest_pause)
        while True:
            held = self._lock_state.believed(epoch)
            if (not held and sent) or clock.now() >= give_up:
                raise no_answer("claim", **_about(payload))
            if not held:
                raise self._not_joined(payload)
            try:
                reply = await self._deliveries.claim(payload.lbs_id, owner, self._patience)
            except Unanswered as error:
                if error.maybe_executed:
                    sent = True
                    self._audits.request()
                await asyncio.sleep(backoff.pause())
                continue
            except GroupMissing:
                self._lock_state.lapse("missing")
                raise StreamGone(f"{payload.stream!r} is gone", **_about(payload)) from None
            if not self._lock_state.believed(epoch):
                self._audits.request()
                raise self._not_joined(payload)
            match reply:
                case Won(deliveries, fields, idle_ms):
                    return await self._won(payload, owner, Delivered(payload.lbs_id, deliveries, fields, idle_ms))
                case Refusal("gone"):
                    raise StreamGone(f"{payload.stream!r} is gone", **_about(payload))
                case Refusal("alive", owner=current):
                    raise self._already(payload, current, "its owner is alive")
                case Refusal("lapsed"):
                    self._lock_state.lapse("missing")
                    raise self._not_joined(payload)
                case Refusal("owner", owner=current, deliveries=count):
                    if current == self._consumer:
                        return await self._mine_already(payload, count, epoch)
                    owner = current

    async def _mine_already(self, payload: ExpiredStream, count: int, epoch: int) -> Lease:
        """The announcement is pending for us: by our own claim whose reply was lost, or because a delivery was
        lost.

        We cannot tell which, and a lease with this count may have existed and been lost. So we adopt it, with a
        new fence.
        """
        if self._table.get(payload.lbs_id) is not None:
            raise self._already(payload, self._consumer, "this client has it")
        try:
            adopted = await self._deliveries.adopt([(payload.lbs_id, count)], self._patience)
        except (Unanswered, GroupMissing):
            self._audits.request()
            raise no_answer("claim", **_about(payload)) from None
        if adopted is None or not self._lock_state.believed(epoch):
            self._audits.request()
            raise self._not_joined(payload)
        if not adopted.entries:
            raise StreamGone(f"{payload.stream!r} is gone", **_about(payload))
        return await self._won(payload, owner_of(payload), adopted.entries[0])

    async def _won(self, payload: ExpiredStream, owner: str, won: Delivered) -> Lease:
        """Make the lease from the offer. An announcement never changes. `owner`: whose it was."""
        entry = await self._arrivals.lifted(won)
        if entry is None:
            raise no_answer("claim", **_about(payload))
        announced = announcement.Announcement(payload.stream, payload.info)
        origin = Origin("claimed", owner)
        state = LeaseState(
            payload.lbs_id,
            announced,
            entry.deliveries,
            unrecorded=origin.died,
            consumer=self._consumer,
            lived_since=self._table.lived_since(payload.lbs_id),
            given_back=origin.given_back,
        )
        state.face = lease = Lease(state, self._backend)
        self._claimed(state)
        self._gains.gained(state, origin, entry)
        return lease

    def _claimed(self, lease: LeaseState) -> None:
        """The caller has the lease from now on. If it is lost before the caller wakes, there is an event."""
        lease.handed_out = True
        self._event_queue.withdraw(lease.lbs_id)
        self._table.add(lease)
        self._counters.claims_won += 1

    def _give_back(self, task: "asyncio.Task[Lease]") -> None:
        """Release the lease, because the caller of `claim` is gone."""
        if not task.cancelled() and task.exception() is None:
            lease = task.result()
            self._event_queue.forget(lease)
            state = self._table.state_of(lease)
            if state is not None:
                state.handed_out = False
                with contextlib.suppress(ClientClosed):  # closing releases it, too
                    self._endings.start_release(state)

    def _not_joined(self, payload: ExpiredStream) -> NotJoined:
        return NotJoined(
            "this client's own lock is not held",
            hint="rejoining is under way; claim again",
            **_about(payload),
        )

    def _already(self, payload: ExpiredStream, owner: str, why: str) -> AlreadyClaimed:
        return AlreadyClaimed(f"{payload.stream!r} is owned by {owner}: {why}", owner=owner, **_about(payload))


def _about(payload: ExpiredStream) -> dict[str, str]:
    """The attributes of every error about an orphan."""
    return {"stream": payload.stream, "lbs_id": payload.lbs_id}
