"""The checker: reads the histories of a run, nothing else, and finds what breaks a promise. No I/O.

| promise | its name in a report |
| --- | --- |
| every entry's effect is accepted exactly once, in order; none is lost | exactly once, in order, none lost |
| fences of accepted effects never decrease, and increase with each change of owner | fences |
| no owner is let in again, with an effect or a checkpoint, after a newer one was | one owner, checkpoints |
| who suffers nothing keeps what it owns | kept |
| two leases of an announcement never begin under one fence | fences |
| what one owner's accepted checkpoint covers is handed to no newer owner: none is accepted twice | checkpoints |
| every stream is finished; dead letters are the malformed and the poisoned alone | finished, dead letters |
| whose owner is gone is offered to a peer within `lock_ttl` + a quarter of the pace + one round trip | recovery |
| … and within `NOTICED` + the same, if it crashed, and both had declared their presence | recovery |
| who hears nothing from the server believes that it is alive for no longer than `lock_ttl` | beliefs |
| while an entry of a session is unread, its announcement is outstanding, at every instant | asleep |
| in the end all sessions sleep; what is left of them is a record that expires | asleep |
| no member and no writer ends but those that were told to | members |
| what is there is worked on within a bound (`liveness.py`) | unread announcement, owned and unhandled, … |

What is allowed, and only that:

- A failover that forgets writes (`forgot`) undoes them: an entry is missing in the end; a checkpoint or a `begin`
  that was stored in that time does not bind the next owner. The ledger is a server of its own and forgets nothing:
  its effects are held to all promises even then.
- While the server, or each peer that could take a stream over, suffers a fault, the clock of recovery stands; it
  starts anew at the fault's end. Whatever the histories measured is added: how late the event loops of that peer
  and of the proxies were, and how long the producer's slowest round trip took in that time, for three of them. A
  lag of a whole heartbeat is a fault: the proxies' an outage of the server, a member's its own.
- Of hundreds of streams that are lost at once, each adds a millisecond to the bound of all.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis_stream_client._model.entry import order
from tests.proof.chaos.liveness import liveness
from tests.proof.chaos.sessions import is_session
from tests.proof.chaos.story import FOREVER, Fault, Interval, Lease, Member, Story, Stream, earliest
from tests.proof.chaos.trouble import (
    ASIDE,
    BY_HOLDER,
    DEPENDENCY_AWAY,
    FEW_SWEEPS,
    FOR_EVER,
    HALF_A_GRACE,
    JUST,
    KILLS,
    LEAVES,
    LISTENERS_CUT,
    MEASURED_FROM,
    OPERATOR,
    SERVER_AWAY,
    STALL,
    Violation,
    away,
    cannot_begin,
    in_line,
    is_away,
    of_member,
    stalls,
    total,
    violation,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.proof.chaos.history import Event

NOTICED = 1.0
"""Seconds within which presence shows a crash: a third of it, and the rest for a machine with other work."""
SETTLED = 1.5
"""Seconds within which presence is the same as before, after all listeners were cut or a member was lost."""
CRASHES = frozenset({"kill", "suicide"})
ROUND_TRIPS = 3
"""Of a recovery, one after the other: a look whose lock is gone, a claim, a handler's beginning."""
EACH = 0.001
"""Seconds for each of the streams that were lost at once: their handlers share two cores with all else."""
DRAIN = 5.0
"""Seconds that a member in `run()` gives its handlers when it is told to leave."""
TAKEN = frozenset({"expired", "claimed", "gone"})
LAST_HARM = 2.0
"""Lifetimes of a lock within which a member has noticed what a fault that is over has cost it."""
LOOKS = 0.5
"""Seconds between two looks at who owns what."""
LOOK = 0.05
"""Seconds between two looks of a member at what its client believes."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """A stream that lost its owner.

    Attributes:
        cause: the fault.
        seconds: from the owner's last possible beat to the first offer to a peer, or a peer's lease.
        clean: no other fault overlapped.
        due: seconds after which it is late, or None when it need not be recovered at all: the owner came back,
            or the run ended, before.
    """

    stream: str
    cause: str
    seconds: float
    clean: bool
    due: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found. Violations are in order of time."""

    story: Story
    violations: list[Violation]
    recoveries: list[Recovery]


