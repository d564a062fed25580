"""The verdict: what was measured, and everything that was not as promised. No I/O.

It rests on what was produced and on what Redis holds in the end: the ledger, the load balancer stream and the dead
letters.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from redis_stream_client import Fence
from redis_stream_client.demo.history import Harm, History, Incident, worker_of
from redis_stream_client.demo.ledger import Record
from redis_stream_client.demo.settings import Settings
from redis_stream_client.terminal.text import plural

PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Slept:
    """What became of the sessions.

    Attributes:
        produced: the number of the last message of each.
        records: the part of the ledger that is about them.
        killed: workers that were killed meanwhile.
        awake: sessions that are announced in the end, which all should be asleep.
    """

    produced: Mapping[str, int]
    records: Sequence[Record]
    killed: int
    awake: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is to be judged.

    Attributes:
        produced: the number of the last entry of each data stream.
        history: the whole ledger.
        announcements_left: on the load balancer stream, where none should be.
        restart: how long the rolling restart took, and how many entries were added meanwhile; None if there was
            none.
        rebalanced: seconds after the last worker had joined until the load was even; None if it was not.
        slept: None if it did not come to the sessions.
    """

    settings: Settings
    produced: Mapping[str, int]
    history: History
    announcements_left: int
    dead_letters: int
    restart: tuple[float, int] | None
    rebalanced: float | None
    slept: Slept | None = None


@dataclass(frozen=True, slots=True)
class Effects:
    """What the ledger accepted of a data stream, compared with what was produced."""

    lost: int = 0
    duplicates: int = 0
    disordered: int = 0
    unknown: int = 0

    def __add__(self, other: "Effects") -> "Effects":
        return Effects(
            self.lost + other.lost,
            self.duplicates + other.duplicates,
            self.disordered + other.disordered,
            self.unknown + other.unknown,
        )

    def __str__(self) -> str:
        unknown = f", {self.unknown:,} of no entry" if self.unknown else ""
        return f"{self.lost:,} lost, {self.duplicates:,} twice, {self.disordered:,} out of order{unknown}"


def compare(records: Sequence[Record], produced: int) -> Effects:
    """Compare a data stream's records with its entries, which are numbered from 1."""
    numbers = [record.number for record in records if record.outcome == "accepted"]
    counts = Counter(numbers)
    return Effects(
        lost=sum(number not in counts for number in range(1, produced + 1)),
        duplicates=len(numbers) - len(counts),
        disordered=sum(later < earlier for earlier, later in pairwise(numbers)),
        unknown=sum(not 1 <= number <= produced for number in counts),
    )


def check(stream: str, records: Sequence[Record], produced: int) -> list[str]:
    """What is wrong with a data stream's records."""
    found: list[str] = []
    effects = compare(records, produced)
    if effects != Effects():
        found.append(f"{stream}: of {produced} entries {effects}")
    fence, last = "", 0
    writers: dict[str, str] = {}
    for record in records:
        if record.outcome == "refused":
            continue
        if record.fence < fence:
            found.append(f"{stream}: {record.consumer} wrote entry {record.number} after a newer owner had")
        if writers.setdefault(record.fence, record.consumer) != record.consumer:
            found.append(f"{stream}: {record.consumer} and {writers[record.fence]} wrote under one fence")
        if record.outcome == "repeated" and record.number < last:  # it was checkpointed before the next one
            found.append(f"{stream}: {record.consumer} went back from entry {last} to entry {record.number}")
        fence, last = max(fence, record.fence), max(last, record.number)
    return found


def problems(facts: Facts) -> list[str]:
    """All that breaks a promise."""
    history = facts.history
    found: list[str] = []
    for incident in history.incidents:
        missing = len(incident.held) - len(history.recovered(incident))
        if missing:
            found.append(f"{missing} of {incident.worker}'s streams did not go on after the {incident.harm}")
    if facts.restart is None:
        found.append("it did not come to the rolling restart")
    if repeats := history.count("repeated", "restart"):
        found.append(f"{plural(repeats, 'repeat')} in the rolling restart, where there is no need for any")
    if refused := history.count("refused", "restart"):
        found.append(f"{plural(refused, 'late write')} in the rolling restart, by workers that had handed over")
    if facts.announcements_left:
        found.append(f"{plural(facts.announcements_left, 'stream')} never finished")
    if facts.dead_letters:
        found.append(f"{plural(facts.dead_letters, 'announcement')} in the dead letters")
    records = _by_stream(history.records)
    for stream in sorted(facts.produced.keys() | records.keys()):
        found += check(stream, records[stream], facts.produced.get(stream, 0))
    return found + _sleepless(facts)


def _sleepless(facts: Facts) -> list[str]:
    """What is wrong with the sessions."""
    slept = facts.slept
    if slept is None:
        return ["it did not come to the sessions"] if facts.settings.sessions else []
    found = [f"{plural(slept.awake, 'session')} did not fall asleep"] if slept.awake else []
    records = _by_stream(slept.records)
    for stream, produced in sorted(slept.produced.items()):
        found += check(stream, records[stream], produced)
    return found


