"""Health: whether anything is stuck. A consumer that holds its lock may still be stuck."""

from dataclasses import dataclass
from typing import Literal

from redis_stream_client._model.options import Options
from redis_stream_client._model.orders import Pause

SLACK = 5.0
"""Seconds that anything may take longer on a busy machine than the pace explains."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """Something that has waited for longer than it should.

    Attributes:
        what: ``announcement``: no member has read an announcement from the load balancer stream; ``lease``: this
            client owns a stream, and nobody works on it; ``wake-up``: a handler waits for entries, Redis has
            announced some, and the client has not read them.
        stream: name of the data stream; None if it is not known, as for an announcement.
        age: seconds since the wait began.
        why: what is known about the cause.
    """

    what: Literal["announcement", "lease", "wake-up"]
    stream: str | None
    age: float
    why: str


@dataclass(frozen=True, slots=True)
class Health:
    """What `RedisStreamClient.health` has found. Ages are in seconds; None means that nothing waits.

    Attributes:
        alive: whether the consumer lock is held, as `RedisStreamClient.alive` says.
        oldest_announcement: age of the oldest announcement that no member of the fleet has read. The client looks
            with each audit, every ``5 * lock_ttl``, but at least every 10 s.
        oldest_unhandled: how long the client has owned a stream without anybody working on it: nobody has read its
            event, or `run()` has not called its handler yet. A stream that rests after its handler failed does not
            count.
        oldest_wakeup: how long a handler has waited for entries that are there, or for a look at its stream that
            is due. A handler that waits for entries that nobody has written does not count.
        limit: the age in seconds from which something counts as stuck.
        stuck: what is stuck, the oldest first.
        paused: the pause of the fleet in which this client takes no new streams; None: there is none. What waits
            for it to end is not stuck.
    """

    alive: bool
    oldest_announcement: float | None
    oldest_unhandled: float | None
    oldest_wakeup: float | None
    limit: float
    stuck: tuple[Stuck, ...]
    paused: Pause | None = None

    @property
    def ok(self) -> bool:
        """Whether the lock is held, and nothing is stuck."""
        return self.alive and not self.stuck


def limit(options: Options) -> float:
    """Seconds after which something counts as stuck. A take-over takes a while, and longer on a busy machine."""
    return 2.5 * options.pace + SLACK


def judge(
    options: Options,
    *,
    alive: bool,
    announcement: float | None = None,
    full: bool = False,
    outage: bool = False,
    paused: Pause | None = None,
    lease: tuple[str, float] | None = None,
    wakeup: tuple[str, float] | None = None,
) -> Health:
    """The health that follows from these ages. A lease and a wake-up come with the name of their stream.

    In an outage of what handlers depend on, and in a pause, announcements wait on purpose.
    """
    most = limit(options)
    found: list[Stuck] = []
    if announcement is not None and announcement > most and not (outage or paused):
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
        paused=paused,
    )
