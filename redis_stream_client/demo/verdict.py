"""The verdict: what was measured, and everything that was not as promised. No I/O."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from redis_stream_client.demo.book import Effect
from redis_stream_client.demo.ledger import Ledger, Outage
from redis_stream_client.demo.settings import Settings, plural

PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Awakening:
    """What the frozen worker found when it was woken.

    Attributes:
        lost: streams that it saw it had lost.
        kept: streams that were still its own.
        learned_after: seconds until it had seen the last of its losses; None if it saw none.
        refused: writes of its own that came too late and were refused.
    """

    worker: str
    lost: int
    kept: int
    learned_after: float | None
    refused: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is to be judged.

    Attributes:
        written: the number of the last entry of each data stream.
        effects: what was accepted for each data stream.
        announcements_left: on the load balancer stream, where none should be.
    """

    settings: Settings
    ledger: Ledger
    written: Mapping[str, int]
    effects: Mapping[str, Sequence[Effect]]
    announcements_left: int
    dead_letters: int
    awakening: Awakening | None


def problems(facts: Facts) -> list[str]:
    """All that breaks a promise."""
    found = list(facts.ledger.problems)
    for outage in facts.ledger.outages:
        missing = len(outage.held.keys() - outage.recovered.keys())
        if missing:
            found.append(f"{missing} of {outage.worker}'s streams were not recovered after the {outage.harm}")
    if facts.announcements_left:
        found.append(f"{facts.announcements_left} streams were never finished")
    if facts.dead_letters:
        found.append(f"{facts.dead_letters} announcements went to the dead letters")
    for stream, written in facts.written.items():
        found += check(stream, facts.effects.get(stream, ()), written)
    return found


def check(stream: str, effects: Sequence[Effect], written: int) -> list[str]:
    """What is wrong with a data stream's effects, in the order in which they were accepted."""
    found: list[str] = []
    newest = ""
    writers: dict[str, str] = {}
    for effect in effects:
        if effect.fence < newest:
            found.append(f"{stream}: {effect.consumer} wrote entry {effect.number} after a newer owner had")
        newest = max(newest, effect.fence)
        if writers.setdefault(effect.fence, effect.consumer) != effect.consumer:
            found.append(f"{stream}: {effect.consumer} and {writers[effect.fence]} wrote under one fence")
    numbers = [effect.number for effect in effects]
    if numbers != list(range(1, written + 1)):
        counts = Counter(numbers)
        missing = sum(number not in counts for number in range(1, written + 1))
        twice = sum(count > 1 for count in counts.values())
        found.append(
            f"{stream}: of {written} entries {missing} were not processed, {twice} more than once"
            + (", and not in order" if numbers != sorted(numbers) else "")
        )
    return found


def summary(facts: Facts) -> list[str]:
    """What was measured, as lines."""
    ledger = facts.ledger
    written = sum(facts.written.values())
    processed = sum(map(len, facts.effects.values()))
    causes = Counter("other" if change.outage is None else change.outage.harm for change in ledger.handovers)
    hand_overs = f"{len(ledger.handovers)}: {causes['kill']} after the kill, {causes['freeze']} after the freeze"
    if causes["other"]:
        hand_overs += f", {causes['other']} for other reasons"
    rows = [
        ("streams", f"{len(facts.written)}, shared by {facts.settings.workers} workers"),
        ("entries", f"{written:,} written, {processed:,} processed"),
        ("hand-overs", hand_overs),
        ("bound", f"lock_ttl + lock_ttl / 4 = {facts.settings.bound:.2f} s"),
        *((f"{outage.harm} {outage.worker}", _recovery(outage, facts.settings)) for outage in ledger.outages),
    ]
    if facts.awakening is not None:
        rows.append((f"wake {facts.awakening.worker}", _awakening(facts.awakening)))
    rows.append(("owners", _owners(facts)))
    rows.append(
        ("unfinished", f"{plural(facts.announcements_left, 'announcement')} left on the load balancer stream")
        if facts.announcements_left
        else ("finished", "all streams; the load balancer stream is empty")
    )
    width = max(len(name) for name, _ in rows)
    return [f"  {name:{width}}  {text}" for name, text in rows]


def conclusion(found: Sequence[str]) -> str:
    """The last words: pass or fail, and why."""
    if not found:
        return "PASS: every stream recovered, every entry processed once and in order, one owner at a time"
    shown = [f"FAIL: {problem}" for problem in found[:PROBLEMS_SHOWN]]
    if len(found) > PROBLEMS_SHOWN:
        shown.append(f"FAIL: … and {len(found) - PROBLEMS_SHOWN} more")
    return "\n".join(shown)


def _recovery(outage: Outage, settings: Settings) -> str:
    times = list(outage.recovered.values())
    if not outage.held:
        return "it owned no stream"
    text = f"{len(times)} of {len(outage.held)} streams recovered"
    if not times:
        return text
    late = sum(time > settings.bound for time in times)
    return f"{text}, p50 {median(times):.2f} s, max {max(times):.2f} s{f', {late} late' if late else ''}"


def _awakening(awakening: Awakening) -> str:
    text = f"lost {awakening.lost}, kept {awakening.kept}"
    if awakening.learned_after is not None:
        text += f"; it knew {awakening.learned_after * 1000:.0f} ms after it woke"
    return f"{text}; {plural(awakening.refused, 'late write')} of its own refused"


def _owners(facts: Facts) -> str:
    """How many owners the streams had: 1 and the hand-overs of each."""
    changes = Counter(change.lbs_id for change in facts.ledger.handovers)
    streams = Counter(1 + changes[lbs_id] for lbs_id in facts.ledger.owners)
    counts = ", ".join(f"{count} had {owners}" for owners, count in sorted(streams.items()))
    return f"of {plural(len(facts.ledger.owners), 'stream')} {counts}"
