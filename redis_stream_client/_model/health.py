"""Whether anything is stuck: what a live lock does not say."""

from dataclasses import dataclass
from typing import Literal

from redis_stream_client._model.options import Options

SLACK = 5.0
"""Seconds that anything may take on a busy machine, above what the lock's lifetime explains."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """Something that waits for longer than it should.

    Attributes:
        what: ``announcement``: it lies on the load balancer stream, and no member has read it; ``lease``: this
            client owns the stream, and nobody works on it; ``wake-up``: entries were announced for a handler that
            waits for them, and were not read.
        stream: name of the data stream, where it is known. (Of an announcement it is not.)
        age: seconds since it began to wait.
        why: what is known about the cause.
    """

    what: Literal["announcement", "lease", "wake-up"]
    stream: str | None
    age: float
    why: str


@dataclass(frozen=True, slots=True)
class Health:
    """What `RedisStreamClient.health` has found. Ages are seconds; None: there is none.

    Attributes:
        alive: whether the consumer lock is held, as `RedisStreamClient.alive` says.
        oldest_announcement: age of the oldest announcement that no member of the fleet has read, as far as this
            client knows: it looks with each audit, every ``5 * lock_ttl``.
        oldest_unhandled: since when the oldest stream is owned that nobody works on: the event about it was not
            read, or its handler was not called yet. One whose handler failed and that rests is not meant.
        oldest_wakeup: since when the oldest handler waits for entries that have been announced, or whose time to
            be looked at has come. A handler that waits for entries that nobody has written is not meant.
        limit: the age from which on something is stuck.
        stuck: what is, the oldest first.
    """

    alive: bool
    oldest_announcement: float | None
    oldest_unhandled: float | None
    oldest_wakeup: float | None
    limit: float
    stuck: tuple[Stuck, ...]

    @property
    def ok(self) -> bool:
        """Whether the lock is held, and nothing is stuck."""
        return self.alive and not self.stuck


def limit(options: Options) -> float:
    """Seconds after which something is stuck: a stream may wait for a take-over, and for a busy machine."""
    return 2.5 * options.lock_ttl + SLACK


def judge(
    options: Options,
    *,
    alive: bool,
    announcement: float | None = None,
    full: bool = False,
    lease: tuple[str, float] | None = None,
    wakeup: tuple[str, float] | None = None,
) -> Health:
    """What these ages mean; a lease and a wake-up come with the names of their streams."""
    most = limit(options)
    found: list[Stuck] = []
    if announcement is not None and announcement > most:
        why = "this client has no room for more streams (max_streams)" if full else "no member reads it"
        found.append(Stuck("announcement", None, announcement, why))
    if lease is not None and lease[1] > most:
        found.append(Stuck("lease", *lease, "its event was not read, or its handler was not called"))
    if wakeup is not None and wakeup[1] > most:
        found.append(Stuck("wake-up", *wakeup, "the server that holds the stream does not answer, or only slowly"))
    return Health(
        alive=alive,
        oldest_announcement=announcement,
        oldest_unhandled=lease and lease[1],
        oldest_wakeup=wakeup and wakeup[1],
        limit=most,
        stuck=tuple(sorted(found, key=lambda one: -one.age)),
    )
