"""What the stubs return: Redis's replies as types."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Fields = Sequence[bytes]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Look(Generic[T]):
    """What a bounded look has found. `last` is where to go on; None: it has seen all."""

    found: list[T]
    last: str | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """An entry that is pending for us."""

    lbs_id: str
    deliveries: int
    fields: Fields


@dataclass(frozen=True, slots=True)
class Share:
    """What a fair read brought."""

    entries: list[Delivered]
    waiting: int
    members: int


@dataclass(frozen=True, slots=True)
class Won:
    """A claim that succeeded."""

    deliveries: int
    fields: Fields


@dataclass(frozen=True, slots=True)
class Refusal:
    """A claim that did not. `owner` and `deliveries` are set where the server knows them."""

    why: Literal["gone", "owner", "alive", "lapsed"]
    owner: str = ""
    deliveries: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What a claim of many brought, and how many are left with their owner.

    `more`: it stopped before it had what it was to take, or had seen all: what is left may be ours to take.
    """

    entries: list[Delivered]
    left: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class Adopted:
    """What an adoption brought, and how many entries it did not come to."""

    entries: list[Delivered]
    left: int


@dataclass(frozen=True, slots=True)
class Orphans(Look[Delivered]):
    """Some of what is pending for a consumer; nothing if it lives."""

    alive: bool


@dataclass(frozen=True, slots=True)
class Member:
    """A consumer of the group, whether it lives or not.

    `served_ms` is how long ago it was last given an entry; infinite if never. Redis 7.2 reports it apart;
    before, a read that finds nothing does not count for `idle_ms`.
    """

    name: str
    pending: int
    idle_ms: int
    served_ms: float


@dataclass(frozen=True, slots=True)
class Census:
    """The load balancer stream, compared with what is pending.

    Attributes:
        balance: entries delivered and in the stream, minus entries pending; None: too many wait to tell.
        oldest_waiting: seconds since the oldest announcement that waits was made; None: none waits.
    """

    balance: int | None
    oldest_waiting: float | None