def check(events: Iterable[Event]) -> Verdict:
    """Check merged histories."""
    story = Story(events)
    found: list[Violation] = []
    for name, stream in story.streams.items():
        if not name.startswith(ASIDE):
            for rule in (_entries, _order, _fences, _owners, _beginnings, _checkpoints):
                found += rule(story, name, stream)
    found += _kept(story)
    found += _unannounced(story)
    found += _end(story)
    found += _members(story)
    found += _beliefs(story)
    found += liveness(story)
    recoveries: list[Recovery] = []
    dues: Dues = {}
    for loss in _losses(story):
        recovery, broken = _recovery(story, loss, dues)
        recoveries += [recovery] if recovery else []
        found += [broken] if broken else []
    return Verdict(story, sorted(found, key=lambda violation: violation.time), recoveries)


# Effects.


def _accepted(stream: Stream) -> list[Event]:
    return [written for written in stream.written if written.args[5] == "accepted"]


def _leased(story: Story, written: Event) -> Event | None:
    lease = story.lease(written)
    return lease.leased if lease else None


def _order(story: Story, name: str, stream: Stream) -> Iterator[Violation]:
    """Each effect once, and in order."""
    seen: dict[str, Event] = {}
    last: Event | None = None
    for written in _accepted(stream):
        id = written.args[4]
        if (first := seen.get(id)) is not None:
            what = f"the effect of {name} {id} was accepted twice"
            yield violation("exactly once", what, _leased(story, first), _leased(story, written), first, written)
        elif last is not None and order(id) < order(last.args[4]):
            what = f"the effect of {name} {id} was accepted after that of {last.args[4]}"
            yield violation("in order", what, _leased(story, last), _leased(story, written), last, written)
        seen[id] = written
        last = written


def _entries(story: Story, name: str, stream: Stream) -> Iterator[Violation]:
    """None lost, and none from nowhere."""
    if stream.entries is None:
        return
    accepted = {written.args[4]: written for written in _accepted(stream)}
    by_order = sorted(accepted.values(), key=lambda written: order(written.args[4]))
    missing = [id for id in stream.entries if id not in accepted]
    # Its owner saw an end that a failover then forgot: what was written anew came to a stream that was finished.
    ends = {ended.args[1] for ended in stream.ended}
    if any(end in accepted and end not in stream.entries for end in ends):
        return
    if missing and missing[-1] == stream.entries[-1]:
        last = by_order[-1] if by_order else None
        lease = stream.leases[-1] if stream.leases else None
        yield violation(
            "finished",
            f"{name} was not finished: its last {len(missing)} entries have no effect",
            *(*stream.announced, *stream.ended[-1:], last),
            *((lease.leased, lease.lost) if lease else ()),
        )
    for id in missing:
        before = [written for written in by_order if order(written.args[4]) < order(id)]
        after = [written for written in by_order if order(written.args[4]) > order(id)]
        if after:  # it was passed over
            around = (*before[-1:], *after[:1])
            leases = [_leased(story, written) for written in around]
            yield violation(
                "none lost", f"the effect of {name} {id} was lost", stream.added.get(id), *leases, *around
            )
    for id in accepted.keys() - set(stream.entries):
        added = stream.added.get(id)
        when = [Interval(event.time - JUST, event.time) for event in ([added] if added else stream.in_doubt)]
        if not added or stream.attempts:
            when += [attempt.until(accepted[id].time) for attempt in stream.attempts]
        if not any(story.forgets(*interval) for interval in when):
            what = f"{name} {id} had an effect, but is no entry"
            yield violation("none lost", what, added, _leased(story, accepted[id]), accepted[id])


# Owners.


def _fences(story: Story, name: str, stream: Stream) -> Iterator[Violation]:
    """Of what the ledger accepted, repeats included."""
    let_in = [written for written in stream.written if written.args[5] != "refused"]
    for before, after in itertools.pairwise(let_in):
        evidence = (_leased(story, before), _leased(story, after), before, after)
        if after.args[3] < before.args[3]:
            yield violation("fences", f"the fence of {name} went back", *evidence)
        elif after.args[3] == before.args[3] and after.args[:2] != before.args[:2]:
            yield violation("fences", f"the owner of {name} changed, its fence did not", *evidence)


def _owners(story: Story, name: str, stream: Stream) -> Iterator[Violation]:
    """No owner is let in again after another one was."""
    let_in = [written for written in stream.written if written.args[5] != "refused"]
    left: dict[tuple[str, int], Event] = {}
    for before, after in itertools.pairwise(let_in):
        owner = after.args[:2]
        if owner != before.args[:2]:
            left[before.args[:2]] = before
            if owner in left:
                evidence = (_leased(story, after), _leased(story, before), left[owner], before, after)
                yield violation("one owner", f"two owners of {name} took turns", *evidence)


