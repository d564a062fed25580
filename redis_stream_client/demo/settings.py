"""What a run of the demo is asked to do, and the pace at which it happens. Durations are seconds."""

import secrets
from dataclasses import dataclass, field

HANDOVER = 0.5
"""The promise: a stream of a drained worker goes on with a peer so soon."""

WORK = 0.1
"""What processing an entry takes. At any moment many streams have work in hand, so that a worker that is stopped is
stopped in the middle of it."""

MOST_ENTRIES_A_SECOND = 200

INSTALL = 'pip install "redis-stream-client[demo]"'


class CannotRun(Exception):
    """The demo cannot run here, or not as asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One run of the demo."""

    workers: int
    streams: int
    redis: str | None
    lock_ttl: float
    service: str = field(default_factory=lambda: f"demo-{secrets.token_hex(4)}")
    """Unique: on a Redis that is not the demo's own, nothing else is touched."""

    @property
    def bound(self) -> float:
        """The promise: a stream has a new owner this long after its owner died, at most."""
        return self.lock_ttl * 1.25

    @property
    def patience(self) -> float:
        """How long a recovery may take before it counts as failed; far beyond the bound, so that a busy
        machine makes a slow run and not a failed one."""
        return self.bound + 3.0

    @property
    def time_limit(self) -> float:
        """The demo gives up after so long, whatever it waits for."""
        return 30.0 + 4 * self.lock_ttl + 2 * self.workers

    @property
    def entry_interval(self) -> float:
        """Between two entries of one data stream."""
        return max(0.2, self.streams / MOST_ENTRIES_A_SECOND)

    @property
    def look_interval(self) -> float:
        """Between two looks at who owns what."""
        return 0.1 if self.lock_ttl >= 1 else 0.05

    def stream(self, number: int) -> str:
        """The name of a data stream."""
        return f"{self.service}:call-{number:0{len(str(self.streams))}d}"


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
