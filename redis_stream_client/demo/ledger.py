"""What has happened so far: who owned which stream when, and how long each recovery took. No I/O.

Two sources meet here. Redis says who owns a stream, and is believed. The workers' reports say at what moment they
got it, which looking now and then cannot; where the two contradict each other, that is a problem.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from redis_stream_client.demo.reports import Report
from redis_stream_client.demo.truth import Pending, Snapshot

Harm = Literal["kill", "freeze"]

WAIT_FOR_REPORT = 0.5
"""Seconds after which a change of owner is told without the new owner's report."""


@dataclass(slots=True)
class Outage:
    """A worker that was harmed, and what became of the streams it held.

    Attributes:
        at: the moment of the harm.
        held: its streams then: the delivery count of each, by LBS id.
        recovered: seconds until a live peer owned each of them, by LBS id.
    """

    harm: Harm
    worker: str
    consumer: str
    at: float
    held: dict[str, int] = field(default_factory=dict[str, int])
    recovered: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def over(self) -> bool:
        """Whether all of its streams have new owners."""
        return self.recovered.keys() >= self.held.keys()


@dataclass(frozen=True, slots=True)
class Handover:
    """A stream that changed hands."""

    lbs_id: str
    before: str
    after: str
    at: float
    outage: Outage | None
    continues_at: int | None
    """Number of the first entry that is the new owner's to process, if it said so yet."""


@dataclass(slots=True)
class _Change:
    """A change of owner that Redis has shown."""

    lbs_id: str
    before: Pending
    after: Pending
    seen_at: float


class Ledger:
    """Keeps the record."""

    def __init__(self) -> None:
        self.owners: dict[str, Pending] = {}
        """The newest owner of each stream, by LBS id, whether or not it lives."""
        self.snapshot: Snapshot | None = None
        self.handovers: list[Handover] = []
        self.outages: list[Outage] = []
        self.problems: list[str] = []
        self.reports: Counter[tuple[str, str]] = Counter()
        """How many reports of each kind each consumer made, by (consumer, kind)."""
        self.processed: dict[str, int] = {}
        """Entries that each consumer says it has processed."""
        self.disowned: dict[str, dict[str, float]] = {}
        """For each consumer, when it saw the loss of which stream."""
        self._owning: dict[tuple[str, int], Report] = {}  # by LBS id and delivery count
        self._begun: dict[tuple[str, int], int] = {}
        self._changes: list[_Change] = []

    # What comes in.

    def report(self, report: Report) -> None:
        """A worker says something."""
        self.reports[report.consumer, report.kind] += 1
        ownership = (report.lbs_id, report.deliveries)
        match report.kind:
            case "added" | "claimed":
                other = self._owning.setdefault(ownership, report)
                if other.consumer != report.consumer:
                    self._two_owners(report, other.consumer)
            case "begun":
                self._begun.setdefault(ownership, report.number)
            case "disowned":
                self.disowned.setdefault(report.consumer, {})[report.lbs_id] = report.at
            case "progress":
                self.processed[report.consumer] = report.number
            case _:
                pass

    def observe(self, snapshot: Snapshot) -> None:
        """Redis says who owns what."""
        self.snapshot = snapshot
        for lbs_id, pending in snapshot.pending.items():
            before = self.owners.get(lbs_id)
            if before is not None and pending.deliveries <= before.deliveries:
                continue  # as before, or handed back: then there is no new owner yet
            self.owners[lbs_id] = pending
            if before is not None:
                self._changes.append(_Change(lbs_id, before, pending, snapshot.at))

    def settle(self, now: float) -> list[Handover]:
        """The changes of owner that are news: those that the new owner has reported too, or should have."""
        settled: list[Handover] = []
        waiting: list[_Change] = []
        for change in self._changes:
            ownership = (change.lbs_id, change.after.deliveries)
            if ownership not in self._begun and now - change.seen_at < WAIT_FOR_REPORT:
                waiting.append(change)
            else:
                settled.append(self._handover(change))
        self._changes = waiting
        self.handovers += settled
        return settled

    def harmed(self, outage: Outage, snapshot: Snapshot) -> None:
        """A worker was killed or frozen; `snapshot` shows what it held."""
        self.observe(snapshot)
        outage.held = {
            lbs_id: pending.deliveries
            for lbs_id, pending in snapshot.pending.items()
            if pending.consumer == outage.consumer
        }
        self.outages.append(outage)

    # What is asked.

    @property
    def everything_settled(self) -> bool:
        """Whether no change of owner waits to be told."""
        return not self._changes

    def owner(self, lbs_id: str) -> str | None:
        """The consumer that owns a stream now: pending for it, and its lock was not seen to be gone."""
        if self.snapshot is None:
            return None
        pending = self.snapshot.pending.get(lbs_id)
        if pending is None or not self.snapshot.locks.get(pending.consumer, True):
            return None
        return pending.consumer

    def kept(self, outage: Outage) -> int:
        """How many of a harmed worker's streams are still its own, under the same fence."""
        return sum(
            self.owners.get(lbs_id) == Pending(outage.consumer, held) for lbs_id, held in outage.held.items()
        )

    def finished(self, lbs_id: str) -> bool:
        """Whether a stream had an owner and needs none any more."""
        return self.snapshot is not None and lbs_id in self.owners and lbs_id not in self.snapshot.pending

    def owned_by(self, consumer: str) -> int:
        """How many streams are pending for a consumer."""
        if self.snapshot is None:
            return 0
        return sum(pending.consumer == consumer for pending in self.snapshot.pending.values())

    # How it fits together.

    def _handover(self, change: _Change) -> Handover:
        report = self._owning.get((change.lbs_id, change.after.deliveries))
        if report is not None and report.consumer != change.after.consumer:
            self._two_owners(report, change.after.consumer)
            report = None
        at = change.seen_at if report is None else report.at
        outage = self._outage_of(change)
        if outage is not None:
            outage.recovered.setdefault(change.lbs_id, at - outage.at)
        before = self._begun.get((change.lbs_id, change.after.deliveries))
        return Handover(
            change.lbs_id,
            change.before.consumer,
            change.after.consumer,
            at,
            outage,
            None if before is None else before + 1,
        )

    def _outage_of(self, change: _Change) -> Outage | None:
        for outage in self.outages:
            held = outage.held.get(change.lbs_id)
            if change.before.consumer == outage.consumer and change.before.deliveries == held:
                return outage
        return None

    def _two_owners(self, report: Report, other: str) -> None:
        self.problems.append(f"{report.stream} had two owners under one fence: {report.consumer} and {other}")
