"""The clients in the model: every step that one of them, the network, or time can take.

A request is sent, executed, and answered in three steps, and between them anything else may happen. What only
looks, and the beat, is executed in the step that sends it. `README.md` says why that is sound, and from which
module each step is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.proof.model import invariants, protocol
from tests.proof.model.mutations import BROKEN, SCRIPTS, Mutation
from tests.proof.model.presence import PresenceSteps
from tests.proof.model.protocol import (
    FIRST,
    NO_FENCE,
    NOBODY,
    TRIED,
    UNOWNED,
    Entry,
    Fence,
    Record,
    Redis,
    Reply,
    Tries,
    put,
)
from tests.proof.model.symmetry import Symmetry
from tests.proof.model.world import (
    ABSENT,
    ANSWERED,
    AUDITING,
    BELIEVED,
    CLOSED,
    COUNTED,
    FAULTS,
    GATED,
    HELD,
    LAST_WORDS,
    LATE,
    NONE,
    PARTING,
    SENT,
    SUSPECT,
    WAITING,
    Client,
    Lease,
    Op,
    World,
    client_of,
    give_up,
    instead,
    name,
    of_id,
    pay,
    say,
    start,
    update,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.proof.model.world import Bounds, Step


class Model:
    """The steps of a world within bounds, with one mutation or none."""

    stuck = ("G3", "a stream is never owned by a live client that knows it")

    def __init__(self, bounds: Bounds, mutation: Mutation | None = None) -> None:
        symmetry = Symmetry()
        self.canonical = symmetry.canonical
        self.alike = symmetry.alike
        self.settled = invariants.settled
        self.bounds = bounds
        self.mutation = mutation
        self._run: dict[str, Callable[..., tuple[Redis, Reply]]] = SCRIPTS | BROKEN.get(mutation, {})
        self._counts = bounds.counts or bounds.failure > 0
        self._ids = range(len(bounds.streams))
        self._spoiled = 1 if mutation is Mutation.DONE_AFTER_FAIL_OVER else 2
        self._presence = PresenceSteps(bounds, mutation, self._run, self._missing)

    def initial(self) -> World:
        """All but the joiners have joined; everything is announced."""
        b = self.bounds
        nothing = tuple(0 for _ in self._ids)
        client = Client(
            HELD, (NONE,) * len(nothing), nothing, nothing, lived_since=nothing, stood_still=nothing
        )  # fmt: skip
        members = b.consumers - b.joiners
        redis = protocol.new(len(nothing), b.consumers, max(b.streams) + 1)
        if b.nothing:
            redis = redis._replace(entries=(Entry(False),) * len(nothing), finished=((0, 1),) * len(nothing))
        redis = redis._replace(locks=tuple(i < members for i in range(b.consumers)))
        clients = (client,) * members + (client._replace(mode=ABSENT),) * b.joiners
        budget = (
            *(b.stall, b.loss, b.crash, b.leave, b.evict, b.fail_over, b.release, b.failure),
            *(b.cut, b.half, b.overdue, b.again),
        )
        return self._presence.initial(World(redis, clients, (), (), budget))

    def violated(self, w: World) -> tuple[str, ...]:
        """The guarantee that does not hold in this state, and why; empty when all is well."""
        return invariants.violated(self, w)

    def steps(self, w: World) -> Iterator[Step]:
        """All that can happen next."""
        for sort, label, after in self._steps(w):
            yield sort, label, self._executed(after) if self.bounds.prompt else after

    def _executed(self, w: World) -> World:
        for me, client in enumerate(w.clients, FIRST):
            if client.reader[1:2] == (SENT,) or any(op.phase == SENT for op in client.ops):
                _, _, w = next(self._executions(w, me, client))
                return self._executed(w)
        return self._presence.executed(w) if self.bounds.instant else w

    def _steps(self, w: World) -> Iterator[Step]:
        for me, client in enumerate(w.clients, FIRST):
            if client.mode != CLOSED:
                for sort, label, after in self._of(w, me, client):
                    yield sort, f"{name(me)}: {label}", after
            may_expire = client.mode != HELD or client.robbed
            if w.redis.locks[me - FIRST] and may_expire and not self._presence.kept(w, me):
                too_late = client.heart[:1] == ("look",)  # it must try again
                after = update(w, me, client._replace(heart=() if too_late else client.heart))
                redis = protocol.set_lock(w.redis, me, False)
                yield "run", f"Redis: the lock of {name(me)} expires", after._replace(redis=redis)
        for i, stray in enumerate(w.stray):
            me, kind, id, args = stray
            left = w._replace(stray=w.stray[:i] + w.stray[i + 1 :])
            yield "run", f"Redis: never gets the {kind} that {name(me)} gave up", left
            after, reply = self._execute(left, me, kind, id, args)
            yield "run", f"Redis: executes late the {kind}{of_id(id)} that {name(me)} gave up: {say(reply)}", after
        if w.redis.watch != UNOWNED and self.mutation is not Mutation.WATCHER_FOR_EVER:
            yield "run", "Redis: the watch expires", w._replace(redis=w.redis._replace(watch=UNOWNED))
        yield from self._fail_over(w)

    # One client.

    def _of(self, w: World, me: int, client: Client) -> Iterator[Step]:
        yield from self._faults(w, me, client)
        yield from self._executions(w, me, client)
        if client.mode == LATE:
            yield "run", "notices the deadline: silence", update(w, me, self._lapsed(client, ABSENT))
            stood = self._stood_still(client)
            yield "run", "notices the deadline: it stood still", update(w, me, self._lapsed(stood, SUSPECT))
            return
        if client.mode == SUSPECT:
            yield "run", "has doubted for too long", update(w, me, self._lapsed(client, ABSENT))
        yield from self._heart(w, me, client)
        yield from self._presence.steps(w, me, client)
        yield from self._reader(w, me, client)
        for op in client.ops:
            yield from self._op(w, me, client, op)
        if client.holds:
            yield from self._user(w, me, client)

    def _faults(self, w: World, me: int, client: Client) -> Iterator[Step]:
        if client.mode == HELD and (paid := pay(w, "stall")):
            yield "fault", "its deadline passes", update(paid, me, client._replace(mode=LATE))
        if client.mode == HELD and not client.robbed and (paid := pay(w, "evict")):
            yield (
                "fault",
                "its lock is evicted, or will go early",
                update(paid, me, client._replace(robbed=True)),
            )
        yield from self._presence.faults(w, me, client)
        if paid := pay(w, "crash"):
            yield "fault", "is killed", self._close(paid, me, client)
        if paid := pay(w, "leave"):
            after = self._close(paid, me, client)
            yield "fault", "leaves", give_up(after, me, "leave", -1, ())
        if not (paid := pay(w, "loss")):
            return
        if client.mode in (SUSPECT, ABSENT) and not client.heart:
            yield "fault", "gives up a join", give_up(paid, me, "join", -1, ())
        if client.reader[:2] in (("read", SENT), ("adopt", SENT), ("read", ANSWERED), ("adopt", ANSWERED)):
            kind, phase, _, args, _ = client.reader
            after = update(paid, me, client._replace(reader=()))
            after = give_up(after, me, kind, -1, args) if phase == SENT else after
            yield "fault", f"gives up the {kind}, {phase}", after
        for op in client.ops:
            if op.phase != WAITING:
                for label, after in self._unanswered(paid, me, client, op):
                    after = give_up(after, me, op.kind, op.id, op.args) if op.phase == SENT else after
                    yield "fault", f"gives up the {op.kind}{of_id(op.id)}, {op.phase}{label}", after

    def _close(self, w: World, me: int, client: Client) -> World:
        nothing = tuple(0 for _ in self._ids)
        closed = Client(CLOSED, (NONE,) * len(nothing), nothing, nothing)
        w = update(w, me, closed)._replace(redis=protocol.listen(w.redis, me, False))
        w = self._presence.closed(w, me, client)
        for op in client.ops:
            if op.phase == SENT:
                w = give_up(w, me, op.kind, op.id, op.args)
        if client.reader[:2] in (("read", SENT), ("adopt", SENT)):
            w = give_up(w, me, client.reader[0], -1, client.reader[3])
        return w

    def _unanswered(self, w: World, me: int, client: Client, op: Op) -> Iterator[tuple[str, World]]:
        """ownership.persist and claims._claim, after `Unanswered`."""
        ended = update(w, me, without(client, op))
        if op.kind == "claim":
            if op.ok and client.mode == HELD:
                yield (
                    ", and repeats it",
                    update(w, me, instead(client, op, op._replace(phase=SENT, reply=()))),
                )
            yield ", and tells the caller", ended
        elif op.kind in ("claim_many", "adopt"):
            yield "", ended
        else:
            client = instead(client, op, op._replace(phase=WAITING, reply=()))
            lease = client.table[op.id]
            if op.kind == "done" and not op.ok and lease.done_sent:  # the next connection is to another server
                client = client._replace(table=put(client.table, op.id, lease._replace(done_sent=self._spoiled)))
            yield "", update(w, me, client)

    # Redis executes what was sent.

    def _executions(self, w: World, me: int, client: Client) -> Iterator[Step]:
        match client.reader:
            case ("read" | "adopt" as kind, "sent", ok, args, _):
                after, reply = self._execute(w, me, kind, -1, args)
                reader = (kind, ANSWERED, ok, args, reply) if reply and ok else ()
                yield (
                    "run",
                    f"{kind} is executed: {say(reply)}",
                    update(after, me, client._replace(reader=reader)),
                )
            case _:
                pass
        for op in client.ops:
            if op.phase == SENT:
                after, reply = self._execute(w, me, op.kind, op.id, op.args)
                label = f"{op.kind}{of_id(op.id)} is executed: {say(reply)}"
                answered = op._replace(phase=ANSWERED, reply=reply)
                if reply == ("compared",):  # of two steps, the first
                    answered = op._replace(kind="set")
                elif op.kind in BELIEVED and (not op.ok or reply[:1] in ((), ("gone",), ("alive",))):
                    yield "run", label, update(after, me, without(client, op))
                    continue
                yield "run", label, update(after, me, instead(client, op, answered))

    def _execute(self, w: World, me: int, kind: str, id: int, args: tuple[Any, ...]) -> tuple[World, Reply]:
        """Run a script, and see whether it did what it must not."""
        redis, run, stream = w.redis, self._run, self.bounds.streams[id]
        broken: tuple[str, ...] = ()
        before = redis.entries[id]
        match kind:
            case "read" | "join" | "leave" | "withdraw":
                redis, reply = run[kind](redis, me)
            case "present":
                redis, reply = run[kind](redis, me, *args)
            case "adopt":
                redis, reply = run[kind](redis, me, args)
            case "claim":
                after, reply = run[kind](redis, me, args[0], id)
                if self.mutation is Mutation.CLAIM_IN_TWO_STEPS and reply[0] == "won":
                    reply = ("compared",)
                else:
                    redis = after
            case "set":
                redis, won = protocol.xclaim(redis, me, id)
                reply = ("won", before.deliveries + 1) if won else ("gone",)
            case "claim_many":
                redis, reply = run[kind](redis, me, args[0], len(self._ids))
            case "done" | "release":
                redis, reply = run[kind](redis, me, id, args[0])
                if reply == ("gone",) and kind == "done":
                    reply = ("gone", redis.finished[id] == (me, args[0]))
                if redis is not w.redis and (before.owner, before.deliveries) != (me, args[0]):
                    broken = ("G1", f"{kind} of a fence that is not the newest was accepted")
            case "begin":
                old = redis.records[stream]
                trial = args[3:] == ("suspect",)
                most = 0 if self._counts and not trial else None
                lived = (id, args[2]) if args[2] else NO_FENCE
                redis, reply = run[kind](redis, me, stream, (id, args[0]), False, 0, args[1], most, trial, lived)
                if args[2] and old.consumer == me and lived <= old.fence <= self._stood_with(w, me, id):
                    broken = ("G8", "an owner that stood still is not charged with it")
                newer = old.fence < (id, args[0]) or (old.fence, old.consumer) == ((id, args[0]), me)
                # What was read may have been true of what a fail-over has forgotten since.
                over = old.fence[0] > id and (not w.redis.entries[old.fence[0]].present or self._failed_over(w))
                if reply[0] == "begun" and not newer and not over:
                    broken = ("G1", "begin was accepted, though there is an owner as new or newer")
            case "fail":
                old = redis.records[stream]
                redis, reply = run[kind](redis, me, stream, (id, args[0]))
                if reply[0] == "failed" and (old.fence, old.consumer) != ((id, args[0]), me):
                    broken = ("G1", "a failure was accepted that is not of the newest owner")
            case "settle":
                redis, reply = run[kind](redis, me, stream, (id, args[0]), untried=self.bounds.untried)
            case "checkpoint":
                old = redis.records[stream]
                redis, reply = run[kind](redis, me, stream, (id, args[0]), args[1])
                if reply[0] == "advanced" and (old.fence, old.consumer) != ((id, args[0]), me):
                    broken = ("G1", "a checkpoint was accepted that is not of the newest owner")
                if redis.records[stream].checkpoint < old.checkpoint:
                    broken = ("G1", "a checkpoint went back")
            case "examine":
                redis, reply = self._examine(redis, me, id, args)
            case _:
                raise AssertionError(kind)
        if kind in COUNTED:
            redis, miscounted = self._count(w.redis, redis, kind, me, stream, (id, args[0]), args, reply)
            broken = broken or miscounted
        return w._replace(redis=redis, broken=w.broken or broken), reply

    def _count(
        self,
        before: Redis,
        redis: Redis,
        kind: str,
        me: int,
        stream: int,
        fence: Fence,
        args: tuple[Any, ...],
        reply: Reply,
    ) -> tuple[Redis, tuple[str, ...]]:
        """Which owners tried since the last progress, and whether the record says how many these are."""
        if not self._counts:
            record = Record(*redis.records[stream][:3])
            return protocol.set_record(redis, stream, record), ()
        old = before.records[stream]
        tries = before.tries[stream]
        newest = (old.fence, old.consumer) == (fence, me)
        accepted = kind == "begin" and reply[0] != "refused" and args[2]
        mourned = len(tries.others) > 1 and not old.began  # by a peer, which has begun nothing
        if accepted and not mourned and old.consumer == me and (fence[0], args[2]) <= old.fence < fence:
            tries = tries.without(old.fence)
        match kind, reply[0]:
            case "begin", "begun" if not newest:
                if old.fence[0] != fence[0]:
                    tries = Tries()
                trial = (fence,) if tries.others and redis.records[stream].began == TRIED else ()
                others = tuple(sorted((*tries.others, fence)))
                tries = tries._replace(others=others, tried=tuple(sorted((*tries.tried, *trial))))
            case "fail", _ if newest and fence in tries.others:
                tries = tries.without(fence)
                tries = tries._replace(failed=tuple(sorted((*tries.failed, fence))))
            case "settle", _ if newest and self.bounds.untried:
                tries = tries.without(fence)
            case "settle", _ if newest:
                tries = tries._replace(others=(), tried=())
            case "checkpoint", "advanced":
                tries = Tries()
            case _:
                pass
        redis = redis._replace(tries=put(redis.tries, stream, tries))
        record = redis.records[stream]
        known = record.trouble(record.fence[0]) or Record()
        found = [record.attempts, known.failures]
        truth = [len(tries.others), len(tries.failed)]
        if kind == "begin" and reply[0] == "begun" and not newest:  # who has ended before is known then
            found.append(known.trials)
            truth.append(len([other for other in tries.tried if other != fence]))
        if found == truth:
            return redis, ()
        why = f"after the {kind} the record counts {found} attempts, failures and trials; it is {truth}"
        return redis, ("G8", why)

    def _examine(self, redis: Redis, me: int, id: int, args: tuple[Any, ...]) -> tuple[Redis, Reply]:
        """progress._compare."""
        count, (stored, by) = args
        pending = protocol.xpending(redis, id)
        if not pending or (pending.owner, pending.deliveries) != (me, count):
            return redis, ("not mine",)
        if stored == NO_FENCE or stored < (id, count):
            return redis, ("begin", (NO_FENCE, UNOWNED))
        if stored[0] == id:
            redis, reply = self._run["lift"](redis, me, id, count, stored[1] + 1)
            return redis, ("lifted", stored[1] + 1) if reply == ("lifted",) else ("not mine",)
        if redis.entries[stored[0]].present:
            return self._run["done"](redis, me, id, count)[0], ("superseded",)
        return redis, ("begin", (stored, by))

    # The heartbeat (heartbeat.py, liveness.py).

    def _heart(self, w: World, me: int, client: Client) -> Iterator[Step]:
        looks_first = self.mutation is Mutation.RESUME_LOOKS_FIRST
        alive = protocol.exists(w.redis, me)
        match client.heart:
            case () if client.mode == HELD and self.mutation is Mutation.LATE_BEAT and alive:
                yield "run", "beats: renewed", update(w, me, client._replace(heart=("beat",)))
            case ("beat",):
                yield (
                    "run",
                    "gets the answer to its beat",
                    update(w, me, client._replace(mode=HELD, heart=())),
                )
            case () if client.mode == HELD and (client.robbed or self._presence.beats(w, client, alive)):
                beaten = update(w, me, self._presence.renewed(client)) if alive else self._missing(w, me)
                yield "run", f"beats: {'renewed' if alive else 'no lock'}", beaten
            case () if client.mode in (SUSPECT, ABSENT):
                after = client._replace(heart=("look", self._pending(w.redis, me)), robbed=False)
                redis = w.redis if looks_first else self._run["join"](w.redis, me)[0]
                w = self._presence.joins(w, me)
                label = "looks" if looks_first else "takes its lock, and looks"
                yield "run", f"{label} what is pending for it", update(w, me, after)._replace(redis=redis)
            case ("look", pending):
                if looks_first:
                    w = w._replace(redis=self._run["join"](w.redis, me)[0])
                w = self._presence.resumed(update(w, me, client._replace(heart=(), mode=HELD)), me)
                for id in self._ids:
                    taken = client.table[id].deliveries not in (0, pending[id])
                    if taken and self.mutation is not Mutation.RESUME_KEEPS_ALL:
                        w = self._lose(w, me, id)
                yield "run", "has resumed", w
            case _:
                pass

    def _pending(self, redis: Redis, me: int) -> tuple[int, ...]:
        return tuple(entry.deliveries if entry.owner == me else 0 for entry in redis.entries)

    def _missing(self, w: World, me: int) -> World:
        """Redis says that the lock is not there: what nobody took is kept."""
        client = client_of(w, me)
        gives_up = self.mutation is Mutation.DEPOSED_GIVES_UP
        after = self._lapsed(client, ABSENT if gives_up else SUSPECT)
        broken: tuple[str, ...] = ()
        for id, entry in enumerate(w.redis.entries):
            ours = (entry.owner, entry.deliveries) == (me, client.table[id].deliveries)
            if ours and not after.table[id].deliveries:
                broken = ("presence", f"{id} was given up, which nobody took")
        return update(w, me, after)._replace(broken=w.broken or broken)

    def _lapsed(self, client: Client, mode: str) -> Client:
        """liveness.lapse: what was asked before is not believed; silence loses all leases."""
        across = {Mutation.READ_ACROSS_LAPSE: "read", Mutation.CLAIM_ACROSS_LAPSE: "claim"}.get(
            self.mutation or Mutation.NO_AUDIT
        )
        ops = [op._replace(ok=op.ok and op.kind == across) for op in client.ops]
        ops = [op for op in ops if op.ok or op.phase != ANSWERED or op.kind not in BELIEVED]
        reader = client.reader
        if reader and reader[0] != across:
            reader = put(reader, 2, False) if reader[1] == SENT else ()
        spoiled = 1 if self.mutation is Mutation.DONE_AFTER_LAPSE else 2
        table = tuple(le._replace(done_sent=spoiled) if le.done_sent else le for le in client.table)
        lost, lived = client.lost, client.lived_since
        if mode == ABSENT:
            lived = tuple(le.lived_since or 0 if le.deliveries else n for n, le in zip(lived, table, strict=True))
            if self.bounds.fail_over:
                lost = tuple(max(n, le.deliveries) for n, le in zip(lost, table, strict=True))
            table = (NONE,) * len(table)
        client = client._replace(
            mode=mode, ops=tuple(sorted(ops)), reader=reader, table=table, lost=lost, lived_since=lived
        )  # fmt: skip
        return self._presence.lapsed(client)

    def _stood_still(self, client: Client) -> Client:
        """losses.lapsed: whatever it held may be the cause."""
        if not self._counts:
            return client
        stood = tuple(le.deliveries or n for n, le in zip(client.stood_still, client.table, strict=True))
        table = client.table
        if self.mutation is not Mutation.STANDSTILL_IS_NO_DEATH:
            table = tuple(le._replace(lived_since=0) for le in table)
        return client._replace(table=table, stood_still=stood)

    def _stood_with(self, w: World, me: int, id: int) -> Fence:
        stood_still = client_of(w, me).stood_still
        return id, stood_still[id] if stood_still else 0

    # The reader and the audit (reader.py, audit.py).

    def _reader(self, w: World, me: int, client: Client) -> Iterator[Step]:
        match client.reader:
            case () if client.holds:
                if protocol.waiting(w.redis):
                    apart = self.mutation is Mutation.AUDIT_OVERLAPS_READ
                    reader = () if apart else ("read", SENT, True, (), ())
                    after = update(w, me, client._replace(reader=reader))
                    if not apart:
                        yield "run", "reads", after
                    elif all(op.kind != "read" for op in client.ops):
                        yield "run", "reads", start(after, me, Op("read", -1, SENT, True))
                yield from self._start_audit(w, me, client)
            case ("read", "answered", ok, _, reply):
                w = update(w, me, client._replace(reader=()))
                if ok and client.mode == HELD:
                    for id in reply:
                        w = self._win(w, me, id, 1)
                yield "run", "gets what it read", w
            case ("look", _, ok, pending):
                yield "run", "compares", self._compare(w, me, client, ok, pending)
            case ("lift", _, ok, pending, (lift, *others)):
                redis, reply = self._run["lift"](w.redis, me, *lift)
                reader = ("lift", ANSWERED, ok, put(pending, lift[0], lift[2]), tuple(others))
                label = f"lifts{of_id(lift[0])} from {lift[1]} to {lift[2]}: {say(reply)}"
                yield "run", label, update(w, me, client._replace(reader=reader))._replace(redis=redis)
            case ("lift", _, ok, pending, ()):
                yield "run", "goes on with the audit", self._adopt(w, me, client, ok, pending)
            case ("adopt", "answered", ok, wanted, replies):
                yield "run", "gets what it adopted", self._adopted(w, me, client, ok, wanted, replies)
            case _:
                pass

    def _start_audit(self, w: World, me: int, client: Client) -> Iterator[Step]:
        pending = self._pending(w.redis, me)
        agrees = all(le.deliveries == n for le, n in zip(client.table, pending, strict=True))
        if self.mutation is Mutation.NO_AUDIT or (agrees and client.compared and not self.bounds.idle_audits):
            return
        allowed = {
            Mutation.AUDIT_OVERLAPS_CLAIM: "claim",
            Mutation.AUDIT_OVERLAPS_DONE: "done",
            Mutation.AUDIT_OVERLAPS_RELEASE: "release",
        }.get(self.mutation or Mutation.NO_AUDIT)
        if all(op.kind not in GATED or op.kind == allowed for op in client.ops):
            after = client._replace(reader=("look", ANSWERED, True, pending))
            yield "run", "audits: looks what is pending for it", update(w, me, after)

    def _compare(self, w: World, me: int, client: Client, ok: bool, pending: tuple[int, ...]) -> World:
        """audit._compare and _take_over, up to its first request."""
        if not (ok and client.mode == HELD):
            return update(w, me, client._replace(reader=()))
        for id in self._ids:
            if client.table[id].deliveries not in (0, pending[id]):
                w = self._lose(w, me, id, audit=True)
        client = client_of(w, me)
        behind = tuple(
            (id, pending[id], client.lost[id])
            for id in self._ids
            if 0 < pending[id] < client.lost[id] and not client.table[id].deliveries
        )
        if behind:
            return update(w, me, client._replace(reader=("lift", ANSWERED, ok, pending, behind)))
        return self._adopt(w, me, client, ok, pending)

    def _adopt(self, w: World, me: int, client: Client, ok: bool, pending: tuple[int, ...]) -> World:
        if not (ok and client.mode == HELD):
            return update(w, me, client._replace(reader=()))
        parting = [op.id for op in client.ops if op.kind in PARTING]
        if self.mutation is Mutation.AUDIT_OVERLAPS_RELEASE:
            parting = []
        unknown = [
            (id, count)
            for id, count in enumerate(pending)
            if count and not client.table[id].deliveries and id not in parting
        ]
        if self.mutation is Mutation.REVIVED:
            w = update(w, me, client._replace(reader=()))
            for id, count in unknown:
                w = self._win(w, me, id, count)
            return w
        if not unknown:
            return update(w, me, client._replace(reader=(), **self._audited))
        return update(w, me, client._replace(reader=("adopt", SENT, ok, tuple(unknown), ())))

    def _adopted(
        self, w: World, me: int, client: Client, ok: bool, wanted: tuple[Any, ...], replies: Reply
    ) -> World:
        """ownership.adopt, after its reply."""
        client = client._replace(reader=())
        if not (ok and client.mode == HELD):
            return update(w, me, client)
        if replies == ("lapsed",):
            return update(w, me, self._lapsed(client, SUSPECT))
        w = update(w, me, client)
        for (id, _), reply in zip(wanted, replies, strict=True):
            if reply[0] == "won":
                w = self._win(w, me, id, reply[1], audit=True)
        return update(w, me, client_of(w, me)._replace(**self._audited))

    @property
    def _audited(self) -> dict[str, Any]:
        """What an audit changes that is complete."""
        nothing = tuple(0 for _ in self._ids)
        return {"lost": nothing, "lived_since": nothing, "compared": True}

    # Operations (ownership.py, claims.py, progress.py).

    def _user(self, w: World, me: int, client: Client) -> Iterator[Step]:
        """What the user, the sweeper and the handlers start."""
        busy = {(op.kind, op.id) for op in client.ops}
        gate_open = not _audits(client)
        allowed = {
            Mutation.AUDIT_OVERLAPS_CLAIM: ("claim",),
            Mutation.AUDIT_OVERLAPS_DONE: ("done",),
            Mutation.AUDIT_OVERLAPS_RELEASE: ("release",),
        }.get(self.mutation or Mutation.NO_AUDIT, ())
        passing = GATED if gate_open else allowed
        for id, lease in enumerate(client.table):
            if not lease.deliveries:
                if "claim" in passing and not busy & {
                    ("claim", id),
                    ("adopt", id),
                    ("set", id),
                    ("claim_many", -1),
                }:
                    for owner in self._offers(w, me, id):
                        yield (
                            "run",
                            f"claims {id} from {name(owner)}",
                            start(w, me, Op("claim", id, SENT, True, (owner,))),
                        )
                continue
            if any(op.id == id and op.kind not in ("claim", "adopt", "set") for op in client.ops):
                continue
            if "done" in passing and self.bounds.done:
                again = lease.done_sent > 0
                marked = update(
                    w,
                    me,
                    client._replace(table=put(client.table, id, lease._replace(done_sent=lease.done_sent or 1))),
                )
                yield (
                    "user",
                    f"says that {id} is done",
                    start(marked, me, Op("done", id, SENT, True, (lease.deliveries, again))),
                )
            if "release" in passing and (paid := pay(w, "release")):
                parted = update(paid, me, client._replace(table=put(client.table, id, NONE)))
                first = "settle" if lease.begun and self._counts else "release"
                yield "fault", f"releases {id}", start(parted, me, Op(first, id, SENT, True, (lease.deliveries,)))
            if self.bounds.checkpoints:
                if not lease.begun:
                    op = Op("begin", id, SENT, True, self._begin(lease))
                    yield "run", f"begins {id}", start(w, me, op)
                    continue
                if paid := pay(w, "failure"):
                    op = Op("fail", id, SENT, True, (lease.deliveries,))
                    yield "fault", f"its handler of {id} fails", start(paid, me, op)
                if lease.position < self.bounds.checkpoints:
                    op = Op("checkpoint", id, SENT, True, (lease.deliveries, lease.position + 1))
                    yield "run", f"checkpoints {id}", start(w, me, op)
        if (
            self.bounds.batches
            and "claim_many" in passing
            and not busy & {("claim", i) for i in self._ids}
            and ("claim_many", -1) not in busy
        ):
            for owner in sorted({entry.owner for entry in w.redis.entries} - {me, UNOWNED}):
                if not protocol.exists(w.redis, owner):
                    yield (
                        "run",
                        f"claims all of {name(owner)}",
                        start(w, me, Op("claim_many", -1, SENT, True, (owner,))),
                    )

    def _offers(self, w: World, me: int, id: int) -> list[int]:
        """From whom this client may have been offered it: who is dead now, or, long ago, anybody else."""
        entry = w.redis.entries[id]
        if not self.bounds.claims or entry.owner == UNOWNED:
            return []
        if self.bounds.stale_offers and (entry.owner != me or entry.deliveries > 1):  # it was another's before
            return [NOBODY, *(FIRST + i for i in range(len(w.clients)) if FIRST + i != me)]
        return [entry.owner] if entry.owner != me and not protocol.exists(w.redis, entry.owner) else []

    def _op(self, w: World, me: int, client: Client, op: Op) -> Iterator[Step]:
        """The reply arrives, or it is sent again."""
        id, mine = op.id, op.ok and client.mode == HELD
        gone = update(w, me, without(client, op))
        holds = op.kind in PARTING or client.table[id].deliveries == (op.args[0] if op.args else 0)
        if op.phase == WAITING:
            if client.mode == ABSENT or not holds:
                yield "run", f"{op.kind}{of_id(id)} has lapsed", gone
            elif client.holds:
                args = (op.args[0], True) if op.kind == "done" else op.args
                again = instead(client, op, op._replace(phase=SENT, args=args))
                yield "run", f"repeats the {op.kind}{of_id(id)}", update(w, me, again)
                after = self._let_go(gone, me, op) if op.kind in LAST_WORDS else gone
                if after is not None:
                    yield "run", f"has waited too long for the {op.kind}{of_id(id)}", after
            return
        if op.phase != ANSWERED:
            return
        after = gone
        if op.kind in ("claim", "set", "claim_many", "adopt", "read"):
            after = self._claimed(w, me, gone, client, op) if mine else gone
        elif op.kind == "done":
            after = self._done(gone, me, op, mine)
        elif op.kind in LAST_WORDS and op.reply[0] != "refused":
            let_go = self._let_go(gone, me, op) if holds else gone
            if let_go is None:
                return
            after = let_go
        elif op.kind in ("begin", "checkpoint", "fail"):
            phase = SENT if client.holds else WAITING
            if op.reply[0] == "refused":
                if _audits(client):
                    return  # examine waits for the gate
                examine = Op("examine", id, phase, True, (op.args[0], op.reply[1:]))
                after = start(gone, me, examine) if holds else gone
            elif op.reply[0] == "suspect":  # of one that rested before it starts
                anyway = Op("begin", id, phase, True, (*op.args[:3], "suspect"))
                after = start(gone, me, anyway) if holds else gone
            elif holds:
                position = op.reply[1] if op.kind == "begin" else op.args[1]
                lease = client.table[id]._replace(begun=True, position=position)
                after = update(gone, me, client_of(gone, me)._replace(table=put(client.table, id, lease)))
        elif op.kind == "examine" and holds:
            after = self._examined(gone, me, op)
        yield "run", f"gets the answer to its {op.kind}{of_id(id)}", after

    def _let_go(self, w: World, me: int, op: Op) -> World | None:
        """endings.start_release, after a handler failed, or after its owner ended cleanly; None: the audit has the
        gate."""
        client = client_of(w, me)
        if _audits(client):
            return None
        phase = SENT if client.holds else WAITING
        parted = update(w, me, client._replace(table=put(client.table, op.id, NONE))) if op.kind == "fail" else w
        return start(parted, me, Op("release", op.id, phase, True, op.args))

    def _claimed(self, w: World, me: int, gone: World, client: Client, op: Op) -> World:
        """claims._claim and _mine_already, after a reply that is believed."""
        id, reply = op.id, op.reply
        if op.kind == "claim_many":
            for entry in reply[2:] if reply[0] == "won" else ():
                gone = self._win(gone, me, entry[0], entry[1])
        elif op.kind == "read":
            for arrived in reply:
                gone = self._win(gone, me, arrived, 1)
        elif op.kind == "adopt" and reply != ("lapsed",):
            return self._win(gone, me, id, reply[0][1]) if reply[0][0] == "won" else gone
        elif reply[0] == "won":
            return self._win(gone, me, id, reply[1])
        elif reply[0] == "owner" and reply[1] == me:
            if client.table[id].deliveries:
                return gone
            if self.mutation is Mutation.CLAIM_REVIVED:
                return self._win(gone, me, id, reply[2])
            return start(gone, me, Op("adopt", id, SENT, True, ((id, reply[2]),)))
        elif reply[0] == "owner":
            return start(gone, me, Op("claim", id, SENT, True, (reply[1],)))
        if reply == ("lapsed",):
            return update(gone, me, self._lapsed(client_of(gone, me), SUSPECT))
        return gone

    def _done(self, w: World, me: int, op: Op, mine: bool) -> World:
        """ownership._after_done."""
        client, (count, again) = client_of(w, me), op.args
        lease = client.table[op.id]
        if lease.deliveries != count:
            return w  # lost meanwhile; the caller is told what the reply says
        believed = client.mode == HELD or self.mutation is Mutation.DONE_AFTER_LAPSE
        compared = client.compared or self.mutation in (Mutation.DONE_BEFORE_AUDIT, Mutation.DONE_AFTER_FAIL_OVER)
        before = op.reply[0] == "gone" and again and lease.done_sent == 1 and believed and compared
        unsure = self.mutation in (Mutation.DONE_UNCONFIRMED, Mutation.DONE_AFTER_LAPSE)
        if before and not unsure and not protocol.exists(w.redis, me):  # a beat says so
            w = update(w, me, self._lapsed(client, SUSPECT))
            client, before = client_of(w, me), False
        if op.reply == ("done",) or before:
            if before and not op.reply[1]:
                why = f"the client was told that {op.id} is done, which somebody else finished, or nobody"
                w = w._replace(broken=w.broken or ("G1", why))
            return update(w, me, client._replace(table=put(client.table, op.id, NONE)))
        return self._lose(w, me, op.id)

    def _examined(self, w: World, me: int, op: Op) -> World:
        """progress._examine, after its reply."""
        client, id = client_of(w, me), op.id
        phase = SENT if client.holds else WAITING
        match op.reply:
            case ("begin", replaces):
                return start(w, me, Op("begin", id, phase, True, self._begin(client.table[id], replaces)))
            case ("lifted", to):
                top = put(client.top, id, max(to, client.top[id]))
                lease = client.table[id]._replace(deliveries=to)
                w = update(w, me, client._replace(table=put(client.table, id, lease), top=top))
                return start(w, me, Op("begin", id, phase, True, self._begin(lease)))
            case _:
                return self._lose(w, me, id)

    def _begin(self, lease: Lease, replaces: tuple[Fence, int] = (NO_FENCE, UNOWNED)) -> tuple[Any, ...]:
        """The arguments of a begin."""
        return (lease.deliveries, replaces, lease.lived_since if lease.lived_since < lease.deliveries else 0)

    # The table (holdings.py).

    def _win(self, w: World, me: int, id: int, count: int, *, audit: bool = False) -> World:
        """A new lease; an older one that is held still is lost by that."""
        client = client_of(w, me)
        broken: tuple[str, ...] = ()
        if not self._failed_over(w) and count <= client.top[id]:
            broken = ("G2", f"a new lease of {id} has fence {count}, after one with {client.top[id]}")
        if audit and any(op.id == id and op.kind in PARTING for op in client.ops):
            broken = ("G3", f"the audit adopted {id}, which is being released")
        since = (client.lived_since[id] or count) if self._counts else 0
        client = client._replace(
            table=put(client.table, id, Lease(count, lived_since=since)),
            top=put(client.top, id, max(count, client.top[id])),
        )
        return update(w, me, client)._replace(broken=w.broken or broken)

    def _lose(self, w: World, me: int, id: int, *, audit: bool = False) -> World:
        """A lease is lost: the user is told."""
        client = client_of(w, me)
        count = client.table[id].deliveries
        entry = w.redis.entries[id]
        broken: tuple[str, ...] = ()
        if audit and not self._failed_over(w):
            finishing = any(op.id == id and op.kind == "done" for op in client.ops)
            if (entry.owner, entry.deliveries) == (me, count):
                broken = ("G3", f"the audit disowned {id}, which is ours")
            elif finishing and w.redis.finished[id] == (me, count):
                broken = ("G3", f"the audit disowned {id}, which we have just finished")
        lost = put(client.lost, id, count) if self.bounds.fail_over else client.lost
        lived = put(client.lived_since, id, client.table[id].lived_since)
        client = client._replace(table=put(client.table, id, NONE), lost=lost, lived_since=lived)
        return update(w, me, client)._replace(broken=w.broken or broken)

    # Fail-over.

    def _failed_over(self, w: World) -> bool:
        return w.budget[FAULTS.index("fail-over")] < self.bounds.fail_over

    def _fail_over(self, w: World) -> Iterator[Step]:
        if not w.replica and w.budget[FAULTS.index("fail-over")]:
            yield "fault", "Redis: replicates for the last time", w._replace(replica=(w.redis,))
        if not w.replica or not (paid := pay(w, "fail-over")):
            return
        for what in self.bounds.forgets:
            redis, old = w.redis, w.replica[0]
            clients = w.clients
            if "lbs" in what:
                redis = redis._replace(entries=old.entries, last=old.last, locks=old.locks, finished=old.finished)
                redis = protocol.restarted(redis._replace(present=old.present))._replace(watch=old.watch)
                clients = tuple(map(self._reconnected, w.clients, old.locks))
                clients = tuple(map(self._presence.reconnected, clients, w.redis.listened))
            if "records" in what:
                redis = redis._replace(records=old.records)
            after = paid._replace(redis=redis, clients=clients, replica=(), stray=())
            yield "fault", f"Redis: fails over; {' and '.join(what)} forget", after

    def _reconnected(self, client: Client, locked: bool) -> Client:
        """What was not executed never will be; replies that are on their way arrive."""
        if client.mode == CLOSED:
            return client
        reader = () if client.reader[1:2] == (SENT,) else client.reader
        ops = []
        for op in client.ops:
            if op.phase == SENT and op.kind not in ("claim", "claim_many", "adopt", "set"):
                ops.append(op._replace(phase=WAITING))
            elif op.phase != SENT:
                ops.append(op._replace(ok=op.ok and op.kind != "done"))
        answered = {op.id for op in ops if op.kind == "done" and op.phase == ANSWERED}  # by the server that was
        table = tuple(
            le._replace(done_sent=self._spoiled) if le.done_sent and id not in answered else le
            for id, le in enumerate(client.table)
        )
        return client._replace(
            reader=reader,
            ops=tuple(sorted(ops)),
            table=table,
            robbed=self.bounds.robs or not locked,
            compared=False,
        )


def _audits(client: Client) -> bool:
    return client.reader[:1] != () and client.reader[0] in AUDITING
