"""A state of the model: what the clients believe, what is under way, which faults are left; and the bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from tests.proof.model.protocol import FIRST, NOBODY, UNOWNED, Redis, Reply, put

# What a client may believe about its lock (liveness.py). LATE: the deadline has passed, and nobody has looked.
HELD, LATE, SUSPECT, ABSENT, CLOSED = "held", "late", "suspect", "absent", "closed"
SENT, ANSWERED, WAITING = "sent", "answered", "waiting"  # WAITING: for the lock, to be sent again
PARTING = ("settle", "release")
LAST_WORDS = ("fail", "settle")  # a release comes next
GATED = ("claim", "claim_many", "adopt", "done", "release", "examine")
COUNTED = ("begin", "fail", "settle", "checkpoint")
AUDITING = ("look", "lift", "adopt")
BELIEVED = ("claim", "set", "claim_many", "adopt", "read")  # only without a lapse; else the reply changes nothing


class Lease(NamedTuple):
    """`done_sent`: 1 when a done was sent whose reply may have been lost, 2 when a lapse came since.
    `lived_since`: the count of the first in a row of leases whose ends are no deaths; 0: that of this one is."""

    deliveries: int
    done_sent: int = 0
    begun: bool = False
    position: int = 0
    lived_since: int = 0


class Op(NamedTuple):
    """A request of a task that somebody waits for. `ok`: no lapse since it was begun."""

    kind: str
    id: int
    phase: str
    ok: bool
    args: tuple[Any, ...] = ()
    reply: Reply = ()


NONE = Lease(0)

# What a client knows of its own declaration. ATTEMPTED: it was sent, and has no answer yet.
WITHDRAWN, ATTEMPTED, DECLARED = "withdrawn", "attempted", "declared"
SILENT = "silent"  # its answer will not come
# How a client that may be declared lost its listener. AWARE: it knew at once. UNAWARE: the server lost it before.
AWARE, UNAWARE, IN_DOUBT = "aware", "unaware", "in doubt"


class Presence(NamedTuple):
    """A client's presence.

    `listens`: it believes that its listener is subscribed. `nonce`: of its newest attempt to declare.
    `unanswered`: an attempt was given up: it may have been executed, or will be. `lost`: its listener was lost,
    and no withdrawal was answered since: AWARE, UNAWARE, IN_DOUBT or nothing. `overdue`: its beat is. `declaring`,
    `withdrawing`: the request that it waits for: phase, reply, and whether its answer counts. `suspect`: whom it
    saw absent: consumer, nonce, and whether the victim's grace may be over since.
    """

    listens: bool = True
    declared: str = DECLARED
    nonce: int = 1
    unanswered: bool = False
    lost: str = ""
    overdue: bool = False
    declaring: tuple[Any, ...] = ()
    withdrawing: tuple[Any, ...] = ()
    suspect: tuple[Any, ...] = ()

    @property
    def exposed(self) -> bool:
        """Whether peers may take this client for dead."""
        return self.declared != WITHDRAWN or self.unanswered

    @property
    def doubts(self) -> bool:
        """Whether they may have done so."""
        return self.lost == IN_DOUBT or self.overdue


class Client(NamedTuple):
    """One client.

    `robbed`: its lock may go before its deadline. `top`: the highest count that it had a lease under; `lost`: of
    the leases that were lost since the last audit, and `lived_since` their `Lease.lived_since`. `stood_still`: of
    those that were held when it did. `compared`: its leases were, since Redis last forgot something.
    `presence`: empty for a member that has no such thing.
    """

    mode: str
    table: tuple[Lease, ...]
    top: tuple[int, ...]
    lost: tuple[int, ...]
    heart: tuple[Any, ...] = ()
    reader: tuple[Any, ...] = ()
    ops: tuple[Op, ...] = ()
    robbed: bool = False
    compared: bool = True
    lived_since: tuple[int, ...] = ()
    stood_still: tuple[int, ...] = ()
    presence: Presence | tuple[()] = ()

    @property
    def holds(self) -> bool:
        """Whether it believes that its lock is held."""
        return self.mode == HELD and not (self.presence and self.presence.doubts)


class World(NamedTuple):
    """A state. `stray`: requests that were given up, and may be executed yet. `replica`: what a fail-over returns
    to. `broken`: the guarantee that the last step broke."""

    redis: Redis
    clients: tuple[Client, ...]
    stray: tuple[tuple[int, str, int, tuple[Any, ...]], ...]
    replica: tuple[Redis, ...]
    budget: tuple[int, ...]
    broken: tuple[str, ...] = ()


Step: TypeAlias = tuple[Literal["run", "user", "fault", "patience"], str, World]
"""Who takes it, what happens, and the state after it. `patience`: a time-out, which liveness must not wait for."""

FAULTS = (
    "stall",
    "loss",
    "crash",
    "leave",
    "evict",
    "fail-over",
    "release",
    "failure",
    "cut",
    "half",
    "overdue",
    "again",
)


@dataclass(frozen=True)
class Bounds:
    """What is explored: numbers of consumers and of faults of each kind, and what clients do.

    `streams` is the data stream of each announcement. `fail_over` names what forgets: "lbs", "records".
    """

    consumers: int = 2
    joiners: int = 0
    streams: tuple[int, ...] = (0,)
    stall: int = 0
    loss: int = 0
    crash: int = 0
    leave: int = 0
    evict: int = 0
    fail_over: int = 0
    release: int = 0
    failure: int = 0  # of a handler
    cut: int = 0  # of a listener's connection
    half: int = 0  # the same, and the client is not told
    overdue: int = 0  # a beat is not answered in time
    again: int = 0  # who is declared declares anew, with a grace that suits better
    present: bool = False  # members have presence
    without: int = 0  # but so many
    tenure: bool = False  # one watches at a time; else anybody may at any time
    patient: bool = False  # the locks of those that died declared do not expire
    nothing: bool = False  # is announced: only the locks matter
    instant: bool = False  # with `prompt`: declarations and withdrawals, too, are executed as they are sent
    forgets: tuple[tuple[str, ...], ...] = (("lbs", "records"),)
    checkpoints: int = 0  # positions; 0: no data plane
    untried: bool = False  # a release leaves the deaths of the owners before
    counts: bool = False  # attempts and failures, which a release settles; always where handlers fail
    claims: bool = True
    batches: bool = False  # claim_many
    stale_offers: bool = False  # claims of whatever was offered long ago
    idle_audits: bool = False  # audits when there is nothing to find, too
    done: bool = True
    prompt: bool = False  # what is sent is executed at once, but for declarations and withdrawals
    robs: bool = True  # after a fail-over any lock may expire before its holder's deadline


def name(consumer: int) -> str:
    """A consumer's name in a trace."""
    return {NOBODY: "nobody", UNOWNED: "-"}.get(consumer) or "ABCDEF"[consumer - FIRST]


