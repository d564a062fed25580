"""Sessions that sleep and wake: those who write to one data stream, and those who own it.

The world of `clients.py` has announcements and no entries; how a lease goes from one consumer to the next is
explored there. Here that is one step, and what is explored is whether an entry may be left that nobody reads.

A request is executed and answered in one step: what a client does with an answer is to send its next request, and
nobody sees that before it is executed. An answer that is lost, and a request that is executed late, are faults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from tests.proof.model import sleep_protocol as protocol
from tests.proof.model.protocol import put
from tests.proof.model.sleep_protocol import GONE, NOBODY, NONE, WAITING, Redis, Reply, outstanding
from tests.proof.model.sleep_slips import BROKEN, SCRIPTS, Slip

if TYPE_CHECKING:
    from collections.abc import Iterator

UP, LAPSED, DEAD = "up", "lapsed", "dead"
USUAL = ("sleeps", "done")
FAULTS = (*USUAL, "crash", "lapse", "loss", "cancel", "dies", "again", "go", "release")
MOST = 9  # announcements; more would mean that the stream is announced on and on


class Owner(NamedTuple):
    """A consumer.

    `position`: its checkpoint; `handed`: the last entry that it handed out. `op`: the request that it makes next,
    if it is another one than its work makes. `nap`: the same on its way to sleep, the attempt `naps`; `free`:
    whoever asked for that was cancelled, and goes on with the lease.
    """

    mode: str = UP
    old: bool = False
    lease: tuple[int, int] = NONE
    begun: bool = False
    position: int = 0
    handed: int = 0
    op: Reply = ()
    nap: str = ""
    naps: int = 0
    free: bool = False


class World(NamedTuple):
    """A state. `stray`: requests that were given up, and may be executed yet. `owed`: the last entry that somebody
    must read. `waived`: the last one that an owner finished without a look."""

    redis: Redis
    owners: tuple[Owner, ...]
    producers: tuple[Reply, ...]
    stray: tuple[Reply, ...]
    budget: tuple[int, ...]
    owed: int = 0
    waived: int = 0
    broken: tuple[str, ...] = ()


Step: TypeAlias = tuple[Literal["run", "user", "fault", "late"], str, World]


@dataclass(frozen=True)
class Bounds:
    """What is explored: numbers of owners, and of faults and whims of each kind.

    `writers` is one letter each: c writes on a Cluster, o on one server; h adds an entry and announces, g does so
    without the hash.
    """

    writers: str = "c"
    owners: int = 2
    old: int = 0  # owners of an older release: they know neither the hash nor sleep, and finish
    sleeps: int = 1  # how often an owner goes to sleep, or tries to
    crash: int = 0  # of an owner
    lapse: int = 0
    loss: int = 0  # of an owner's request, or of its answer
    cancel: int = 0  # of whoever asked to sleep
    dies: int = 0  # a producer, or one of its requests has no answer
    again: int = 0  # announcements although there may be one
    go: int = 0  # announcements without the hash
    done: int = 0  # an owner finishes without a look
    release: int = 0


FIRST = {"c": ("announce", -1, -1), "o": ("write",), "h": ("add",), "g": ("add",)}
"""What a producer asks for first."""


class Sleeping:
    """The steps of a world within bounds, with one slip or none."""

    stuck = ("G7", "an entry is never read unless a producer comes")

    def __init__(self, bounds: Bounds, slip: Slip | None = None) -> None:
        self.bounds = bounds
        self.slip = slip
        self._budget = tuple(getattr(bounds, fault) for fault in FAULTS)
        self._run = SCRIPTS | BROKEN.get(slip, {})

    def initial(self) -> World:
        """Nothing is announced, nothing written."""
        b = self.bounds
        owners = (Owner(),) * b.owners + (Owner(old=True),) * b.old
        producers = tuple(sorted((kind, *self._first(kind)) for kind in b.writers))
        return World(Redis(), owners, producers, (), self._budget)

    def steps(self, w: World) -> Iterator[Step]:
        """All that can happen next."""
        for i, producer in enumerate(w.producers):
            yield from self._producer(w, i, producer)
        for me, owner in enumerate(w.owners):
            if owner.mode != DEAD:
                for kind, label, after in self._owner(w, me, owner):
                    yield kind, f"{name(me)}: {label}", after
        for i, request in enumerate(w.stray):
            left = w._replace(stray=w.stray[:i] + w.stray[i + 1 :])
            after, reply = self._execute(left, request)
            yield "late", f"Redis: executes late {say(request)}: {reply}", after
        if paid := pay(w, "again"):
            redis = protocol.put_out(w.redis)
            yield "user", "somebody announces again", paid._replace(redis=redis)
        if paid := pay(w, "go"):
            redis = protocol.put_out(w.redis, hashed=False)
            yield "user", "somebody announces without the hash", paid._replace(redis=redis)

    # What is executed.

    def _execute(self, w: World, request: Reply) -> tuple[World, Reply]:
        """Run a script, and note what must be so."""
        kind, *args = request
        before = w.redis
        redis, reply = self._run[kind](before, *args)
        w = w._replace(redis=redis)
        if kind in ("announce", "write") and len(redis.lbs) > len(before.lbs) and self._awake(w):
            return w._replace(broken=("G10", "the stream is announced anew while its owner is awake")), reply
        if kind in ("done", "done_of_old") and reply == ("done",):
            return w._replace(waived=redis.added), reply
        if kind in ("append", "write") and reply[0] == "added":
            return w._replace(owed=reply[1]), reply
        if kind == "checkpoint" and reply[0] == "advanced" and args[2] != before.record.checkpoint + 1:
            w = w._replace(broken=("G1", "an entry was left out"))
        return w, reply

    def _awake(self, w: World) -> bool:
        """Whether nothing unusual has happened, and an owner works; but not one that took its stream back after a
        newer owner finished."""
        record = w.redis.record
        usual = "g" not in self.bounds.writers and w.budget[len(USUAL) :] == self._budget[len(USUAL) :]
        return usual and any(
            owner.begun and not owner.op and not owner.nap and record.mine(me, owner.lease)
            for me, owner in enumerate(w.owners)
            if record.asleep < owner.lease[0]
        )

    # Producers.

    def _first(self, kind: str) -> Reply:
        return ("append", -1, -1) if kind == "c" and self.slip is Slip.ADDS_FIRST else FIRST[kind]

    def _producer(self, w: World, i: int, producer: Reply) -> Iterator[Step]:
        kind, step, *args = producer
        who = f"producer {i} ({kind})"
        first = (step, *args) == self._first(kind)
        after, reply, then = self._produced(w, kind, step, args)
        others = w.producers[:i] + w.producers[i + 1 :]
        producers = tuple(sorted((*others, (kind, *then)))) if then else others
        yield "user" if first else "run", f"{who}: {step}: {reply}", after._replace(producers=producers)
        if paid := pay(w, "dies"):
            paid = paid._replace(producers=others)
            if request := _of_producer(step, args):
                paid = give_up(paid, request)
            yield "fault", f"{who}: dies before {step}", paid

    def _produced(self, w: World, kind: str, step: str, args: list[int]) -> tuple[World, Reply, Reply]:
        """What a producer's request did, its answer, and the next one."""
        slip = self.slip
        if step == "add":
            redis = w.redis._replace(added=w.redis.added + 1)
            return w._replace(redis=redis), (), ("put_out" if kind == "g" else "tell", redis.added)
        if step == "put_out":
            redis = protocol.put_out(w.redis, hashed=False)
            return w._replace(redis=redis, owed=max(w.owed, args[0])), (), ()
        after, reply = self._execute(w, _of_producer(step, args))
        if step == "tell":
            return after._replace(owed=max(w.owed, args[0])), reply, ()
        if step == "announce":
            return after, reply, ("append", reply[0], args[1] if reply[1] else -1)
        if step == "append":
            if reply[0] == "asleep":
                return after, reply, ("announce", args[0], reply[1])
            return after, reply, () if slip in NO_SECOND_LOOK else ("look again",)
        return after, reply, ()

    # Owners.

    def _owner(self, w: World, me: int, owner: Owner) -> Iterator[Step]:
        if paid := pay(w, "crash"):
            yield "fault", "is killed", self._parted(paid, me, owner, DEAD)
        if owner.mode == UP and owner.lease != NONE and (paid := pay(w, "lapse")):
            yield "fault", "its lock lapses", update(paid, me, owner._replace(mode=LAPSED))
        if owner.mode == LAPSED:
            yield "run", "notices the lapse", self._parted(w, me, owner, UP)
        if owner.lease == NONE:
            if owner.mode == UP:
                yield from self._takes(w, me, owner)
            return
        if owner.nap and (owner.free or not owner.op):
            yield from self._naps(w, me, owner)
            if not owner.free:
                if paid := pay(w, "cancel"):
                    yield "fault", "its caller is cancelled", update(paid, me, owner._replace(free=True))
                return
        if owner.op:
            yield from self._op(w, me, owner, owner.op)
        elif not owner.begun:
            yield from self._op(w, me, owner, ("begin", ()))
        else:
            yield from self._works(w, me, owner)

    def _parted(self, w: World, me: int, owner: Owner, mode: str) -> World:
        """All leases are gone, and so are the answers to what was sent."""
        if owner.lease != NONE:
            if owner.nap:
                w = give_up(w, self._nap_request(me, owner))
            if owner.op != ("examine",) and (owner.op or not owner.begun):
                w = give_up(w, self._request(me, owner, owner.op or ("begin", ())))
            elif owner.handed > owner.position and not owner.nap:
                w = give_up(w, ("checkpoint", me, owner.lease, owner.position + 1))
        return update(w, me, Owner(mode=mode, old=owner.old))

    def _takes(self, w: World, me: int, owner: Owner) -> Iterator[Step]:
        """Reads, claims, or adopts what is pending for it."""
        for id, (holder, count) in enumerate(w.redis.lbs):
            if holder == GONE or (holder >= 0 and holder != me and w.owners[holder].mode == UP):
                continue
            redis = w.redis._replace(lbs=put(w.redis.lbs, id, (me, count + 1)))
            after = w._replace(redis=redis)
            label = f"{'reads' if holder == WAITING else 'claims' if holder != me else 'adopts'} {id}"
            yield "run", label, update(after, me, owner._replace(lease=(id, count + 1)))
            if paid := pay(after, "loss"):
                yield "fault", f"{label}, and has no answer", paid

    def _works(self, w: World, me: int, owner: Owner) -> Iterator[Step]:
        if owner.handed > owner.position:
            yield from self._op(w, me, owner, ("checkpoint", owner.position + 1))
        elif w.redis.added > owner.handed:
            yield "run", "hands out an entry", update(w, me, owner._replace(handed=owner.handed + 1))
        if owner.nap:
            return
        if not owner.old and (paid := pay(w, "sleeps")):
            nap = "doze" if self.slip is Slip.LOOKS_FIRST else "withhold"
            yield "user", "is to sleep", update(paid, me, owner._replace(nap=nap, naps=owner.naps + 1))
        if paid := pay(w, "done"):
            op = ("done",) if owner.old else ("settle",)
            yield "user", "is to finish without a look", update(paid, me, owner._replace(op=op))
        if paid := pay(w, "release"):
            id, count = owner.lease
            redis = paid.redis
            if redis.lbs[id] == (me, count):
                redis = redis._replace(lbs=put(redis.lbs, id, (NOBODY, count)))
            yield "user", "releases", update(paid._replace(redis=redis), me, Owner(old=owner.old))

    def _request(self, me: int, owner: Owner, op: Reply) -> Reply:
        kind, *args = op
        match kind:
            case "begin" | "checkpoint":
                return (kind, me, owner.lease, *args)
            case "settle":
                return (kind, me, owner.lease)
            case "done" | "yield" if owner.old:
                return (kind + "_of_old", me, *owner.lease)
            case _:
                return (kind, me, *owner.lease, *args)

    def _op(self, w: World, me: int, owner: Owner, op: Reply) -> Iterator[Step]:
        """An owner's request, but for those on its way to sleep."""
        kind = op[0]
        waits = owner._replace(op=() if kind == "checkpoint" else op)
        if kind == "examine":
            yield "run", "asks who owns its announcement", update(w, me, self._examined(w, me, owner))
            return
        request = self._request(me, owner, op)
        after, reply = self._execute(w, request)
        yield "run", f"{kind}: {say(reply)}", update(after, me, self._answered(owner, op, reply))
        if paid := pay(w, "loss"):
            yield "fault", f"gives up its {kind}, and repeats it", update(give_up(paid, request), me, waits)
            lost = after._replace(budget=paid.budget)
            yield "fault", f"{kind}: {say(reply)}; the answer is lost", update(lost, me, waits)

    def _answered(self, owner: Owner, op: Reply, reply: Reply) -> Owner:
        match op[0], reply[0]:
            case _, "refused":
                return owner._replace(op=("examine",))
            case "begin", _:
                position = reply[1]
                return owner._replace(op=(), begun=True, position=position, handed=position)
            case "checkpoint", _:
                return owner._replace(op=(), position=op[1])
            case "settle", _:
                return owner._replace(op=("done",))
            case "supersede", "over":
                return owner._replace(op=("examine",))
            case _:  # done, gone, or somebody else's
                return Owner(mode=owner.mode, old=owner.old)

    def _examined(self, w: World, me: int, owner: Owner) -> Owner:
        """checkpoints._examine."""
        stored = w.redis.record
        if w.redis.lbs[owner.lease[0]] != (me, owner.lease[1]):
            return Owner(mode=owner.mode, old=owner.old)
        if stored.fence <= owner.lease:
            return owner._replace(op=("begin", ()))
        if outstanding(w.redis, stored.fence[0]):
            if owner.old or self.slip is Slip.YIELDS_BLINDLY:
                return owner._replace(op=("yield",))
            return owner._replace(op=("supersede", stored.fence[0]))
        return owner._replace(op=("begin", (stored.fence, stored.consumer)))

    # On the way to sleep.

    def _nap_request(self, me: int, owner: Owner) -> Reply:
        match owner.nap:
            case "doze":
                return ("doze", me, owner.lease, owner.handed)
            case "withhold" | "restore":
                return (owner.nap, me, *owner.lease, owner.naps)
            case _:
                return ("finish", me, *owner.lease)

    def _naps(self, w: World, me: int, owner: Owner) -> Iterator[Step]:
        """Lease.done_if_idle."""
        request = self._nap_request(me, owner)
        after, reply = self._execute(w, request)
        yield "run", f"{owner.nap}: {say(reply)}", update(after, me, self._napped(owner, reply))
        if paid := pay(w, "loss"):
            yield "fault", f"gives up its {owner.nap}, and repeats it", give_up(paid, request)
            yield "fault", f"{owner.nap}: {say(reply)}; the answer is lost", after._replace(budget=paid.budget)

    def _napped(self, owner: Owner, reply: Reply) -> Owner:
        goes_on = owner._replace(nap="", free=False)
        first = self.slip is Slip.LOOKS_FIRST
        match owner.nap, reply[0]:
            case _, "newer":
                return owner._replace(nap="finish")
            case "withhold", "withheld":
                return owner._replace(nap="finish" if first else "doze")
            case "doze", "asleep":
                return owner._replace(nap="withhold" if first else "finish")
            case "doze", "awake":
                return goes_on if first else owner._replace(nap="restore")
            case "doze", "refused":
                return owner._replace(op=owner.op or ("examine",))
            case "restore", "restored":
                return goes_on
            case _:  # finished, or somebody else's
                return Owner(mode=owner.mode, old=owner.old)

    # The guarantees.

    def violated(self, w: World) -> tuple[str, ...]:
        """The guarantee that does not hold in this state, and why; empty when all is well."""
        if w.broken:
            return w.broken
        if len(w.redis.lbs) > MOST:
            return ("G3", "the stream is announced on and on")
        if settled(w) or any(holder != GONE for holder, _ in w.redis.lbs):
            return ()
        if any(self._first(kind) != (*step,) for kind, *step in w.producers):
            return ()  # who has begun to write will see to it
        return ("G7", "an entry is there, nobody reads it, and nobody was told to")

    def settled(self, w: World) -> bool:
        """Whether every entry is handled that somebody must read."""
        return settled(w)

    # Owners are interchangeable, and of numbers only the order matters.

    def canonical(self, w: World) -> World:
        """The state that stands for this one and all its renamings."""
        redis, record = w.redis, w.redis.record
        ranks = [
            (owner, [holder == i for holder, _ in redis.lbs], record.consumer == i, i)
            for i, owner in enumerate(w.owners)
        ]
        order = sorted(ranks)
        done = max(record.checkpoint, w.waived)
        if 0 < w.owed <= done or 0 < w.waived <= record.checkpoint:
            w = w._replace(
                owed=w.owed if w.owed > done else 0, waived=w.waived if w.waived > record.checkpoint else 0
            )
        if (
            redis.believed != NONE
            and not outstanding(redis, redis.believed[0])
            and self.slip is not Slip.UNVERIFIED
        ):
            w = w._replace(redis=redis._replace(believed=NONE))
        named = _named(w)
        if order == ranks and len(named) == len(redis.lbs):
            return w
        names = [0] * len(ranks)
        for new, (*_, old) in enumerate(order):
            names[old] = new
        return _renamed(w, names, named)

    def alike(self, w: World, other: World) -> bool:
        """Whether one is a renaming of the other."""
        return self.canonical(w) == other


