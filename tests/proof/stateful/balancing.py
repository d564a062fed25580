"""A fleet in `run()` whose streams move to members that have fewer, while anything happens to it.

Streams whose name begins with `pinned` are pinned by their handlers. What was added to each stream is known, and
who was handed what, under which fence. So a stream that moves is seen to go on exactly where it was.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import redis

from redis_stream_client import Rebalance
from redis_stream_client._model.entry import order
from redis_stream_client._ownership.shares import Load, fair_shares, threshold
from tests.harness.runs import END
from tests.harness.waiting import wait_until
from tests.proof.stateful.machine import BUSY
from tests.proof.stateful.members import LOCK_TTL, MOST, Member, MembersFleet

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis_stream_client import Entry, Lease
    from tests.harness.servers import Server

SETTLE = 0.1
SHARED, PINNED = "shared", "pinned"
SCRIPTS = ("begin", "checkpoint", "settle", "release", "claim", "claim_many", "share")
WANTS = "wants "
"""How the hint begins by which a member asks."""
ASKED = 2.0
"""Seconds that a script waits until somebody asks or gives. It may be that nobody does: the fleet is even."""
ON_AGAIN = 2 * LOCK_TTL + BUSY
"""Seconds within which all streams go on at the end: a take-over, and what a busy machine adds."""
HEALED = 20.0
"""Seconds within which the fleet is even then, and again until all is finished. Each takes one or two."""
STILL = 0.4
"""Seconds for which nothing moves in a fleet that is even."""


class BalancedMember(Member):
    """A member, and what it can bear.

    Args:
        weight: how much of the work it takes.
        rebalance: whether it asks and gives.
        limit: the most streams that it takes.

    Attributes:
        disturbed: something befell it for which others may have had to take its streams over, or to guess how far
            it got.
    """

    def __init__(
        self,
        name: str,
        network: Any,
        server: Server,
        handler: Any,
        weight: float,
        rebalance: bool,
        limit: int | None,
    ) -> None:
        self.weight = weight
        self.rebalance = rebalance
        self.limit = limit
        self.disturbed = False
        super().__init__(
            name,
            network,
            server,
            handler,
            {"weight": weight, "max_streams": limit},
            rebalance=Rebalance(SETTLE) if rebalance else None,
            drain_timeout=5.0,
        )

    def __repr__(self) -> str:
        return f"{self.name}{'' if self.ended_well else ', in trouble'}"

    @property
    def ended_well(self) -> bool:
        """Whether all that it gave up so far it gave up in good order."""
        return not self.disturbed and not self.client.statistics().lapses

    @property
    def load(self) -> Load:
        """What it can bear, as the rule of shares has it; it owns nothing."""
        return Load(0, self.weight, self.limit)

    def movable(self) -> bool:
        """Whether it would give a stream away."""
        return self.rebalance and any(lease.stream.startswith(SHARED) for lease in self.held())

    def held(self) -> list[Lease]:
        """The leases that it holds."""
        return self.loop.run(self._held())

    async def _held(self) -> list[Lease]:
        return list(self.client.leases.values())

    def why_lost(self, lease: Lease) -> str | None:
        """Why a lease was lost; None if it is not lost for good."""
        return self.loop.run(_reason(lease))


async def _reason(lease: Lease) -> str | None:
    try:
        async with asyncio.timeout(0.02):
            return await lease.lost()
    except TimeoutError:
        return None


class BalancingFleet(MembersFleet):
    """Members A, B, C … with and without rebalancing, of several weights, and what is done to them."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, SCRIPTS)
        self.balanced: dict[str, BalancedMember] = {}
        self.holding = False
        """Whether handlers come to no checkpoint now."""
        self.added: defaultdict[str, list[str]] = defaultdict(list)
        """The entries of each stream."""
        self.handed: defaultdict[str, dict[str, list[tuple[str, int]]]] = defaultdict(dict)
        """Who was handed which entry of which stream, and under which delivery count."""
        self.broken: list[str] = []
        """What handlers have seen that must not be."""
        self.suspicions: list[tuple[str, int, list[list[BalancedMember]]]] = []
        """What must not be, unless so many of these owners were in trouble. Each is one of several members."""
        self.happened: Counter[str] = Counter()
        """How often somebody asked, or died while it gave: what a script was written for."""
        self._mutex = threading.Lock()
        self._looked_at: set[Lease] = set()
        self._moved = (0, time.monotonic())
        """How many streams had moved, and since when."""

    def _choices(self, name: str) -> list[dict[str, Any]]:
        match name:
            case "join":
                return [{}] if len(self.alive) < MOST else []
            case "giver_dies" | "taker_ends":
                return [{}] if 0 < len(self.alive) < MOST else []
            case "forge":
                return [{"member": name} for name in [*self.alive, "stranger"]]
            case "stall" | "end" | "cut" | "lose" | "deafen":
                return [{"member": name} for name in self.alive]
            case _:
                return [{}]

    # What handlers do.

    async def _follow(self, name: str, lease: Lease) -> None:
        """Checkpoint entry after entry."""
        with self._mutex:
            self._see_attempts(lease)
        if lease.stream.startswith(PINNED):
            lease.pin()
        async for entry in lease.entries():
            with self._mutex:
                self._see_entry(name, lease, entry)
            if self.holding:
                await wait_until(lambda: not self.holding, "handlers may go on", 2 * HEALED)
            await lease.checkpoint(entry.id)
            with self._mutex:
                self.accepted[lease.stream].append((lease.fence, entry.id))
            if END in entry.fields:
                return

    def _see_attempts(self, lease: Lease) -> None:
        """A stream that was given away was not tried."""
        everybody = list(self.balanced.values())
        earlier = [
            [member]
            for member in everybody
            for before in list(member.leases)
            if before.stream == lease.stream and before.deliveries < lease.deliveries
        ]
        unknown = lease.deliveries - 1 - len(earlier)  # owners that have called no handler
        what = f"{lease} begins with {lease.attempts} attempts"
        self.suspicions.append((what, lease.attempts - 1, [*earlier, *[everybody] * unknown]))

    def _see_entry(self, name: str, lease: Lease, entry: Entry) -> None:
        """No entry is handed over twice, unless its owner was in trouble, and none is left out."""
        stream, count, id = lease.stream, lease.deliveries, entry.id
        earlier = self.handed[stream].setdefault(id, [])
        by = {accepted: fence.deliveries for fence, accepted in self.accepted[stream]}.get(id)
        if by is not None and by <= count:
            self.broken.append(f"{lease} is handed {id}, which was accepted from {by} already")
        if any(before == count for _, before in earlier):
            self.broken.append(f"{lease} is handed {id} twice")
        owners = [[self.balanced[other]] for other, before in earlier if before < count]
        self.suspicions.append((f"{lease} of {name} is handed {id}, after {earlier}", len(owners), owners))
        earlier.append((name, count))
        left_out = [
            before
            for before in self.added[stream]
            if order(before) < order(id) and before not in self.handed[stream]
        ]
        if left_out:
            self.broken.append(f"{lease} of {name} is handed {id}, and nobody was handed {left_out}")

    def _confirmed(self) -> list[str]:
        """The suspicions that the trouble of earlier owners does not explain. Whoever was knows it by now."""
        return [
            f"{what}, of {owners}"
            for what, troubles, owners in self.suspicions
            if sum(any(not one.ended_well for one in owner) for owner in owners) < troubles
        ]

    @property
    def moved(self) -> int:
        """How many streams were given away."""
        return sum(member.client.statistics().streams_given for member in self.balanced.values())

    # Steps: a fleet at work.

    def begin(self, members: int, streams: int, pinned: int = 0, weight: float = 1.0) -> None:
        """So many members, and these streams, shared out among them."""
        for _ in range(members):
            self.join(weight=weight)
        self.announce(SHARED, streams)
        self.announce(PINNED, pinned)
        self._until(lambda: not self._unowned(), HEALED)

    def join(self, weight: float = 1.0, rebalance: bool = True, limit: int | None = None) -> None:
        """One more member."""
        name = next(self._names)
        handler = partial(self._follow, name)
        member = BalancedMember(name, self._network, self._server, handler, weight, rebalance, limit)
        self.members[name] = self.balanced[name] = member

    def _add_entry(self, stream: str, field: bytes | str = "n") -> str:
        id = super()._add_entry(stream, field)
        self.added[stream].append(id)
        return id

    def write(self) -> None:
        """An entry for each stream."""
        for stream in self.streams:
            self._add_entry(stream)

    def hold(self, holding: bool) -> None:
        """From now on handlers come to no checkpoint, or do so again."""
        self.holding = holding

    # Steps: what happens to it.

    def end(self, member: str, in_good_order: bool) -> None:
        """A member leaves, or dies."""
        if self.holding or not in_good_order:  # its handlers are cut off
            self.balanced[member].disturbed = True
        self.holding = self.holding and not in_good_order
        super().end(member, in_good_order)

    def stall(self, member: str, past_its_lock: bool) -> None:
        """Its event loop stands still for a while."""
        self.balanced[member].disturbed |= past_its_lock
        super().stall(member, past_its_lock)

    def cut(self, member: str) -> None:
        """Its connections are reset."""
        self.balanced[member].disturbed = True
        super().cut(member)

    def lose(self, member: str, what: str, to: str) -> None:
        """The next such request of it, or the reply to it, is lost, and a connection with it."""
        self.balanced[member].disturbed = True
        super().lose(member, what, to)

    def deafen(self, member: str) -> None:
        """It does not hear any more that others ask."""
        self.balanced[member].deafen(WANTS)

    def forge(self, member: str, streams: int, times: int) -> None:
        """Somebody asks so often in the name of a member."""
        known = self.members.get(member)
        for _ in range(times):
            self._redis.publish(self._keys.control, f"{WANTS}{known.client.id if known else member} {streams}")

    def forge_in_vain(self, member: str, streams: int, times: int) -> None:
        """The same in a fleet that is even: nothing moves."""
        assert self._until(lambda: not self._uneven() and self._is_still(), HEALED), f"uneven: {self._uneven()}"
        moved = self.moved
        self.forge(member, streams, times)
        self._until(lambda: self.moved > moved, 2 * STILL)
        assert self.moved == moved, f"{self.moved - moved} streams were given to {member}, which has its share"

    def giver_dies(self, when: str) -> None:
        """Somebody joins, and asks. The first that gives dies: before its handler comes to a checkpoint, before it
        releases the stream, or before it hears that this is done."""
        self._until(lambda: not self._unowned(), ASKED)
        giving = [member for name in self.alive if (member := self.balanced[name]).rebalance]
        before = {member: member.client.statistics().streams_given for member in giving}
        losing = (
            {}
            if when == "at work"
            else {
                member: member.lose("request" if when == "releasing" else "reply", "release") for member in giving
            }
        )
        self.holding = when == "at work"
        self.write()
        self.join()

        def gives(member: BalancedMember) -> bool:
            if losing:
                return losing[member].matched > 0
            statistics = member.client.statistics()
            return statistics.streams_going > 0 or statistics.streams_given > before[member]

        self._until(lambda: any(map(gives, giving)), ASKED)
        dies = [member for member in giving if gives(member)]
        for fault in losing.values():
            fault.release()
        for member in dies:
            member.disturbed = True
        for member in dies[:1]:
            member.end(in_good_order=False)
            self.happened[f"a giver died {when}"] += 1
        self.holding = False

    def taker_ends(self, how: str) -> None:
        """Somebody joins, and asks. Then it drains, dies or is cut off, or dies when it takes the first stream.
        The others go on with all streams."""
        self._until(lambda: not self._unowned(), ASKED)
        others = [self.balanced[name] for name in self.alive]
        self.join()
        member = list(self.balanced.values())[-1]
        if how == "dies taking":
            taking = member.lose("request", "claim_many")
            self.happened[how] += self._until(lambda: taking.matched > 0, ASKED)
        else:
            asks = self._until(lambda: member.client.statistics().rebalance_asks > 0, ASKED)
            self.happened["asked"] += asks
        if how == "drains":
            self.end(member.name, in_good_order=True)
        elif how == "is cut off":
            self.cut(member.name)
        else:
            self.end(member.name, in_good_order=False)
        if not self.holding and any(other.limit is None for other in others):
            for other in others:
                other.heal()
            assert self._until(lambda: not self._unowned(), HEALED), f"still unowned: {self._unowned()}"

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for a condition, and look meanwhile. Returns whether it came true in time."""
        give_up = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > give_up:
                return False
            self.look()
            time.sleep(0.01)
        return True

    # What must be true.

    def look(self) -> None:
        """Nothing is owned twice, repeated or left out; what should stay stays; nobody has more than it may."""
        super().look()
        assert not self.broken, "; ".join(self.broken)
        for member in self.balanced.values():
            held = len(member.client.leases)
            assert member.limit is None or held <= member.limit, (
                f"{member.name} has {held} > {member.limit} streams"
            )
            said = member.client.statistics()
            assert member.rebalance or said.rebalance_asks == said.streams_given == 0, f"{member.name} takes part"
            if not (member.left or member.dead):
                for lease in list(member.leases):
                    if lease.stream.startswith(PINNED) or not member.rebalance:
                        self._see_that_it_stays(member, lease)

    def _see_that_it_stays(self, member: BalancedMember, lease: Lease) -> None:
        if not lease.owned and lease not in self._looked_at:
            why = member.why_lost(lease)
            assert why != "released", f"{member.name} has given away {lease}, which should stay"
            if why is not None:
                self._looked_at.add(lease)

    def _owned(self) -> Counter[str]:
        """How many streams each consumer owns, by Redis."""
        try:
            pending = self._redis.xpending_range(self._keys.lbs, self._keys.group, "-", "+", 1000)
        except redis.ResponseError:  # nobody has joined yet
            return Counter()
        return Counter(entry["consumer"].decode() for entry in pending)

    def _unowned(self) -> list[str]:
        """The consumers that are gone, and have streams; and what nobody has read."""
        owned = self._owned()
        alive = {self.members[name].client.id for name in self.alive}
        unread = self._redis.xlen(self._keys.lbs) - sum(owned.values())
        return [*(set(owned) - alive), *(["unread"] * unread)]

    def _uneven(self) -> list[str]:
        """Who has clearly fewer than its share, while another one has more, and may give some."""
        owned = self._owned()
        members = {self.members[name].client.id: self.balanced[name] for name in self.alive}
        loads = {id: member.load._replace(streams=owned[id]) for id, member in members.items()}
        fair = fair_shares(loads)
        giving = {
            id: owned[id] - fair[id] for id, member in members.items() if owned[id] > fair[id] and member.movable()
        }
        tall = any(more >= threshold(fair[id]) for id, more in giving.items())
        return [
            f"{members[id].name} has {owned[id]} of {fair[id]}, others {loads}"
            for id, share in fair.items()
            if giving and members[id].rebalance and share - owned[id] >= (1 if tall else threshold(share))
        ]

    def _is_still(self) -> bool:
        """Whether nothing has moved for a while."""
        now, moved = time.monotonic(), self.moved
        if moved != self._moved[0]:
            self._moved = moved, now
        return now - self._moved[1] >= STILL

    def _heal(self) -> None:
        """The end: all streams go on, the fleet is even, and nothing moves any more; then all is finished."""
        self.holding = False
        for member in self.members.values():
            member.heal()
        self.join()
        self.write()
        self._all_reach({stream: ids[-1] for stream, ids in self.added.items()}, ON_AGAIN)
        even = self._until(lambda: not self._unowned() and not self._uneven(), HEALED + BUSY)
        assert even, f"unowned: {self._unowned()}, uneven: {self._uneven()}"
        assert self._until(self._is_still, HEALED), f"{self.moved} streams have moved, and it goes on"
        self._finish(self.streams, time.monotonic() + HEALED)
        self.look()
        assert not (confirmed := self._confirmed()), confirmed
        failed = sum(member.client.statistics().handlers_failed for member in self.balanced.values())
        assert not failed, f"{failed} handlers have failed"
