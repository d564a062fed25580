"""The replies of Redis as types: what the stubs return."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

Fields = Sequence[bytes]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Look(Generic[T]):
    """One page of a listing. `last`: where to go on; None: this was the last page."""

    found: list[T]
    last: str | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """An entry that is pending for us.

    `idle_ms`: of one that was claimed, milliseconds since it was last delivered or released.
    """

    lbs_id: str
    deliveries: int
    fields: Fields
    idle_ms: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Share:
    """The entries of a fair read.

    `satisfied`: the members have different weights, and the next announcement is for another one.
    """

    entries: list[Delivered]
    waiting: int
    members: int
    satisfied: bool = False


@dataclass(frozen=True, slots=True)
class Won:
    """A claim that succeeded. `idle_ms`: as in `Delivered`."""

    deliveries: int
    fields: Fields
    idle_ms: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A claim that Redis refused. `owner` and `deliveries` are set if Redis knows them."""

    why: Literal["gone", "owner", "alive", "lapsed"]
    owner: str = ""
    deliveries: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """The entries of a claim of many, and how many their owner has left.

    `more`: it stopped early, so some of the rest may be for us.
    """

    entries: list[Delivered]
    left: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class Adopted:
    """The entries of an adoption, and how many it did not get to."""

    entries: list[Delivered]
    left: int


@dataclass(frozen=True, slots=True)
class Orphans(Look[Delivered]):
    """A page of the entries that are pending for a consumer; empty if it is alive."""

    alive: bool


@dataclass(frozen=True, slots=True)
class Member:
    """A consumer of the group, dead or alive.

    `served_ms`: milliseconds since Redis last gave it an entry; infinite if never. Redis 7.2 reports it
        separately. In
    older versions, a read that finds nothing does not count for `idle_ms`, so that value is used.
    """

    name: str
    pending: int
    idle_ms: int
    served_ms: float


@dataclass(frozen=True, slots=True)
class Holder:
    """What the holder of a lock can bear. `max_streams` is None: no limit, or not known.

    `ttl_ms`: the lifetime of its lock, if it says so.
    """

    weight: float = 1.0
    max_streams: int | None = None
    ttl_ms: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Absent:
    """A member that has declared its presence, and that Redis does not see any more.

    `grace`: seconds that it has to come back. `declaration`: what it declared, as Redis has it.
    """

    consumer: str
    grace: float
    declaration: bytes


@dataclass(frozen=True, slots=True)
class Watch:
    """What a look at the present found.

    Attributes:
        what: ``watching``: we watch the others. ``other``: somebody else does. ``full``: Redis is full, so nobody
            can be noted as the one that watches. ``blind``: Redis does not see our own subscription.
            ``undeclared``: our declaration is gone. ``lapsed``: our lock is gone.
        present: how many have declared their presence.
        absent: those of them that Redis does not see.
    """

    what: Literal["watching", "other", "full", "blind", "undeclared", "lapsed"]
    present: int = 0
    absent: tuple[Absent, ...] = ()


@dataclass(frozen=True, slots=True)
class Census:
    """The load balancer stream, compared with the pending entries.

    Attributes:
        balance: delivered entries in the stream minus pending entries; None: too many wait to know it.
        oldest_waiting: age in seconds of the oldest announcement that waits; None: none waits.
        surplus: how many more announcements the hash of the newest ones has than the stream. Above 0: some are
            stale, or the hash cannot be read.
    """

    balance: int | None
    oldest_waiting: float | None
    surplus: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """A look through a page of the newest announcements.

    Attributes:
        cursor: where to go on; "0" at the end.
        looked: how many were looked at.
        forgotten: how many of them are not outstanding any more.
        problem: what Redis says if it refuses.
    """

    cursor: str
    looked: int
    forgotten: int
    problem: str = ""
