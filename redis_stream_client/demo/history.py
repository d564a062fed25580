"""What happened, as the ledger tells it: who took over from whom, how soon, and what was repeated or refused. No I/O."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from redis_stream_client.demo.ledger import Outcome, Record

Harm = Literal["kill", "freeze", "restart"]


@dataclass(frozen=True, slots=True, eq=False)
class Incident:
    """A worker that was killed, frozen, or asked to leave.

    Attributes:
        at: the moment just before, by the server's clock.
        held: its streams then, with the fence of each.
    """

    harm: Harm
    worker: str
    consumer: str
    at: float
    held: dict[str, str]


@dataclass(frozen=True, slots=True)
class TakeOver:
    """A stream that goes on with another consumer.

    Attributes:
        before, after: the consumers.
        incident: what the reason was, if it was one.
        seconds: from the incident, or from when the entry was added if that was later, to the entry's effect.
    """

    stream: str
    before: str
    after: str
    incident: Incident | None
    seconds: float


class History:
    """Made of incidents, and of all records of the ledger in their order."""

    def __init__(self, incidents: Iterable[Incident] = ()) -> None:
        self.records: list[Record] = []
        self.taken_over: list[TakeOver] = []
        self.effects: Counter[str] = Counter()
        """Effects of each consumer."""
        self._recovered: dict[Incident, dict[str, float]] = {incident: {} for incident in incidents}
        self._outcomes: Counter[tuple[Harm | None, Outcome]] = Counter()
        self._writers: dict[str, tuple[str, str]] = {}  # the newest fence of each stream, and whose it is

    @property
    def incidents(self) -> list[Incident]:
        """In their order."""
        return list(self._recovered)

    def happened(self, incident: Incident) -> None:
        """Something befalls a worker."""
        self._recovered[incident] = {}

    def add(self, records: Iterable[Record]) -> list[TakeOver]:
        """Take in the next records. Returns the take-overs among them."""
        before = len(self.taken_over)
        for record in records:
            self._add(record)
        return self.taken_over[before:]

    def recovered(self, incident: Incident) -> dict[str, float]:
        """The seconds until each stream went on with a new owner; see `TakeOver`."""
        return self._recovered[incident]

    def over(self, incident: Incident) -> bool:
        """Whether all of its streams go on."""
        return self._recovered[incident].keys() >= incident.held.keys()

    def count(self, outcome: Outcome, harm: Harm | None) -> int:
        """How many writes had this outcome after such an incident, and before the next one of another kind."""
        return self._outcomes[harm, outcome]

    def _add(self, record: Record) -> None:
        self.records.append(record)
        happened = [incident for incident in self._recovered if incident.at <= record.at]
        self._outcomes[happened[-1].harm if happened else None, record.outcome] += 1
        if record.outcome == "refused":
            return
        self.effects[record.consumer] += record.outcome == "accepted"
        fence, writer = self._writers.get(record.stream, ("", ""))
        if record.fence > fence:
            self._writers[record.stream] = record.fence, record.consumer
            self._take_over(record, writer)

    def _take_over(self, record: Record, before: str) -> None:
        """A new owner writes for the first time."""
        cause: Incident | None = None
        seconds = 0.0
        for incident, recovered in self._recovered.items():
            held = incident.held.get(record.stream)
            if held is not None and record.fence > held and record.stream not in recovered:
                seconds = recovered[record.stream] = max(0.0, record.at - max(incident.at, record.added))
                cause, before = incident, incident.consumer
        if before:
            self.taken_over.append(TakeOver(record.stream, before, record.consumer, cause, seconds))
