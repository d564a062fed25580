"""The sweeper: finds dead consumers by looking, and offers their streams. Recovery relies on it alone.

Whether or not a notification came, one member of the fleet looks at all consumers of the group several times in
each lock lifetime, or each `Options.pace`, which is shorter where locks live long. The members do so in turn. What
is pending for a dead consumer is always looked up in Redis, and never remembered.
"""

import asyncio
import random

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.chunks import in_chunks
from redis_stream_client._concurrency.tasks import gather
from redis_stream_client._concurrency.waiting import wait_for
from redis_stream_client._consumer.heartbeat import LockRenewal
from redis_stream_client._consumer.on_their_way import UNWILLING
from redis_stream_client._consumer.peers import Peers
from redis_stream_client._consumer.roll_call import RollCall
from redis_stream_client._consumer.stale_announcements import StaleAnnouncements
from redis_stream_client._consumer.sweep_schedule import SweepSchedule
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.events import ExpiredStream
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model import announcement
from redis_stream_client._model.announcement import Malformed
from redis_stream_client._model.keys import NOBODY
from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import Options
from redis_stream_client._model.statistics import Counters
from redis_stream_client._ownership.last_signs import LastSigns
from redis_stream_client._ownership.takeover import Takeover
from redis_stream_client._protocol.group import Group
from redis_stream_client._protocol.hints import Dead, Hints
from redis_stream_client._protocol.pending import Pending
from redis_stream_client._protocol.replies import Delivered, Member
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.outage import OutageLog

TURNS = 8  # sweeps of the fleet in one pace
OWN_PERIOD = 2  # paces between two sweeps that every client makes without the turn
LARGE = 16  # in a larger fleet each member sweeps for itself, and asks for the turn, more rarely, in proportion
MOST_RARELY = 2.3  # but at most so many times more rarely: about as often as it renews its lock
FORGET_AFTER = 10  # lifetimes of the lock, since a member that slept for long may still come back
RECHECK_DISTANCE = 50  # looks that only repeat offers take a fiftieth of the time
THOROUGH = 8  # one period in so many looks for entries that are pending for nobody, even if the census is even
WANTED = UNWILLING  # seconds after a member has asked in which what is released may be for it
REST = 1 / 4  # paces after which any member may take what is left of a dead consumer's streams


