"""What a run of the demo is asked to do, and the pace at which it happens. Durations are seconds."""

import secrets
from dataclasses import dataclass, field

WORK = 0.1
"""What processing an entry takes. At any moment many streams have work in hand, so that a worker that is stopped
is stopped in the middle of it."""

ENTRY_INTERVAL = 0.2
"""Between two entries of one data stream, as long as there are not more than so many in all."""

MOST_ENTRIES_A_SECOND = 200

LONGEST_PAUSE = 2.0
"""Between two messages of one session, as long as there are not more than so many entries in all."""

IDLE = 0.5
"""After so long without a message a session falls asleep. Many messages come just when it does."""

SETTLE = 0.5
"""For so long nobody must have joined before streams move to those that have too few, and four times as long
nobody must have left. The library's default is made for deploys that last longer than this demo."""

CRASH = 0.35
"""Between a crash and the moment at which a peer goes on, at most, however long the lock lives."""

LONGEST_PACE = 2.0
"""What the library does besides takes no longer with a `lock_ttl` beyond this one."""

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
    sessions: int = 200
    service: str = field(default_factory=lambda: f"demo-{secrets.token_hex(4)}")
    """Unique: on a Redis that is not the demo's own, nothing else is touched."""

    @property
    def bound(self) -> float:
        """The promise: a stream has a new owner this long after its owner froze, at most."""
        return self.lock_ttl + min(self.lock_ttl, LONGEST_PACE) / 4

    @property
    def freeze_limit(self) -> float:
        """From the freeze of a stream's owner to the next effect: the bound, and the work on an entry."""
        return self.bound + WORK + self._lull

    @property
    def kill_limit(self) -> float:
        """The same from SIGKILL, which ends the connections of a process."""
        return min(CRASH, self.bound) + WORK + self._lull

    @property
    def restart_limit(self) -> float:
        """The same from SIGTERM."""
        return 0.5 + self._lull

    @property
    def patience(self) -> float:
        """How long a recovery may take before it counts as failed; far beyond the bound, so that a busy
        machine makes a slow run and not a failed one."""
        return self.freeze_limit + 3.0

    @property
    def time_limit(self) -> float:
        """The demo gives up after so long, whatever it waits for."""
        return 60.0 + 4 * self.lock_ttl + (2 + self.entry_interval) * self.workers

    @property
    def entry_interval(self) -> float:
        """Between two entries of one data stream."""
        return max(ENTRY_INTERVAL, self.streams / MOST_ENTRIES_A_SECOND)

    @property
    def longest_pause(self) -> float:
        """Between two messages of one session."""
        return max(LONGEST_PAUSE, 2 * self.sessions / MOST_ENTRIES_A_SECOND)

    @property
    def _lull(self) -> float:
        """How much longer the next entry may be in coming where there are many streams."""
        return self.entry_interval - ENTRY_INTERVAL

    @property
    def look_interval(self) -> float:
        """Between two looks at who owns what."""
        return 0.1 if self.lock_ttl >= 1 else 0.05

    def stream(self, number: int) -> str:
        """The name of a data stream."""
        return f"{self.service}:call-{number:0{len(str(self.streams))}d}"

    def session(self, number: int) -> str:
        """The name of a session, which is a data stream, too."""
        return f"{self.service}:session-{number:0{len(str(self.sessions))}d}"

    @property
    def all_streams(self) -> list[str]:
        """The names of all data streams."""
        calls = [self.stream(number) for number in range(1, self.streams + 1)]
        return calls + [self.session(number) for number in range(1, self.sessions + 1)]
