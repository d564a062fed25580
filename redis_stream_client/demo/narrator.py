"""Puts into words and into a table what happens."""

from collections.abc import Sequence

from redis_stream_client.demo.display import ASLEEP, FINISHED, ORPHAN, Display, Row, View
from redis_stream_client.demo.fleet import Fleet, WorkerProcess
from redis_stream_client.demo.history import History, TakeOver, worker_of
from redis_stream_client.demo.source import Sessions, Source
from redis_stream_client.demo.truth import Snapshot
from redis_stream_client.terminal.text import plural

NAMED = 6
"""Owners that are told one by one."""


class Narrator:
    """Tells of one run."""

    def __init__(
        self, display: Display, fleet: Fleet, history: History, source: Source, sessions: Sessions
    ) -> None:
        self._display = display
        self._fleet = fleet
        self._history = history
        self._source = source
        self._sessions = sessions

    def say(self, text: str) -> None:
        """Something happened."""
        self._display.news(text)

    def tell(self, taken_over: Sequence[TakeOver]) -> None:
        """These streams go on with new owners."""
        together: dict[tuple[str, str], list[TakeOver]] = {}
        for change in taken_over:
            together.setdefault((worker_of(change.before), worker_of(change.after)), []).append(change)
        for (before, after), changes in together.items():
            self.say(f"{plural(len(changes), 'stream'):>10}  {before} → {after}{_after(changes)}")

    def shares(self, snapshot: Snapshot) -> str:
        """Who owns how many streams, as text."""
        owned = {worker.name: snapshot.owned_by(worker.consumer) for worker in self._fleet.placement}
        owners = [f"{name} {count}" for name, count in owned.items() if count]
        if len(owners) > NAMED:
            return f"{len(owners)} workers, with {min(filter(None, owned.values()))} – {max(owned.values())} each"
        return ", ".join(owners)

    def show(self, snapshot: Snapshot) -> None:
        """This is how things are."""
        self._display.show(
            View(
                rows=[self._row(worker, snapshot) for worker in self._fleet.placement],
                owners=[self._owner(lbs_id, snapshot) for lbs_id in self._source.streams],
                sessions=[self._awake(stream, snapshot) for stream in self._sessions.produced]
                if self._sessions.begun
                else (),
            )
        )

    def _row(self, worker: WorkerProcess, snapshot: Snapshot) -> Row:
        consumer = worker.consumer
        lock = "gone" if consumer and consumer not in snapshot.consumers else "…"
        if consumer in snapshot.locks:
            lock = "held" if snapshot.locks[consumer] else "gone"
        return Row(
            number=worker.number,
            name=worker.name,
            state=worker.state,
            lock=lock,
            streams=snapshot.owned_by(consumer),
            effects=self._history.writes[consumer, "accepted"] + self._sessions.effects[consumer],
            taken=self._history.taken[consumer],
            refused=self._history.writes[consumer, "refused"],
        )

    def _owner(self, lbs_id: str, snapshot: Snapshot) -> int:
        if self._source.ended and lbs_id not in snapshot.pending:
            return FINISHED
        return self._worker(lbs_id, snapshot)

    def _awake(self, stream: str, snapshot: Snapshot) -> int:
        newest = snapshot.newest.get(stream, "")
        return self._worker(newest, snapshot) if newest in snapshot.pending else ASLEEP

    def _worker(self, lbs_id: str, snapshot: Snapshot) -> int:
        owner = snapshot.owner(lbs_id)
        for worker in self._fleet.placement:
            if worker.consumer == owner and worker.state != "killed":
                return worker.number
        return ORPHAN


def _after(changes: Sequence[TakeOver]) -> str:
    """How long after the harm, as text."""
    incident = changes[0].incident
    if incident is None:
        return ""
    times = sorted(change.seconds for change in changes)
    first, last = f"{times[0]:.2f}", f"{times[-1]:.2f}"
    what = "SIGTERM" if incident.harm == "restart" else incident.harm
    return f"  {first if first == last else f'{first} – {last}'} s after the {what}"