class Sweeper:
    """Looks for dead consumers, and offers or takes over their streams."""

    def __init__(
        self,
        *,
        log: Log,
        outage: OutageLog,
        options: Options,
        group: Group,
        pending: Pending,
        hints: Hints,
        renewal: LockRenewal,
        lock_state: LockState,
        event_queue: EventQueue,
        table: LeaseTable,
        capacity: Capacity,
        sweeps: SweepSchedule,
        peers: Peers,
        roll_call: RollCall,
        counters: Counters,
        takeover: Takeover,
        stale_announcements: StaleAnnouncements,
        last_signs: LastSigns | None = None,
    ) -> None:
        self._log = log
        self._outage = outage
        self._consumer = options.consumer
        self._keys = options.keys
        self._lock_ttl = options.lock_ttl
        self._pace = options.pace
        self._patience = options.patience
        self._group = group
        self._pending = pending
        self._hints = hints
        self._renewal = renewal
        self._lock_state = lock_state
        self._event_queue = event_queue
        self._table = table
        self._capacity = capacity
        self._sweeps = sweeps
        self._peers = peers
        self._roll_call = roll_call
        self._counters = counters
        self._takeover = takeover
        self._stale_announcements = stale_announcements
        self._last_signs = last_signs
        self._wake = asyncio.Event()
        self._turn_length = options.pace / TURNS
        now = clock.now()
        self._next_turn = now
        self._tidied_at = now
        self._began_at = now
        self._recount = True
        self._told_at: dict[str, float] = {}
        self._rest_at: dict[str, float] = {}  # dead owner: when any member may take the rest of its streams
        self._no_room_for: set[str] = set()  # dead owners of which we left streams for lack of room
        self._backoff = Backoff(0.005, self._turn_length)
        self._wanted_at = self._we_wanted_at = float("-inf")  # when a peer, or this member, asked for streams last
        self._left_until = float("inf")  # until when what is released is left to those that have asked
        peers.wants.add(self._somebody_wants)
        peers.changed.add(self._membership_changed)
        sweeps.changed.add(self._wake.set)
        capacity.changed.add(self._room_changed)
        lock_state.changed.add(self._wake.set)

    def _room_changed(self) -> None:
        """Look again at streams that were left for lack of room."""
        if self._no_room_for and self._capacity.free:
            for owner in self._no_room_for:
                self._sweeps.suspect(owner)
            self._no_room_for.clear()

    def _somebody_wants(self, consumer: str, streams: int) -> None:
        if consumer == self._consumer:
            self._we_wanted_at = clock.now()
        else:
            self._wanted_at = clock.now()

    def _membership_changed(self, drained: bool) -> None:
        self._wanted_at = float("-inf")  # nobody gives any more; what is released now is for everybody
        if drained:
            self._we_wanted_at = float("-inf")  # what that member releases it does not give

    # The task.

    async def run(self) -> None:
        """Until cancelled. Raises `RedisRejected` when Redis refuses for good."""
        while True:
            await self._sleep()
            if not self._lock_state.held or self._lock_state.quiet:
                continue
            try:
                await self._take_turn()
                await self._look_at_suspects()
                self._backoff.reset()
            except Unanswered as error:
                self._outage.failed(error)
                await asyncio.sleep(self._backoff.pause())
            except GroupMissing:
                self._lock_state.lapse("missing")
                await asyncio.sleep(self._backoff.pause())

    async def _sleep(self) -> None:
        """Sleep until the next sweep, or the next look at a suspect."""
        delay = min(self._next_turn, self._sweeps.next_look) - clock.now()
        if not self._lock_state.held or self._lock_state.quiet:
            delay = max(delay, self._turn_length / 2)
        await wait_for(self._wake, delay)
        self._wake.clear()

    async def _take_turn(self) -> None:
        now = clock.now()
        members = self._peers.live
        own_period = OWN_PERIOD * self._pace * max(1.0, members / LARGE)
        own_due = now - self._sweeps.swept_at >= own_period
        if now < self._next_turn and not own_due:
            return
        won = await self._renewal.beat(self._turn_length)
        if not self._lock_state.held:
            return
        # A member that has swept leaves the next turn to the others, unless it is overdue. In a large fleet
        # somebody always asks soon. Still, each asks so often that the last one left sweeps within a quarter of
        # the pace.
        rarely = min(MOST_RARELY, max(1.0, members / LARGE))
        self._next_turn = clock.now() + self._turn_length * (1.5 if won else random.uniform(0.7, 0.8) * rarely)
        if won or own_due:
            await self._sweep(tell=won)
        due, unread = self._event_queue.owners_to_recheck(clock.now())
        for owner in due:
            self._sweeps.suspect(owner, RECHECK_DISTANCE)
        for owner in unread:
            if self._sweeps.long_ago(owner):
                self._sweeps.suspect(owner, RECHECK_DISTANCE)

    async def _sweep(self, *, tell: bool) -> None:
        members = await self._group.members(self._patience)
        if all(member.name != self._consumer for member in members):
            self._lock_state.lapse("missing")  # the group was destroyed, or we were removed from it
            return
        others = [member for member in members if member.name not in (self._consumer, NOBODY)]
        tidy = self._sweeps.tidy_asked or clock.now() - self._tidied_at > self._tidy_period
        everybody = self._recount or tidy
        alive = await self._roll_call.alive([member.name for member in others if member.pending or everybody])
        if everybody:
            self._recount = False
            self._peers.counted([name for name, lives in alive.items() if lives])
            self._peers.looked_at.notify(members, alive)
        dead = [member.name for member in others if member.pending and not alive[member.name]]
        self._note_deaths(members, dead)
        dead += [member.name for member in members if member.name == NOBODY and member.pending]
        self._sweeps.swept_at = clock.now()
        self._counters.sweeps += 1
        self._outage.answered()
        to_tell: list[str] = []
        for owner in dead:
            if self._sweeps.long_ago(owner, RECHECK_DISTANCE):
                self._sweeps.suspect(owner)
            if tell and clock.now() - self._told_at.get(owner, float("-inf")) > self._pace:
                self._told_at[owner] = clock.now()
                to_tell.append(owner)
        for owners in in_chunks(to_tell):
            await gather(
                *(self._hints.tell(Dead(owner), self._patience) for owner in owners),
                name="redis_stream_client telling",
            )
        if tidy:
            await self._tidy(members, alive, mine=tell)

    def _note_deaths(self, members: list[Member], owners: list[str]) -> None:
        """Note for the observer since when these are dead, if we have not heard of it."""
        if self._last_signs is None:
            return
        for member in members:
            if member.name in owners and member.name != NOBODY:
                # Where Redis does not tell the two apart, only reads that gave something count.
                told = member.idle_ms != member.served_ms
                self._last_signs.found_dead(member.name, member.idle_ms / 1000 if told else None)

    @property
    def _tidy_period(self) -> float:
        return OWN_PERIOD * self._pace

    async def _tidy(self, members: list[Member], alive: dict[str, bool], *, mine: bool) -> None:
        """Forget consumers that are gone. The expensive part, to find long dead consumers and entries that are
        pending for nobody, is done by one member for the whole fleet, in turn like the sweeps."""
        group, patience = self._group, self._patience
        if self._sweeps.tidy_asked or (mine and await group.turn(self._keys.tidy, self._tidy_period, patience)):
            await self._forget(members, alive)
            census = await group.census(patience)
            if census.surplus > 0:
                await self._stale_announcements.forget()
            # A missing entry elsewhere can hide an extra one, and a long backlog hides everything.
            suspicious = census.balance is not None and census.balance > 0
            if suspicious:
                rescue = await group.turn(self._keys.rescue_now, self._pace, patience)
            else:
                period = THOROUGH * self._tidy_period
                been_here = clock.now() - self._began_at
                rescue = been_here > period and await group.turn(self._keys.rescue, period, patience)
            if rescue:
                await self._rescue()
        known = {member.name for member in members}
        self._sweeps.keep(known)
        self._told_at = {name: at for name, at in self._told_at.items() if name in known}
        self._rest_at = {name: at for name, at in self._rest_at.items() if name in known}
        self._peers.keep(known)
        if self._last_signs is not None:
            self._last_signs.keep(known)
        self._sweeps.tidy_asked = False
        self._tidied_at = clock.now()

    async def _forget(self, members: list[Member], alive: dict[str, bool]) -> None:
        long_dead = FORGET_AFTER * self._lock_ttl
        forgotten = [
            member.name
            for member in members
            if member.idle_ms >= 1000 * long_dead and not member.pending and not alive.get(member.name, True)
        ]
        for names in in_chunks(forgotten):  # together: after a night of restarts there are thousands
            await gather(
                *(self._group.forget(name, long_dead, self._patience) for name in names),
                name="redis_stream_client tidying",
            )

    async def _rescue(self) -> None:
        last: str | None = None
        while True:
            rescued, last = await self._group.rescue(last, self._patience)
            if rescued:
                self._log.warning(
                    "%d announcements were delivered and pending for nobody, as after XGROUP DELCONSUMER: "
                    "they are offered to all members again",
                    rescued,
                    extra={"streams": rescued},
                )
                self._sweeps.suspect(NOBODY)
            if last is None:
                return

    async def _look_at_suspects(self) -> None:
        members: list[Member] | None = None  # looked up once: after an outage hundreds may be dead
        for owner in self._sweeps.due():
            self._sweeps.look_begins(owner)
            began, brought = clock.now(), False
            try:
                if self._capacity.handled_at_once:
                    if self._leaves_to_others(owner):
                        continue
                    members = members or await self._group.members(self._patience)
                    self._note_deaths(members, [owner])
                    brought = await self._take(owner, members)
                else:
                    await self._look_at(owner)
            except Unanswered:
                self._sweeps.look_at(owner, clock.now())
                raise
            self._sweeps.look_ended(owner, began, brought=brought and self._for_us(owner))

    async def _look_at(self, owner: str) -> None:
        """Offer all streams of `owner`, if it is dead, and withdraw offers that no longer hold."""
        known = self._event_queue.offered(owner)
        present: list[str] = []
        last: str | None = None
        while True:
            page = await self._pending.orphans(owner, last, self._patience)
            if not self._lock_state.alive:  # in doubt, offers may go on: a claim is checked in Redis
                return
            present += [entry.lbs_id for entry in page.found]
            await self._offer(owner, page.found)
            last = page.last
            if last is None:
                break
        self._event_queue.withdraw_absent(owner, present, known)

    async def _take(self, owner: str, members: list[Member]) -> bool:
        """Take our share of the streams of `owner`, if it is dead; after a while, also what others have left.
        Returns whether this brought any."""
        now = clock.now()
        if owner in self._sweeps.shared_anew:
            self._sweeps.shared_anew.discard(owner)
            self._rest_at.pop(owner, None)
        asked = self._for_us(owner)
        rest_at = self._rest_at.setdefault(owner, now + self._pace * REST)
        if now < rest_at:
            taken, left = await self._takeover.take_share(owner, self._heirs(owner, members), asked=asked)
            again = rest_at
        else:
            taken, left = await self._takeover.take_rest(owner, self._part_of(owner, members), asked=asked)
            again = clock.now() + self._pace * REST / TURNS
        if left:
            if not self._capacity.free:
                self._no_room_for.add(owner)
            elif taken or now < rest_at:
                self._sweeps.look_at(owner, again)
        else:
            self._rest_at.pop(owner, None)
        return taken > 0

    def _leaves_to_others(self, owner: str) -> bool:
        """Whether this member puts a look off, since what members release is for a peer that asks. While hundreds
        are on their way there are many hints, and the looks of all members would hold up those that matter."""
        if owner != NOBODY:
            return False
        now = clock.now()
        if not self._for_others(owner) or now >= self._left_until:
            self._left_until = float("inf")
            return False
        self._left_until = min(self._left_until, now + self._pace * REST)
        self._sweeps.look_at(owner, self._left_until)
        return True

    def _for_others(self, owner: str) -> bool:
        """Whether a peer has asked for streams, and this member has not, so that what members release is for that
        one."""
        return owner == NOBODY and clock.now() - self._wanted_at < WANTED and not self._for_us(owner)

    def _for_us(self, owner: str) -> bool:
        """Whether this member has asked for streams, so that what members release is for it."""
        return owner == NOBODY and clock.now() - self._we_wanted_at < WANTED

    def _part_of(self, owner: str, members: list[Member]) -> int:
        """How many of its streams we may take, since peers have room, too."""
        pending = sum(member.pending for member in members if member.name == owner)
        return max(1, self._peers.share_of(pending))

    def _heirs(self, owner: str, members: list[Member]) -> list[str]:
        """The other consumers that may take a share."""
        names = (member.name for member in members)
        return self._peers.takers(names, without={self._consumer, owner, NOBODY})

    async def _offer(self, owner: str, orphans: list[Delivered]) -> None:
        """Offer orphans in an order of our own, so that peers that claim one by one rarely meet.

        What a member releases for one that asks is for that one: we leave it alone for a moment.
        """
        now = clock.now()
        wait = self._pace * REST if self._for_others(owner) else 0.0
        random.shuffle(orphans)
        for entry in orphans:
            if self._table.get(entry.lbs_id) is not None:
                continue  # taken by us since the page was listed
            try:
                announced = announcement.decode(entry.fields)
            except Malformed as error:
                await self._takeover.take_malformed(entry, owner, str(error))
                continue
            previous = None if owner == NOBODY else owner
            self._event_queue.offer(
                ExpiredStream(announced.stream, entry.lbs_id, announced.info, previous, entry.deliveries),
                now,
                wait=wait,
            )