NO_SECOND_LOOK = (Slip.NO_SECOND_LOOK, Slip.ANNOUNCES_FIRST_ONLY)


def _of_producer(step: str, args: list[int]) -> Reply:
    match step:
        case "announce":
            return (step, args[0])
        case "append":
            return (step, *args)
        case "write":
            return ("write",)
        case "tell" | "look again":
            return ("announce",)
        case _:
            return ()


def settled(w: World) -> bool:
    """Whether every entry is handled that somebody must read."""
    return w.owed <= max(w.redis.record.checkpoint, w.waived)


# Where requests name an owner, an announcement, or an owner's fence.
NAMES: dict[str, str] = {
    "announce": "aa",
    "append": "aa",
    "withhold": "oa",
    "restore": "oa",
    **dict.fromkeys(("done", "done_of_old", "finish", "yield", "yield_of_old"), "oa"),
    "supersede": "oa-a",
    "begin": "ofr",
    "checkpoint": "of",
    "doze": "of",
    "settle": "of",
}


def _named(w: World) -> list[int]:
    """The announcements that matter still."""
    lbs, record = w.redis.lbs, w.redis.record
    named = {id for id, (holder, _) in enumerate(lbs) if holder != GONE}
    if len(named) == len(lbs):
        return sorted(named)
    named |= {w.redis.believed[0], record.fence[0]}
    for request in (*w.stray, *(producer[1:] for producer in w.producers), *(owner.op for owner in w.owners)):
        if request:
            named.update(_ids(request))
    named.update(owner.lease[0] for owner in w.owners)
    if any(step in ("announce", "append") and args[1] >= 0 for _, step, *args in w.producers):
        named.add(record.asleep)  # which one it is
    named.discard(-1)
    return sorted(named)