def client_of(w: World, me: int) -> Client:
    """One client of a world."""
    return w.clients[me - FIRST]


def update(w: World, me: int, client: Client) -> World:
    """A world in which one client has changed."""
    return w._replace(clients=put(w.clients, me - FIRST, client))


def without(client: Client, op: Op) -> Client:
    """A client whose request is over."""
    return client._replace(ops=tuple(other for other in client.ops if other is not op))


def instead(client: Client, op: Op, other: Op) -> Client:
    """A client with another request in the place of this one."""
    return client._replace(ops=tuple(sorted(other if each is op else each for each in client.ops)))


def start(w: World, me: int, op: Op) -> World:
    """A client begins a request."""
    client = client_of(w, me)
    return update(w, me, client._replace(ops=tuple(sorted((*client.ops, op)))))


def give_up(w: World, me: int, kind: str, id: int, args: tuple[Any, ...]) -> World:
    """Nobody waits for this request any more; it may be executed yet."""
    return w._replace(stray=tuple(sorted({*w.stray, (me, kind, id, args)})))


def pay(w: World, fault: str) -> World | None:
    """A world with one fault of this kind less; None if there is none left."""
    at = FAULTS.index(fault)
    return w._replace(budget=put(w.budget, at, w.budget[at] - 1)) if w.budget[at] else None


def of_id(id: int) -> str:
    """In a trace, which announcement a request is about."""
    return f" of {id}" if id >= 0 else ""


def say(reply: Reply) -> str:
    """A reply, in a trace."""
    words = (name(word) if isinstance(word, int) and word >= UNOWNED else str(word) for word in reply)
    return " ".join(words) or "nothing"
