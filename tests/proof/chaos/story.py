"""What happened, told by lease, stream and member instead of by process. Built from the histories alone."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.proof.chaos.history import Event

FOREVER = math.inf
LONGEST_PACE = 2.0  # seconds


class Interval(NamedTuple):
    """From when to when."""

    begin: float
    end: float

    def meets(self, begin: float, end: float) -> bool:
        """Whether the two have an instant in common."""
        return self.begin <= end and begin <= self.end


@dataclass(eq=False)
class Lease:
    """One lease of one member, as it saw it. `fence` is the one that it had when it was handed its first entry."""

    leased: Event
    fence: str
    entries: list[Event] = field(default_factory=list)
    """Those that it was handed."""
    checkpoints: list[Event] = field(default_factory=list)
    """Those that were accepted."""
    returned: Event | None = None
    failed: Event | None = None
    lost: Event | None = None

    @property
    def handed(self) -> Event | None:
        """Its first entry."""
        return self.entries[0] if self.entries else None

    @property
    def source(self) -> str:
        """The member."""
        return self.leased.source

    @property
    def stream(self) -> str:
        """Name of the stream."""
        return str(self.leased.args[1])

    @property
    def lbs_id(self) -> str:
        """Id of the announcement."""
        return str(self.leased.args[2])

    def ended_before(self, time: float) -> bool:
        """Whether its holder had let it go, or was about to."""
        return any(event is not None and event.time < time for event in (self.returned, self.lost))


@dataclass(eq=False)
class Attempt:
    """What a writer did to write an entry."""

    begun: Event
    written: Event | None = None

    @property
    def id(self) -> str:
        """The id that the writer gave it, or ""."""
        return str(self.begun.args[2])

    def until(self, time: float) -> Interval:
        """When the entry may have been written, if it was there at this time."""
        return Interval(self.begun.time, min(time, self.written.time if self.written else FOREVER))


@dataclass(eq=False)
class Stream:
    """One data stream."""

    announced: list[Event] = field(default_factory=list)
    added: dict[str, Event] = field(default_factory=dict)
    """By the entry's id."""
    in_doubt: list[Event] = field(default_factory=list)
    """Entries that were perhaps added."""
    attempts: list[Attempt] = field(default_factory=list)
    """Of writers."""
    ended: list[Event] = field(default_factory=list)
    entries: tuple[str, ...] | None = None
    """All ids at the end of the run."""
    written: list[Event] = field(default_factory=list)
    """What the ledger was asked for, in its order."""
    leases: list[Lease] = field(default_factory=list)
    offered: list[Event] = field(default_factory=list)


@dataclass(eq=False)
class Member:
    """One process."""

    spawned: Event | None = None
    joined: Event | None = None
    exited: Event | None = None
    suicide: Event | None = None
    stuck: list[Event] = field(default_factory=list)
    beliefs: list[Event] = field(default_factory=list)
    """When the client began to believe that it is alive, and ceased to."""
    presence: list[Event] = field(default_factory=list)
    """When what it has declared about its presence changed."""
    blocked: list[tuple[Event, float]] = field(default_factory=list)
    """Since when, and until when, the handler blocked the event loop."""
    lags: list[Event] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)

    @property
    def in_run(self) -> bool:
        """Whether it uses `run()`."""
        return self.joined is not None and self.joined.args[1] == "run"

    def declared(self, begin: float, end: float) -> bool:
        """Whether its presence was declared all that time."""
        before = [event for event in self.presence if event.time <= end]
        return bool(before) and before[-1].args[0] == "declared" and before[-1].time < begin

    @property
    def gone(self) -> float:
        """When it ended, if it did."""
        return min((event.time for event in (self.exited, self.suicide) if event is not None), default=FOREVER)


@dataclass(eq=False)
class Fault:
    """One fault."""

    event: Event
    silent: Event | None = None
    """From when on nobody, or not this member, hears from the server."""
    end: float = FOREVER

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.event.args[1])

    @property
    def member(self) -> str:
        """The member or the writer that it struck, or "" for the server."""
        return str(self.event.args[2])

    @property
    def of_writer(self) -> bool:
        """Whether it struck a writer: all others are as well as before."""
        return is_writer(self.member)

    @property
    def detail(self) -> str:
        """The first of its details."""
        return str(self.event.args[3]) if len(self.event.args) > 3 else ""

    @property
    def interval(self) -> Interval:
        """How long it lasted."""
        return Interval(self.event.time, self.end)


def is_writer(name: str) -> bool:
    """Whether it is the name of a writer, not of a member."""
    return name.startswith("w")


def pace(lock_ttl: float) -> float:
    """The time scale of all but the lock's own life, in seconds."""
    return min(lock_ttl, LONGEST_PACE)