def _ids(request: Reply) -> Iterator[int]:
    kind, *args = request
    if len(args) < len(NAMES.get(kind, "")) and NAMES[kind][0] == "o":  # an owner's own, which leaves itself out
        args = [0, NONE, *args] if NAMES[kind][1] == "f" else [0, -1, 0, *args]
    for what, word in zip(NAMES.get(kind, ""), args, strict=False):
        if what == "a":
            yield word
        elif what == "f":
            yield word[0]
        elif what == "r" and word:
            yield word[0][0]


def _renamed(w: World, names: list[int], ids: list[int]) -> World:
    """The same state under other names for owners and announcements."""
    owners = dict(enumerate(names)) | {NOBODY: NOBODY, WAITING: WAITING, GONE: GONE}
    numbers = {id: number for number, id in enumerate(ids)} | {-1: -1}

    def word(what: str, word: Any) -> Any:
        match what:
            case "o":
                return owners[word]
            case "a":
                return numbers[word]
            case "f":
                return numbers[word[0]], word[1]
            case "r" if word:
                return (numbers[word[0][0]], word[0][1]), owners[word[1]]
            case _:
                return word

    def request(kind: str, *args: Any) -> Reply:
        what = NAMES.get(kind, "").ljust(len(args), "-")
        return (kind, *map(word, what, args))

    def owner(owner: Owner) -> Owner:
        op = owner.op
        if op[:1] == ("begin",):
            op = ("begin", word("r", op[1]))
        elif op[:1] == ("supersede",):
            op = ("supersede", numbers[op[1]])
        return owner._replace(lease=word("f", owner.lease), op=op)

    redis, record = w.redis, w.redis.record
    record = record._replace(
        fence=word("f", record.fence),
        consumer=owners[record.consumer],
        asleep=sum(id <= record.asleep for id in ids) - 1,
    )
    redis = redis._replace(
        lbs=tuple((owners[redis.lbs[id][0]], redis.lbs[id][1]) for id in ids),
        believed=word("f", redis.believed),
        record=record,
    )
    return w._replace(
        redis=redis,
        owners=tuple(owner(w.owners[old]) for old in sorted(range(len(names)), key=names.__getitem__)),
        producers=tuple(sorted((kind, *request(*step)) for kind, *step in w.producers)),
        stray=tuple(sorted(request(*stray) for stray in w.stray)),
    )


def name(owner: int) -> str:
    """An owner's name in a trace."""
    return "ABCDEF"[owner]


def say(words: Reply) -> str:
    """A request or an answer in a trace."""
    return " ".join(map(str, words))


def update(w: World, me: int, owner: Owner) -> World:
    """A world in which one owner has changed."""
    return w._replace(owners=put(w.owners, me, owner))


def give_up(w: World, request: Reply) -> World:
    """A request that may be executed later, or never."""
    return w._replace(stray=tuple(sorted((*w.stray, request)))) if request else w


def pay(w: World, fault: str) -> World | None:
    """A world with one fault less to come."""
    at = FAULTS.index(fault)
    left = w.budget[at]
    return w._replace(budget=put(w.budget, at, left - 1)) if left else None
