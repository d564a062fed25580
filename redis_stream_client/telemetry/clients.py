"""The clients whose statistics are exported.

Exporters ask on threads of their own, and a client belongs to its event loop. So each client is asked on its loop.
"""

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import NamedTuple

from redis_stream_client import Membership, Statistics

FRESH = 0.1
"""Seconds for which the answers serve: an exporter asks for one metric after the other."""

PATIENCE = 0.5
"""Seconds that event loops have to answer. For one that is busy longer, its last answer stands."""


class Snapshot(NamedTuple):
    """What one client has said of itself."""

    service: str
    statistics: Statistics


class Clients:
    """The clients that have joined and not left. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._members: tuple[_Member, ...] = ()
        self._lock = threading.Lock()  # for changes of the tuple alone; nobody waits with it
        self._asked_at: float | None = None

    def add(self, membership: Membership) -> None:
        """A client has joined. Call it on the client's event loop."""
        with self._lock:
            self._members = (*self._members, _Member(membership))
            self._asked_at = None

    def remove(self, membership: Membership) -> None:
        """A client has left. Nothing of it is kept."""
        with self._lock:
            self._members = tuple(each for each in self._members if each.consumer != membership.consumer)

    def snapshots(self) -> Sequence[Snapshot]:
        """What each client says. Waits for event loops, but not for that of the calling thread."""
        now = time.monotonic()
        if self._asked_at is None or now - self._asked_at > FRESH:
            self._ask()
            self._asked_at = time.monotonic()
        return [member.snapshot for member in self._members if member.snapshot is not None]

    def _ask(self) -> None:
        answers = [answer for member in self._members if (answer := member.ask()) is not None]
        if answers:
            wait(answers, timeout=PATIENCE)


class _Member:
    """One client, and what it said when it was asked last."""

    def __init__(self, membership: Membership) -> None:
        self.snapshot: Snapshot | None = None
        self._membership = membership
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()

    @property
    def consumer(self) -> str:
        """Id of the client."""
        return self._membership.consumer

    def ask(self) -> Future[None] | None:
        """Have the client asked on its loop. None: it was asked at once, or cannot be."""
        if self._process != os.getpid() or self._loop.is_closed():  # a fork has a copy of its parent's clients
            self.snapshot = None
            return None
        answer = Future[None]()
        if _running_loop() is self._loop:
            self._look(answer)
            return None
        try:
            self._loop.call_soon_threadsafe(self._look, answer)
        except RuntimeError:  # it was closed just now
            self.snapshot = None
            return None
        return answer

    def _look(self, answer: Future[None]) -> None:
        try:
            self.snapshot = Snapshot(self._membership.service, self._membership.statistics())
        finally:
            answer.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