def _beginnings(story: Story, name: str, stream: Stream) -> Iterator[Violation]:
    """A fence for each lease that was handed anything."""
    begun: dict[str, Lease] = {}
    for lease in stream.leases:
        if lease.handed is None:
            continue
        other = begun.setdefault(lease.fence, lease)
        if other is not lease:
            evidence = (other.leased, other.handed, lease.leased, lease.handed)
            yield violation("fences", f"two leases of {name} began under the fence {lease.fence}", *evidence)


def _checkpoints(story: Story, name: str, stream: Stream) -> Iterator[Violation]:
    """What an owner's checkpoint covers is behind every newer owner, whenever it was accepted."""
    begun = sorted((lease for lease in stream.leases if lease.handed is not None), key=lambda lease: lease.fence)
    for older, newer in itertools.combinations(begun, 2):
        assert newer.handed is not None
        if older.fence == newer.fence or not older.checkpoints:
            continue
        first = newer.handed
        for checkpoint in reversed(older.checkpoints):
            if order(checkpoint.args[1]) < order(first.args[1]):
                break
            if _undone(story, stream, checkpoint, newer):
                continue
            late = checkpoint.args[3] > first.time
            what = (
                f"a checkpoint of {name} was accepted from an older owner after a newer one had begun"
                if late
                else f"{name} {first.args[1]} was handed over again, though a checkpoint covers it"
            )
            yield violation("checkpoints", what, older.leased, checkpoint, newer.leased, first)
            break


def _undone(story: Story, stream: Stream, checkpoint: Event, newer: Lease) -> bool:
    """Whether the checkpoint does not bind the newer owner."""
    assert newer.handed is not None
    if story.forgets(checkpoint.args[3], checkpoint.time):
        return True
    began = Interval(newer.leased.time - story.lock_ttl, newer.handed.time)
    if any(window.meets(*began) and checkpoint.time >= window.begin for window, _ in story.forgotten):
        return True
    # The stream was announced twice, and the newer announcement was finished: the older one goes on after it.
    return any(
        lease.lbs_id == newer.lbs_id != checkpoint_lbs_id
        and lease.lost is not None
        and lease.lost.args[1] == "done"
        and lease.lost.time < checkpoint.time
        for checkpoint_lbs_id in (_lbs_id(stream, checkpoint),)
        for lease in stream.leases
    )


def _lbs_id(stream: Stream, event: Event) -> str:
    for lease in stream.leases:
        if (lease.source, lease.leased.args[0]) == (event.source, event.args[0]):
            return lease.lbs_id
    return ""


def _kept(story: Story) -> Iterator[Violation]:
    """Who suffers nothing keeps what it owns."""
    for name, member in story.members.items():
        for lease in member.leases:
            if lease.lost is None or lease.lost.args[1] not in TAKEN or lease.stream.startswith(ASIDE):
                continue
            end = lease.lost.time
            begin = end - LAST_HARM * story.lock_ttl
            if any(harm.meets(begin, end) for harm in _harm(story, name)):
                continue
            if any(since.time <= end and until >= begin for since, until in member.blocked):
                continue
            lags = total(member.lags, begin, end) + total(story.run_lags, begin, end)
            cut = any(f.kind in LISTENERS_CUT and f.interval.meets(begin, end) for f in story.faults_of(""))
            if lags < (HALF_A_GRACE if cut and member.presence else STALL * story.lock_ttl):
                what = f"{name} lost {lease.stream} ({lease.lost.args[1]}), though nothing had befallen it"
                yield violation("kept", what, lease.leased, lease.lost)


def _harm(story: Story, name: str) -> Iterator[Interval]:
    """The faults after which a member may lose what it owns."""
    for fault in (*story.faults_of(""), *story.faults_of(name)):
        begin, end = fault.interval
        if fault.kind in OPERATOR:
            yield Interval(begin, begin + FEW_SWEEPS * story.lock_ttl)
        elif fault.member or is_away(fault):
            yield Interval(begin, end)


# The end.


