"""The verdict: what was measured, and everything that was not as promised. No I/O.

It rests on what was produced and on what Redis holds in the end: the ledger, the load balancer stream and the dead
letters.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from redis_stream_client.demo.history import Harm, History, Incident
from redis_stream_client.demo.ledger import Record
from redis_stream_client.demo.settings import HANDOVER, WORK, Settings, plural

PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Facts:
    """What is to be judged.

    Attributes:
        produced: the number of the last entry of each data stream.
        history: the whole ledger.
        announcements_left: on the load balancer stream, where none should be.
        restart: how long the rolling restart took, and how many entries were added meanwhile; None if there was
            none.
    """

    settings: Settings
    produced: Mapping[str, int]
    history: History
    announcements_left: int
    dead_letters: int
    restart: tuple[float, int] | None


@dataclass(frozen=True, slots=True)
class Effects:
    """What the ledger accepted, compared with what was produced."""

    accepted: int
    lost: int
    duplicates: int
    disordered: int

    @property
    def right(self) -> bool:
        """Whether each entry has one effect, in order."""
        return not (self.lost or self.duplicates or self.disordered)

    def __str__(self) -> str:
        return f"{self.lost:,} lost, {self.duplicates:,} duplicates, {self.disordered:,} out of order"


def compare(records: Sequence[Record], produced: int) -> Effects:
    """Compare a data stream's records with its entries, which are numbered from 1."""
    numbers = [record.number for record in records if record.outcome == "accepted"]
    counts = Counter(numbers)
    known = range(1, produced + 1)
    return Effects(
        accepted=len(numbers),
        lost=sum(number not in counts for number in known),
        duplicates=sum(counts.values()) - len(counts) + sum(number not in known for number in counts),
        disordered=sum(later < earlier for earlier, later in zip(numbers, numbers[1:], strict=False)),
    )


def check(stream: str, records: Sequence[Record], produced: int) -> list[str]:
    """What is wrong with a data stream's records."""
    found: list[str] = []
    effects = compare(records, produced)
    if not effects.right:
        found.append(f"{stream}: of {plural(produced, 'entry').replace('entrys', 'entries')}: {effects}")
    newest, last = "", 0
    writers: dict[str, str] = {}
    for record in records:
        who = f"{stream}: {record.consumer}"
        if record.outcome == "refused":
            continue
        if record.fence < newest:
            found.append(f"{who} wrote entry {record.number} after a newer owner had")
        if writers.setdefault(record.fence, record.consumer) != record.consumer:
            found.append(f"{who} and {writers[record.fence]} wrote under one fence")
        if record.outcome == "repeated" and record.number < last:
            found.append(f"{who} repeated entry {record.number}, though entry {last} was checkpointed after it")
        newest, last = max(newest, record.fence), max(last, record.number)
    return found


def problems(facts: Facts) -> list[str]:
    """All that breaks a promise."""
    history = facts.history
    found: list[str] = []
    for incident in history.incidents:
        missing = len(incident.held) - len(history.recovered(incident))
        if missing:
            found.append(f"{missing} of {incident.worker}'s streams did not go on after the {incident.harm}")
    if repeats := history.count("repeated", "restart"):
        found.append(f"{repeats} repeats in the rolling restart, where there should be none")
    if refused := history.count("refused", "restart"):
        found.append(f"{refused} writes in the rolling restart by workers that had handed over")
    if facts.restart is None:
        found.append("there was no rolling restart")
    if facts.announcements_left:
        found.append(f"{facts.announcements_left} streams were never finished")
    if facts.dead_letters:
        found.append(f"{facts.dead_letters} announcements went to the dead letters")
    of = by_stream(history.records)
    for stream in sorted(facts.produced.keys() | of.keys()):
        found += check(stream, of[stream], facts.produced.get(stream, 0))
    return found


def by_stream(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each data stream, in their order."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[record.stream].append(record)
    return found
