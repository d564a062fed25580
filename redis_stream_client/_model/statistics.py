"""What a client counts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot of one client. Counts are since joining.

    Attributes:
        leases: streams owned now.
        unread_events: events that wait for the iterator.
        last_beat_age: seconds since the last successful beat was sent; None before the first.
        beats: successful beats.
        lapses: how often the lock was lost, or taken for lost.
        reconnects: how often a connection was lost.
        streams_added: streams that arrived by announcement or were adopted by an audit.
        claims_won: claims that gave a lease.
        claims_lost: claims that were refused: a peer was first, or the stream was gone.
        streams_done: announcements acknowledged and deleted.
        streams_released: streams given back unfinished.
        streams_disowned: leases that were lost.
        handlers: handlers at work in `run()` now.
        handlers_failed: how often one raised, or showed no progress.
        dead_letters: announcements moved to the dead letters: malformed ones, and those whose handlers failed too
            often.
        audits: comparisons of the leases with what is pending.
        sweeps: looks for dead consumers.
        gaps: how often entries of a data stream were missing: trimmed or deleted before they were read.
        entries_skipped: how many these were.
        live_members: live consumers of the group, this one included, as last counted or heard.
        oldest_announcement, oldest_unhandled, oldest_wakeup: ages in seconds, as in `Health`; None: there is none.
        requests_shrunk: how often a request went unanswered, and was made smaller.
        records_unsettled: progress records of ended leases that Redis has not been told of yet.
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
    streams_released: int
    streams_disowned: int
    handlers: int
    handlers_failed: int
    dead_letters: int
    audits: int
    sweeps: int
    gaps: int
    entries_skipped: int
    live_members: int
    oldest_announcement: float | None
    oldest_unhandled: float | None
    oldest_wakeup: float | None
    requests_shrunk: int
    records_unsettled: int


@dataclass(slots=True)
class Counters:
    """The running counts behind `Statistics`."""

    beats: int = 0
    streams_added: int = 0
    claims_won: int = 0
    claims_lost: int = 0
    streams_done: int = 0
    streams_released: int = 0
    streams_disowned: int = 0
    handlers: int = 0
    handlers_failed: int = 0
    dead_letters: int = 0
    audits: int = 0
    sweeps: int = 0
    gaps: int = 0
    entries_skipped: int = 0
