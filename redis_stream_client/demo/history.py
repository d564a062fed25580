"""What happened, as the ledger tells it: who took over from whom, how soon; what was repeated or refused.

No I/O.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from redis_stream_client.demo.ledger import Outcome, Record

Harm = Literal["kill", "freeze", "restart"]


def worker_of(consumer: str) -> str:
    """The worker's name in a consumer id, ``redis-consumer-<name>-<8 hex>``."""
    return consumer.removeprefix("redis-consumer-").rpartition("-")[0]


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
        seconds: from the incident to the first effect of the new owner, or its first repeat.
    """

    stream: str
    before: str
    after: str
    incident: Incident | None
    seconds: float


@dataclass(frozen=True, slots=True)
class _Owner:
    """Who has written under a fence, and the incident that made it the owner."""

    fence: str
    consumer: str
    incident: Incident | None


class History:
    """Made of incidents, and of all records of the ledger in their order."""

    def __init__(self, incidents: Iterable[Incident] = ()) -> None:
        self.records: list[Record] = []
        self.taken_over: list[TakeOver] = []
        self.writes: Counter[tuple[str, Outcome]] = Counter()
        """How many writes of each consumer had which outcome."""
        self.taken: Counter[str] = Counter()
        """How many streams each consumer took over."""
        self._recovered: dict[Incident, dict[str, float]] = {incident: {} for incident in incidents}
        self._outcomes: Counter[tuple[Harm | None, Outcome]] = Counter()
        self._newest: dict[str, _Owner] = {}  # by data stream

    @property
    def incidents(self) -> list[Incident]:
        """In their order."""
        return list(self._recovered)

    def happened(self, incident: Incident) -> None:
        """Something befalls a worker."""
        self._recovered[incident] = {}

    def add(self, records: Iterable[Record]) -> list[TakeOver]:
        """Take in the next records. Returns the take-overs among them."""
        known = len(self.taken_over)
        for record in records:
            self._add(record)
        return self.taken_over[known:]

    def recovered(self, incident: Incident) -> dict[str, float]:
        """The seconds until each stream went on with a new owner; see `TakeOver`."""
        return self._recovered[incident]

    def over(self, incident: Incident) -> bool:
        """Whether all of its streams go on."""
        return self._recovered[incident].keys() >= incident.held.keys()

    def count(self, outcome: Outcome, harm: Harm | None) -> int:
        """How many writes had this outcome because of such an incident: repeats of who took over from the worker,
        refusals of the worker itself. None: because of none."""
        return self._outcomes[harm, outcome]

    def _add(self, record: Record) -> None:
        self.records.append(record)
        self.writes[record.consumer, record.outcome] += 1
        if record.outcome == "refused":
            incident = self._befell(record)
        else:
            newest = self._newest.get(record.stream)
            if newest is None or record.fence > newest.fence:
                newest = self._newest[record.stream] = self._begin(record, newest)
            incident = newest.incident
        self._outcomes[incident.harm if incident else None, record.outcome] += 1

    def _befell(self, record: Record) -> Incident | None:
        """What had happened last to the writer."""
        for incident in reversed(self._recovered):
            if incident.consumer == record.consumer and incident.at <= record.at:
                return incident
        return None

    def _begin(self, record: Record, before: "_Owner | None") -> "_Owner":
        """A new owner writes for the first time."""
        cause: Incident | None = None
        seconds = 0.0
        for incident, recovered in self._recovered.items():
            held = incident.held.get(record.stream)
            if held is not None and record.fence > held and record.stream not in recovered:
                seconds = recovered[record.stream] = max(0.0, record.at - incident.at)
                cause = incident
        owner = cause.consumer if cause else before.consumer if before else None
        if owner is not None:
            self.taken[record.consumer] += 1
            self.taken_over.append(TakeOver(record.stream, owner, record.consumer, cause, seconds))
        return _Owner(record.fence, record.consumer, cause)