def _end(story: Story) -> Iterator[Violation]:
    if story.left_over is None:
        yield Violation("finished", "the run has no end", ())
        return
    announcements, pending, letters = story.left_over.args
    if announcements or pending:
        leases = [
            lease
            for stream in story.streams.values()
            for lease in stream.leases
            if lease.lbs_id in announcements[:1]
        ]
        what = f"{len(announcements)} announcements are left, {len(pending)} are pending"
        evidence = [event for lease in leases for event in (lease.leased, lease.returned, lease.lost)]
        yield violation("finished", what, *evidence, story.left_over)
    for event in story.malformed:
        tag = event.args[0]
        if not any(tag in letter for letter in letters) and not story.forgets(event.time - JUST, event.time):
            yield violation("dead letters", f"{tag} is not in the dead letters", event, story.left_over)
    yield from _asleep(story)
    poison = [event.args[0] for event in story.poison]
    for event, name in zip(story.poison, poison, strict=True):
        buried = any(f'"{name}"' in letter for letter in letters)
        if not buried and not story.forgets(event.time - JUST, event.time):
            yield violation("dead letters", f"{name} is not in the dead letters", event, story.left_over)
    for letter in letters:
        refused = story.forgotten and "Refused: " in letter  # its fence is older than one that was forgotten
        if not refused and "malformed-" not in letter and not any(f'"{name}"' in letter for name in poison):
            yield violation("dead letters", f"{letter[:80]} is in the dead letters", story.left_over)


def _unannounced(story: Story) -> Iterator[Violation]:
    """At no time is an entry of a session unread, and nobody is told."""
    seen: set[str] = set()
    for event in story.unannounced:
        stream = event.args[0]
        forgot = [window for window, _ in story.forgotten if window.begin <= event.time]
        woken = [woken.time for woken in story.woken]
        told = all(any(window.end < time < event.time for time in woken) for window in forgot)
        away = any(
            fault.kind in SERVER_AWAY and fault.interval.meets(event.time - LOOKS, event.time)
            for fault in story.faults_of("")
        )
        if told and not away and stream not in seen:
            seen.add(stream)
            leases = story.streams[stream].leases
            before = [lease for lease in leases if lease.leased.time < event.time][-2:]
            evidence = [one for lease in before for one in (lease.leased, *lease.entries[-1:], lease.lost)]
            what = f"{stream} {event.args[1]} was unread, and nobody would have been told"
            yield violation("asleep", what, story.streams[stream].added.get(event.args[1]), *evidence, event)


def _asleep(story: Story) -> Iterator[Violation]:
    """All sessions sleep, and nothing is left of them but records that expire."""
    if story.remembered is None:
        return
    announced, kept = story.remembered.args
    if announced:
        what = f"{len(announced)} streams are still said to be announced: {', '.join(announced[:5])}"
        yield violation("asleep", what, story.remembered)
    for name in kept:
        stream = story.streams[name]
        last = stream.leases[-1] if stream.leases else None
        if last is None or not story.forgets(last.leased.time, story.closing):
            evidence = (last.leased, last.returned, last.lost) if last else ()
            yield violation("asleep", f"the record of {name} does not expire", *evidence, story.remembered)


def _members(story: Story) -> Iterator[Violation]:
    for name, member in story.members.items():
        event = member.exited
        if event is None:
            continue
        for fault in story.faults_of(name):
            blocked = sum(since.args[0] for since, _ in member.blocked)
            allowed = DRAIN + 3 * story.lock_ttl + blocked + total(member.lags, fault.event.time, event.time)
            if fault.kind in LEAVES and event.time - fault.event.time > allowed:
                what = f"{name} took {event.time - fault.event.time:.1f} s to leave"
                yield violation("members", what, fault.event, event)
        if (code := event.args[1]) == 0:
            continue
        told = event.args[2] or member.suicide is not None
        # A SIGTERM before its signal handler is there ends any process.
        young = member.joined is None or event.time - member.joined.time < story.lock_ttl
        if not told or not (code == -9 or (code == -15 and young)):
            yield violation("members", f"{name} ended with {code}", member.spawned, event)
        elif code == -9 and member.suicide is None and not any(f.kind in KILLS for f in story.faults_of(name)):
            yield violation("members", f"{name} did not leave when it was told to", member.spawned, event)


