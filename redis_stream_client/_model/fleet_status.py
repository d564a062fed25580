"""The fleet as it is seen from outside: values only. ``dataclasses.asdict`` makes JSON of them."""

from dataclasses import dataclass

from redis_stream_client._model.orders import Pause


@dataclass(frozen=True, slots=True)
class Unread:
    """Something that `Fleet` could not read, while the rest is true.

    Attributes:
        what: which part: ``dead letters``, ``presence``, ``pause``, ``descriptions`` (host, weight … of the
            members) or ``released streams`` (since when they wait).
        why: what Redis said; or why there was no answer.
    """

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class FleetMember:
    """A consumer of the group, alive or dead. The fleet forgets dead ones after a while.

    Attributes:
        id: its consumer id.
        alive: whether its lock exists.
        leases: how many announcements are pending for it: what it owns while it lives.
        last_seen: seconds since its last sign of life. Of a living one: the last renewal of its lock. Of a dead
            one: its last request to the group; before Redis 7.2 only those that gave it something count.
        lock_left: seconds that its lock will live unless it is renewed; None: it has none.
        presence: whether it has declared its presence, so that peers notice at once if it crashes; None if that
            cannot be read.
        host, pid, version: as it says itself. These and the following are None if it is dead or does not say.
        started: when it took its lock, in seconds of Unix time by its clock.
        weight: its ``weight``.
        max_streams: its ``max_streams``; also None if it has no limit.
        draining: whether it takes no new streams because it drains, or was ordered to: see `Fleet.drain`.
        paused: whether it has said that it takes no new streams because of the pause. One of an older version
            never does.
    """

    id: str
    alive: bool
    leases: int
    last_seen: float
    lock_left: float | None
    presence: bool | None
    host: str | None = None
    pid: int | None = None
    version: str | None = None
    started: float | None = None
    weight: float | None = None
    max_streams: int | None = None
    draining: bool = False
    paused: bool = False


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """A service at one moment: who its members are, and where its announcements stand.

    The numbers add up: `owned` is the sum of the leases of the living members, and `orphaned` that of the dead
    ones and `released`.

    Attributes:
        service: its name.
        time: when that was, in seconds of Unix time by the server's clock.
        members: all consumers of the group by their ids, alive or dead.
        waiting: announcements that no member has been given yet. More than 500, or large ones, are not counted one
            by one: then it is the difference of all entries and those that are pending.
        oldest_waiting: for how many seconds the oldest of them has waited; None: none waits.
        owned: announcements that are pending for living members.
        orphaned: announcements that are pending for dead members, or were released: a living member will claim
            them.
        orphaned_for: for how many seconds the oldest of these has had no owner: since its owner was last seen, or
            since it was released (of the first 100 of those); None: there are none.
        released: those of the orphaned ones that a member has given back.
        dead_letters: how many there are; None if that cannot be read.
        unread: what could not be read.
        paused: why and since when nobody takes new streams; None if that is not so, or cannot be read. See
            `Fleet.pause`.
    """

    service: str
    time: float
    members: tuple[FleetMember, ...]
    waiting: int
    oldest_waiting: float | None
    owned: int
    orphaned: int
    orphaned_for: float | None
    released: int
    dead_letters: int | None
    unread: tuple[Unread, ...] = ()
    paused: Pause | None = None


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """A data stream that is announced: who owns it, and how far behind it is.

    Attributes:
        stream: name of the data stream; None if its announcement is malformed. It will go to the dead letters.
        lbs_id: id of the announcement.
        owner: id of the consumer for which the announcement is pending; None while it waits for one.
        owner_alive: whether that one lives. If not, a living member will claim the stream.
        deliveries: how many owners the announcement has had; 0: none has been given it yet.
        attempts: how many of them have begun without a step forward, this one included: more than one if owners
            died. 0: this owner has not begun, or does not read entries.
        failures: how often handlers have failed since the checkpoint last advanced.
        failing_since: when the failures began, or the deaths of owners, in seconds of Unix time; None: there are
            none.
        error: class and text of the last failure, or None.
        checkpoint: id of the last entry that was processed; None: none.
        behind: for how many seconds the oldest entry after the checkpoint has been there, as its id says; 0: there
            is none; None: it cannot be read.
        entries: how many entries come after the checkpoint; None: it cannot be read.
        more: whether there are more than `entries`; about 100 of each stream are counted.
        unread: why the progress record or the data stream could not be read; None: they were.
    """

    stream: str | None
    lbs_id: str
    owner: str | None
    owner_alive: bool
    deliveries: int
    attempts: int = 0
    failures: int = 0
    failing_since: float | None = None
    error: str | None = None
    checkpoint: str | None = None
    behind: float | None = None
    entries: int | None = None
    more: bool = False
    unread: str | None = None


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a service is behind, for an autoscaler.

    Attributes:
        entries: entries that come after the checkpoints of all announced streams, together.
        more: whether there are more: about 100 of each stream are counted, and `unread` streams count none.
        behind: the age of the oldest of these entries in seconds, as its id says; 0: there is none.
        stream: the data stream that has it; None: there is none.
        waiting: announcements that no member has been given yet.
        streams: how many announcements there are.
        unread: how many of these have a data stream or a progress record that could not be read.
    """

    entries: int
    more: bool
    behind: float
    stream: str | None
    waiting: int
    streams: int
    unread: int
