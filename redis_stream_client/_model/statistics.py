"""What a client counts, and the snapshot of it that users get."""

from dataclasses import dataclass
from typing import Literal

from redis_stream_client._model.orders import Pause

MOST_FAILING = 100
"""The most failing streams that a snapshot names."""


@dataclass(frozen=True, slots=True)
class FailingStream:
    """A stream whose handlers fail.

    Attributes:
        stream: name of the data stream.
        failures: how often a handler has failed since the checkpoint last advanced.
        since: when the first of them failed, in seconds of Unix time.
        error: class and text of the last failure.
    """

    stream: str
    failures: int
    since: float
    error: str


@dataclass(frozen=True, slots=True)
class Outage:
    """The handlers of many streams fail and none progresses, as in an outage of what they depend on.

    Attributes:
        since: when the first of them failed, in Unix seconds.
        streams: how many streams failed here.
        error: the newest error of the commonest kind.
    """

    since: float
    streams: int
    error: str


Standing = Literal["declared", "withdrawn", "impossible", "off"]
"""What a client has declared about its presence; see `Presence`."""


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether peers would notice at once that this client has crashed, and what it knows of theirs.

    Attributes:
        state: ``declared``: peers notice a crash at once. ``withdrawn``: not now, because the connection that
            proves that we live was just lost, or is new. ``impossible``: Redis does not permit it, or something
            between hides that connection. ``off``: the client was made with ``presence=False``. In all but the
            first, peers notice a crash when the lock expires.
        members: how many members have declared their presence, as last seen, this client included.
        watching: whether this client is the one that watches all others.
        deposed: how many members this client has found dead by their presence.
        withdrawals: how often this client has withdrawn its declaration, because its connection was lost.
    """

    state: Standing
    members: int
    watching: bool
    deposed: int
    withdrawals: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot of one client. Counts start when the client joins.

    Attributes:
        leases: streams that the client owns now.
        unread_events: events that nobody has read from the iterator yet.
        last_beat_age: seconds since the client sent its last successful beat; None before the first.
        beats: successful renewals of the consumer lock.
        lapses: how often the client lost its lock, or had to assume so.
        reconnects: how often the client lost a connection.
        streams_added: streams that came by an announcement, or that an audit found.
        claims_won: claims that gave a lease.
        claims_lost: claims that Redis refused: a peer was first, or the stream was gone.
        streams_done: streams that were finished.
        streams_slept: how many of these were put to sleep: `Lease.done_if_idle` finished them.
        streams_released: streams that were given back unfinished.
        streams_disowned: leases that were lost.
        handlers: handlers that `run()` has at work now.
        suspects: streams whose earlier owners have died, and whose handlers wait for their turn.
        handlers_failed: how often a handler raised, or showed no progress.
        dead_letters: announcements that went to the dead letters, because they were malformed or their handlers
            failed too often.
        audits: how often the client compared its leases with what is pending in Redis.
        sweeps: how often the client looked for dead consumers.
        rebalance_asks: how often this client has asked its peers for streams, because it had clearly fewer.
        streams_received: streams that came while it asked.
        streams_given: streams that it has given to peers that had fewer.
        streams_going: streams that it is giving away now: their handlers have not come to a checkpoint yet.
        gaps: how often entries of a data stream were missing: trimmed or deleted before they were read.
        entries_skipped: how many entries these gaps had.
        live_members: live consumers of the group, this one included, as last counted or heard.
        oldest_announcement, oldest_unhandled, oldest_wakeup: ages in seconds, as in `Health`; None: nothing waits.
        requests_shrunk: how often a request got no answer and was repeated for less.
        records_unsettled: ended leases whose progress record, or data stream, still has to be updated in Redis.
        failing: streams of this client whose handlers have failed since the checkpoint last advanced: at most 100,
            those that have been failing for longest.
        outage: in `run()`, what looks like an outage of something that the handlers depend on: their failures do
            not count, and this client tries one stream at a time. None: there is none.
        paused: the pause of the fleet in which this client takes no new streams; None: there is none.
        presence: how a crash of this client would be noticed.
    """

    leases: int
    unread_events: int
    last_beat_age: float | None
    beats: int
    lapses: int
    reconnects: int
    streams_added: int
    claims_won: int
    claims_lost: int
    streams_done: int
    streams_slept: int
    streams_released: int
    streams_disowned: int
    handlers: int
    suspects: int
    handlers_failed: int
    dead_letters: int
    audits: int
    sweeps: int
    rebalance_asks: int
    streams_received: int
    streams_given: int
    streams_going: int
    gaps: int
    entries_skipped: int
    live_members: int
    oldest_announcement: float | None
    oldest_unhandled: float | None
    oldest_wakeup: float | None
    requests_shrunk: int
    records_unsettled: int
    failing: tuple[FailingStream, ...]
    outage: Outage | None
    paused: Pause | None
    presence: Presence


@dataclass(slots=True)
class Counters:
    """The running counts behind `Statistics`."""

    beats: int = 0
    streams_added: int = 0
    claims_won: int = 0
    claims_lost: int = 0
    streams_done: int = 0
    streams_slept: int = 0
    streams_released: int = 0
    streams_disowned: int = 0
    handlers: int = 0
    suspects: int = 0
    handlers_failed: int = 0
    dead_letters: int = 0
    audits: int = 0
    sweeps: int = 0
    rebalance_asks: int = 0
    streams_received: int = 0
    streams_given: int = 0
    streams_going: int = 0
    gaps: int = 0
    entries_skipped: int = 0


NOTHING = Statistics(
    leases=0,
    unread_events=0,
    last_beat_age=None,
    lapses=0,
    reconnects=0,
    live_members=1,
    oldest_announcement=None,
    oldest_unhandled=None,
    oldest_wakeup=None,
    requests_shrunk=0,
    records_unsettled=0,
    failing=(),
    outage=None,
    paused=None,
    presence=Presence(state="withdrawn", members=0, watching=False, deposed=0, withdrawals=0),
    **{name: getattr(Counters(), name) for name in Counters.__slots__},
)
"""Of a client that has not joined."""