def _beliefs(story: Story) -> Iterator[Violation]:
    """Who hears nothing from the server for the lifetime of its lock knows that it owns nothing any more."""
    for fault in story.faults.values():
        if fault.silent is None:
            continue
        begin, end = fault.silent.time, fault.end
        for name, member in story.members.items():
            believed = begin + story.lock_ttl + LOOK + JUST + total(member.lags, begin, end)
            before = [event for event in member.beliefs if event.time <= believed]
            if fault.member not in ("", name) or believed > end or not before or before[-1].kind == "lapsed":
                continue
            told = any(fault.kind in FOR_EVER and fault.event.time <= believed for fault in story.faults_of(name))
            still = any(still.meets(begin, believed) for still in _standstills(story, name, member))
            if not still and not told and member.gone > believed:
                what = (
                    f"{name} believed that it was alive {believed - begin:.2f} s after the last it can have heard"
                )
                ceased = [event for event in member.beliefs if event.time > believed]
                yield violation("beliefs", what, before[-1], fault.event, fault.silent, *ceased[:1])


def _standstills(story: Story, name: str, member: Member) -> Iterator[Interval]:
    """When a process could write nothing down."""
    for event, end in member.blocked:
        yield Interval(event.time, end)
    for fault in story.faults_of(name):
        if fault.kind in ("stop", "stop briefly"):
            yield fault.interval


# Recovery.


@dataclass(frozen=True, slots=True)
class _Loss:
    """An owner that cannot beat any more, from `event` until `end`; `cause` names the fault."""

    event: Event
    end: float
    cause: str
    lease: Lease
    together: int
    """How many leases were lost at once."""


def _losses(story: Story) -> Iterator[_Loss]:
    for name, member in story.members.items():
        absences: list[tuple[Event, float, str]] = []
        for fault in story.faults_of(name):
            if fault.kind == "kill":
                absences.append((fault.event, FOREVER, fault.kind))
            elif fault.kind in ("stop", "partition"):
                absences.append((fault.event, fault.end, fault.kind))
        if member.suicide is not None:
            absences.append((member.suicide, FOREVER, "suicide"))
        absences += [(event, end, "block") for event, end in member.blocked]
        for event, end, cause in absences:
            lost = [lease for lease in member.leases if _held(story, lease, event.time)]
            for lease in lost:
                yield _Loss(event, end, cause, lease, len(lost))


def _held(story: Story, lease: Lease, time: float) -> bool:
    """Whether the lease was its holder's, as far as anybody knew."""
    return (
        lease.leased.time < time
        and not lease.ended_before(time)
        and not lease.stream.startswith(ASIDE)
        and not any(
            other.leased.time < time and (other.fence > lease.fence or other.leased.time > lease.leased.time)
            for other in story.streams[lease.stream].leases
            if other is not lease
        )
    )


def _put_to_sleep(story: Story, lease: Lease, since: float) -> list[float]:
    """When a session's announcement was seen to be over: its owner may have died before it could say so."""
    if not is_session(lease.stream):
        return []
    seen = story.owners.get(lease.lbs_id, [])
    return [event.time for event in seen if not event.args[1] and event.time > since]


Dues = dict[tuple[int, str, bool], tuple[float, "Event | None"]]
"""What `_due` found, for hundreds of streams that were lost at once."""


def _recovery(story: Story, loss: _Loss, dues: Dues) -> tuple[Recovery | None, Violation | None]:
    lease, begin = loss.lease, loss.event.time
    stream = story.streams[lease.stream]
    taken = [other.leased for other in stream.leases if other.source != lease.source]
    offered = [event for event in stream.offered if event.source != lease.source]
    after = [event for event in (*taken, *offered) if event.time > begin]
    first = min(after, key=lambda event: event.time, default=None)
    # Its holder's own next word about it: it has it still, or again.
    again = [other.leased for other in stream.leases if other is not lease and other.source == lease.source]
    ended = lease.lost if lease.lost is not None and lease.lost.args[1] in BY_HOLDER else None
    kept = [event.time for event in (lease.returned, ended, *again) if event is not None and event.time > begin]
    kept += _put_to_sleep(story, lease, begin)
    by_run = first is not None and first.kind == "leased" and story.members[first.source].in_run
    key = (id(loss.event), lease.source, by_run)
    if key not in dues:
        dues[key] = _due(story, loss, taken_by_run=by_run)
    due, peer = dues[key]
    if by_run or first is None:
        due += in_line(stream, begin)
    end = min(loss.end, story.closing, *kept)
    broken = None
    if due < end and (first is None or first.time > due) and not _taken_in_silence(story, loss, due):
        late = f"{first.time - begin:.2f} s" if first else "never"
        what = f"{lease.stream} was offered to no peer in time after {loss.cause}: {late}, due {due - begin:.2f} s"
        others = [fault.event for fault in _overlapping(story, begin, due) if fault.event is not loss.event]
        broken = violation("recovery", what, lease.leased, loss.event, *others, peer, first)
    if first is None:
        return None, broken
    overlapping = [f for f in _overlapping(story, begin, first.time) if f.event is not loss.event]
    clean = not any(_other(fault.kind, fault.member, loss) for fault in overlapping) and not any(
        stall.meets(begin, first.time) for stall in stalls(story, story.run_lags)
    )
    recovery = Recovery(lease.stream, loss.cause, first.time - begin, clean, due - begin if due < end else None)
    return (recovery if first.time < end + story.lock_ttl else None), broken