class Story:
    """All that happened."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.lock_ttl = 1.0
        self.seed = 0
        self.server = ""
        self.clock = 0.0
        """What to add to the time of the servers' clock."""
        self.streams: defaultdict[str, Stream] = defaultdict(Stream)
        self.members: defaultdict[str, Member] = defaultdict(Member)
        self.faults: dict[int, Fault] = {}
        self._struck: defaultdict[str, list[Fault]] = defaultdict(list)
        self.skipped = 0
        self.forgotten: list[tuple[Interval, Event]] = []
        self.run_lags: list[Event] = []
        self.slow: list[Event] = []
        self.malformed: list[Event] = []
        self.poison: list[Event] = []
        self.owners: defaultdict[str, list[Event]] = defaultdict(list)
        """When somebody else came to own an announcement, by its LBS id."""
        self.unread: list[Event] = []
        self.left_over: Event | None = None
        self.remembered: Event | None = None
        self.woken: list[Event] = []
        """When all sessions were announced after a failover."""
        self.unannounced: list[Event] = []
        self.closing = FOREVER
        """From when on the members were told to leave."""
        self._leases: dict[tuple[str, int], Lease] = {}
        self._attempts: dict[tuple[str, int], Attempt] = {}
        for event in events:
            match event.source:
                case "run":
                    self._of_run(event)
                case "ledger":
                    self.streams[event.args[2]].written.append(event)
                case "producer":
                    self._of_producer(event)
                case source if is_writer(source):
                    self._of_writer(event)
                case _:
                    self._of_member(event)

    @property
    def pace(self) -> float:
        """The time scale of all but the lock's own life, in seconds."""
        return pace(self.lock_ttl)

    def lease(self, written: Event) -> Lease | None:
        """The lease under which an effect was written."""
        return self._leases.get((written.args[0], written.args[1]))

    def forgets(self, begin: float, end: float) -> bool:
        """Whether some of what was written in this time was lost in a failover."""
        return any(window.meets(begin, end) for window, _ in self.forgotten)

    def faults_of(self, member: str) -> list[Fault]:
        """The faults that struck a member, or, for "", the server."""
        return self._struck[member]

    def _of_run(self, event: Event) -> None:
        args = event.args
        match event.kind:
            case "began":
                self.lock_ttl, self.seed, self.server = args
            case "clock":
                [self.clock] = args
            case "fault":
                self.faults[args[0]] = fault = Fault(event)
                self._struck[fault.member].append(fault)
            case "silent":
                self.faults[args[0]].silent = event
            case "over":
                self.faults[args[0]].end = event.time
            case "skipped":
                self.skipped += 1
            case "forgot":
                self.forgotten.append((Interval(args[0], event.time), event))
            case "spawned":
                self.members[args[0]].spawned = event
            case "exited":
                self.members[args[0]].exited = event
            case "lag":
                self.run_lags.append(event)
            case "owners":
                for id, consumer in args[0]:
                    self.owners[id].append(event._replace(args=(id, consumer)))
            case "unread":
                self.unread.append(event)
            case "malformed":
                self.malformed.append(event)
            case "poison":
                self.poison.append(event)
            case "unannounced":
                self.unannounced.append(event)
            case "remembered":
                self.remembered = event
            case "left over":
                self.left_over = event
                self.closing = event.time
            case _:
                pass

    def _of_producer(self, event: Event) -> None:
        if event.kind == "slow":
            self.slow.append(event)
            return
        if event.kind == "woken":
            self.woken.append(event)
            return
        stream, id, *_ = event.args
        match event.kind:
            case "announced":
                self.streams[stream].announced.append(event)
            case "added" if id:
                self.streams[stream].added[id] = event
            case "added":
                self.streams[stream].in_doubt.append(event)
            case "ended":
                self.streams[stream].ended.append(event)
            case "entries":
                self.streams[stream].entries = tuple(id)
            case _:
                pass

    def _of_writer(self, event: Event) -> None:
        match event.kind, event.args:
            case "writing", [stream, number, _]:
                self._attempts[event.source, number] = attempt = Attempt(event)
                self.streams[stream].attempts.append(attempt)
            case "written", [stream, number, id]:
                self._attempts[event.source, number].written = event
                if id:
                    self.streams[stream].added[id] = event
            case _:
                pass

    def added_at(self, stream: Stream, id: str) -> float:
        """When an entry was added, as far as that is known. With the id of a writer it may be any time until the
        writer knew it; else the servers' clock tells."""
        written = stream.added[id].time if id in stream.added else FOREVER
        if not stream.attempts:
            return written
        if any(attempt.id == id for attempt in stream.attempts):
            return written
        return int(id.partition("-")[0]) / 1000 + self.clock

    def _of_member(self, event: Event) -> None:
        member = self.members[event.source]
        match event.kind:
            case "joined":
                member.joined = event
            case "alive" | "lapsed":
                member.beliefs.append(event)
            case "presence":
                member.presence.append(event)
            case "stuck":
                member.stuck.append(event)
            case "suicide":
                member.suicide = event
            case "blocked":
                member.blocked.append((event, FOREVER))
            case "unblocked":
                member.blocked[-1] = (member.blocked[-1][0], event.time)
            case "lag":
                member.lags.append(event)
            case "offered":
                self.streams[event.args[0]].offered.append(event)
            case "leased":
                lease = Lease(event, event.args[3])
                self._leases[event.source, event.args[0]] = lease
                member.leases.append(lease)
                self.streams[lease.stream].leases.append(lease)
            case "left":
                pass
            case _:
                self._of_lease(self._leases[event.source, event.args[0]], event)

    def _of_lease(self, lease: Lease, event: Event) -> None:
        match event.kind:
            case "handed":
                lease.entries.append(event)
            case "fenced" if not lease.entries:
                lease.fence = event.args[1]
            case "checkpoint" if event.args[2] == "accepted":
                lease.checkpoints.append(event)
            case "returned":
                lease.returned = event
            case "failed":
                lease.failed = event
            case "lost":
                lease.lost = event
            case _:
                pass


def earliest(start: float, length: float, disturbed: Sequence[Interval]) -> float:
    """The earliest time from `start` on after which nothing disturbs for `length`."""
    for interval in sorted(disturbed):
        if interval.begin >= start + length:
            break
        start = max(start, interval.end)
    return start
