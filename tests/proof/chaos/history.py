"""Histories: what each process of a run writes down, in an append-only file of JSON lines, and how they are read.

A line is `[time, kind, ...]`, its time in seconds on a clock that all processes of one machine share. A process
that is killed loses nothing that it has written. *lease* is the number of a lease in its process.

| who | kind | what follows |
| --- | --- | --- |
| member | `joined` | consumer id, "run" or "events" |
| | `leased` | lease, stream, LBS id, fence, attempts, position |
| | `alive`, `lapsed` | nothing: what the client believes of itself has changed |
| | `presence` | what the client has declared about its presence: "declared", "withdrawn", … |
| | `stuck` | what the client says is stuck: each what, its stream, and for how many seconds |
| | `offered` | stream, LBS id: a `StreamExpired` |
| | `fenced` | lease, fence: it was raised |
| | `handed` | lease, entry id |
| | `effect` | lease, entry id, outcome by the ledger, when it was sent |
| | `checkpoint` | lease, entry id, "accepted", "refused", "void" or "unknown", when it was sent |
| | `returned` | lease: its handler has returned, and `done` is next |
| | `failed` | lease, what the handler raised |
| | `lost` | lease, reason: it has ended, "done" and "released" included |
| | `blocked`, `unblocked` | seconds for which the event loop is blocked; nothing |
| | `suicide` | nothing |
| | `lag` | seconds that the event loop was late |
| | `left` | nothing |
| producer | `announced` | stream, LBS id, or "" when its outcome is unknown |
| | `added` | stream, entry id, or "" when its outcome is unknown, number |
| | `ended` | stream, entry id of the end marker |
| | `slow` | seconds that a round trip took |
| | `woken` | nothing: it has announced all sessions after a failover |
| | `entries` | stream, ids of all its entries at the end of the run, in order, up to the end marker |
| writer | `writing` | session, number, and the id that the entry will have, or "" |
| | `written` | session, number, and the entry's id, or "" when its outcome is unknown, or it was refused |
| | `left` | nothing |
| ledger | `wrote` | member, lease, stream, fence, entry id, outcome; in the order in which the ledger saw them |
| run | `began` | lock_ttl, seed, server |
| | `clock` | what to add to the time of the servers' clock |
| | `fault` | number, kind, member, writer or "", details: it has begun |
| | `silent` | number: from now on nobody, or not this member, hears from the server |
| | `over` | number |
| | `spawned`, `exited` | member or writer; the same, exit code, and whether it was to exit |
| | `forgot` | since when: what was written from then until now was lost in a failover |
| | `lag` | seconds that the event loop with the proxies was late |
| | `owners` | LBS ids whose owner has changed since the last look, each with its consumer, or "" |
| | `unread` | LBS id of the oldest announcement that was delivered to nobody yet, or "" |
| | `unannounced` | session, an entry that was unread when no announcement was there; its last entry |
| | `poison` | a stream that was announced, and that no handler can process |
| | `malformed` | tag of an announcement that cannot be processed |
| | `left over` | LBS ids that are left at the end, ids that are pending, streams and tags in the dead letters |
| | `remembered` | streams that are still said to be announced; sessions whose records do not expire |
| | `skipped` | number, kind, why a fault could not be done |
| | `ended` | nothing: no fault after this |
| | `closed` | nothing: all members have left |
"""

from __future__ import annotations

import heapq
import json
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from redis_stream_client._concurrency import clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIX = ".jsonl"

now = clock.now


class Event(NamedTuple):
    """One line of somebody's history; `args` are what follows the kind."""

    time: float
    source: str
    kind: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.time:12.4f}  {self.source:10} {self.kind:11} {' '.join(map(_brief, self.args))}"


def _brief(arg: object) -> str:
    text = f"{arg:.4f}" if isinstance(arg, float) else str(arg)
    return text if len(text) <= 80 else f"{text[:77]}…"


class Writer:
    """The history of one process."""

    def __init__(self, directory: Path, source: str) -> None:
        self._directory = directory
        # Unbuffered: each line is one write, which the process's death does not undo.
        self._file = (directory / f"{source}{SUFFIX}").open("ab", buffering=0)

    def write(self, kind: str, *args: object, time: float | None = None) -> None:
        """Write one line."""
        line = [round(now() if time is None else time, 5), kind, *args]
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def beside(self, source: str) -> Writer:
        """Another one in the same directory."""
        return Writer(self._directory, source)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(directory: Path) -> Iterator[Event]:
    """All histories of a run, merged in order of time; those of one process stay in its order."""
    return heapq.merge(*map(_read_file, sorted(directory.glob(f"*{SUFFIX}"))), key=itemgetter(0))


def _read_file(path: Path) -> Iterator[Event]:
    source = path.name.removesuffix(SUFFIX)
    kinds: dict[str, str] = {}
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):  # the last one may be cut off
                time, kind, *args = json.loads(line)
                yield Event(time, source, kinds.setdefault(kind, kind), tuple(args))