def _taken_in_silence(story: Story, loss: _Loss, due: float) -> bool:
    """Whether a member in run() owned the stream in time, as seen from outside. That its handler has not begun has
    reasons of its own, and is what liveness judges."""
    heirs = {
        member.joined.args[0]
        for name, member in story.members.items()
        if member.joined is not None and member.in_run and name != loss.lease.source
    }
    owners = story.owners[loss.lease.lbs_id]
    return any(loss.event.time < event.time <= due + LOOKS and event.args[1] in heirs for event in owners)


def _other(kind: str, member: str, loss: _Loss) -> bool:
    """Whether it is another fault than the loss itself: the order to do it is none."""
    return not (member == loss.lease.source and kind == loss.cause)


def _overlapping(story: Story, begin: float, end: float) -> list[Fault]:
    faults = story.faults.values()
    return [fault for fault in faults if fault.interval.meets(begin, end) and not fault.of_writer]


def _due(story: Story, loss: _Loss, *, taken_by_run: bool) -> tuple[float, Event | None]:
    """When the stream must have been offered at the latest, and by which member it could have been taken.

    What a member in run() took is offered to nobody else, and shows only when its handler has begun.
    """
    due: tuple[float, Event | None] = (FOREVER, None)
    of_server = {by_run: list(_of_server(story, loss, by_run or taken_by_run)) for by_run in (False, True)}
    lives: list[tuple[float, list[Interval], bool]] = [(story.lock_ttl, [], False)]
    if _present(story, loss):
        lives.append((NOTICED, list(_of_presence(story, loss)), True))
    for name, member in story.members.items():
        if name == loss.lease.source or member.joined is None or member.gone < loss.event.time:
            continue
        by_run = member.in_run
        for life, more, present in lives:
            # In run() nothing shows that a stream was offered, but that it was taken: each member takes its share,
            # and after a quarter of the pace what others left, in parts.
            length = life + story.pace * (0.75 if by_run else 0.25)
            disturbed = [*of_server[by_run], *of_member(story, name, member), *more]
            start = earliest(loss.event.time, length, disturbed)
            if start == FOREVER:
                continue
            at = start + length + 2 * MEASURED_FROM + loss.together * EACH
            if present and not member.declared(loss.event.time - SETTLED, at):
                continue
            lags = total(member.lags, start, at) + total(story.run_lags, start, at)
            slow = ROUND_TRIPS * max(within(story.slow, start, at), default=0.0)
            due = min(due, (at + lags + slow, member.joined), key=lambda pair: pair[0])
    return due


def _present(story: Story, loss: _Loss) -> bool:
    """Whether presence shows the loss: its sockets were closed, and it had declared itself."""
    begin = loss.event.time
    return loss.cause in CRASHES and story.members[loss.lease.source].declared(begin - SETTLED, begin)


def _of_presence(story: Story, loss: _Loss) -> Iterator[Interval]:
    """When the loss may not be seen: the servers suffer something, its network does, or others are lost, too."""
    for fault in story.faults_of(""):
        yield Interval(fault.interval.begin, fault.interval.end + SETTLED)
    for name, member in story.members.items():
        if name == loss.lease.source:
            for fault in story.faults_of(name):
                if fault.kind not in CRASHES:
                    yield fault.interval
        elif loss.event.time - SETTLED < member.gone:
            yield Interval(member.gone, member.gone + SETTLED)


def _of_server(story: Story, loss: _Loss, by_run: bool) -> Iterator[Interval]:
    yield from stalls(story, story.run_lags)
    for fault in (*story.faults_of(""), *story.faults_of(loss.lease.source)):
        if is_away(fault) or (by_run and cannot_begin(fault)):
            yield fault.interval
        elif by_run and fault.kind in DEPENDENCY_AWAY:
            yield away(fault)
        elif fault.kind in OPERATOR:
            begin = fault.interval.begin
            yield Interval(begin, begin + FEW_SWEEPS * story.lock_ttl)