def summary(facts: Facts) -> list[str]:
    """What was measured, as lines."""
    history = facts.history
    rows = [
        ("streams", f"{len(facts.produced)}, shared by {facts.settings.workers} workers"),
        ("entries", _effects(facts.produced, history.records)),
        *(
            (f"{incident.harm} {incident.worker}", _times(facts, [incident], "recovered"))
            for incident in history.incidents
            if incident.harm != "restart"
        ),
        ("refused", _refused(history)),
    ]
    if facts.restart is not None:
        seconds, added = facts.restart
        restarted = [incident for incident in history.incidents if incident.harm == "restart"]
        text = f"{plural(len(restarted), 'worker')} in {seconds:.1f} s, while {added:,} entries came"
        rows.append(("rolling restart", text))
        rows.append(("", _times(facts, restarted, "handed over")))
    rows.append(("repeats", _repeats(history)))
    others = sum(change.incident is None for change in history.taken_over)
    if facts.rebalanced is not None:
        rows.append(("rebalanced", f"{plural(others, 'stream')} moved; even after {facts.rebalanced:.1f} s"))
    elif others:
        rows.append(("other", f"{plural(others, 'stream')} taken over for other reasons"))
    if facts.slept is not None:
        rows += _slept(facts.slept)
    left = plural(facts.announcements_left, "announcement")
    rows.append(
        ("unfinished", f"{left} left on the load balancer stream")
        if facts.announcements_left
        else ("finished", "all streams; the load balancer stream is empty")
    )
    width = max(len(name) for name, _ in rows)
    return [f"  {name:{width}}  {text}" for name, text in rows]


def conclusion(facts: Facts, found: Sequence[str]) -> str:
    """The last words: pass or fail, and why."""
    if not found:
        late = sum(
            seconds > _limit(facts, incident.harm)
            for incident in facts.history.incidents
            for seconds in facts.history.recovered(incident).values()
        )
        but = f"; but {late} went on late: is this machine busy?" if late else ""
        return f"PASS: every entry's effect exactly once and in order; nothing lost, nothing twice{but}"
    shown = [f"FAIL: {problem}" for problem in found[:PROBLEMS_SHOWN]]
    if len(found) > PROBLEMS_SHOWN:
        shown.append(f"FAIL: … and {len(found) - PROBLEMS_SHOWN} more")
    return "\n".join(shown)


def _effects(produced: Mapping[str, int], records: Sequence[Record]) -> str:
    accepted = sum(record.outcome == "accepted" for record in records)
    by_stream = _by_stream(records)
    effects = sum((compare(by_stream[stream], count) for stream, count in produced.items()), Effects())
    return f"{sum(produced.values()):,} produced, {accepted:,} effects: {effects}"


def _slept(slept: Slept) -> list[tuple[str, str]]:
    """How the sessions slept and woke. Each time one wakes, it has a new announcement."""
    owners = {(record.stream, record.fence) for record in slept.records if record.outcome != "refused"}
    announcements = {(stream, Fence.parse(fence).lbs_id) for stream, fence in owners}
    woken = len(announcements) - len({stream for stream, _ in announcements})
    went_on = plural(len(owners) - len(announcements), "session")
    repeats = sum(record.outcome == "repeated" for record in slept.records)
    return [
        ("sessions", f"{len(slept.produced)}, woken {woken:,} times; in the end {slept.awake or 'none'} awake"),
        ("messages", _effects(slept.produced, slept.records)),
        ("", f"{plural(slept.killed, 'owner')} killed; {went_on} went on awake, {plural(repeats, 'repeat')}"),
    ]


def _by_stream(records: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[record.stream].append(record)
    return found


def _limit(facts: Facts, harm: Harm) -> float:
    """How soon a stream should go on."""
    settings = facts.settings
    limits = {"kill": settings.kill_limit, "freeze": settings.freeze_limit, "restart": settings.restart_limit}
    return limits[harm]


def _times(facts: Facts, incidents: Sequence[Incident], what: str) -> str:
    """How many streams went on, and how soon."""
    held = sum(len(incident.held) for incident in incidents)
    if not held:
        return "no stream to hand on"
    times = [seconds for incident in incidents for seconds in facts.history.recovered(incident).values()]
    text = f"{len(times)} of {plural(held, 'stream')} {what}"
    if not times:
        return text
    limit = _limit(facts, incidents[0].harm)
    late = sum(seconds > limit for seconds in times)
    text += f", p50 {median(times):.2f} s, max {max(times):.2f} s (limit {limit:.2f} s)"
    return f"{text}, {late} late" if late else text


def _refused(history: History) -> str:
    writers = Counter(worker_of(record.consumer) for record in history.records if record.outcome == "refused")
    whose = ", ".join(f"{count} of {name}" for name, count in sorted(writers.items()))
    return f"{plural(writers.total(), 'late write')}{f': {whose}' if whose else ''}"


def _repeats(history: History) -> str:
    when: list[tuple[Harm | None, str]] = [
        ("kill", "after the kill"),
        ("freeze", "after the freeze"),
        ("restart", "in the rolling restart"),
    ]
    if history.count("repeated", None):
        when.append((None, "for other reasons"))
    return ", ".join(f"{history.count('repeated', harm)} {text}" for harm, text in when)
