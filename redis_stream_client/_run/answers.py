"""What probes are told: whether a client is live, and whether it is ready.

*Live* means that a restart would not help: the event loop turns, and the client has not ended for good. That Redis
is away, or what handlers depend on, must not restart a whole fleet, so it does not count. *Ready* means that the
client takes its share of the work now.

The texts go to whoever can reach a port or a file. So they name neither streams nor what errors say.
"""

from typing import NamedTuple

from redis_stream_client._model.health import Health

LIVE, READY, NOT_READY = "live", "ready", "not ready"


class Answer(NamedTuple):
    """The answer to a probe: whether all is well, and one line of text."""

    ok: bool
    text: str


def live(*, failure: BaseException | None, closed: bool) -> Answer:
    """Whether the client is live, if its event loop comes to asking.

    Args:
        failure: what has ended the client for good.
        closed: whether it was closed, other than by a drain.
    """
    if failure is not None:
        return Answer(False, f"not {LIVE}: ended by {type(failure).__name__}, see the log")
    if closed:
        return Answer(False, f"not {LIVE}: closed")
    return Answer(True, LIVE)


def ready(health: Health, *, joined: bool, draining: bool, full: bool) -> Answer:
    """Whether a client that is live takes its share of the work.

    Announcements that wait because a client is full do not make it unready. Else a fleet with a backlog would have
    no ready member, and could not be updated.

    Args:
        health: its health.
        joined: whether it has joined.
        draining: whether it drains, or ends in another way.
        full: whether it has no room for more streams.
    """
    if draining:
        why = "draining"
    elif not joined:
        why = "has not joined yet"
    elif not health.alive:
        why = "does not hold its consumer lock"
    elif health.paused is not None:
        why = "paused by an operator"
    else:
        stuck = [each for each in health.stuck if not (full and each.what == "announcement")]
        if not stuck:
            return Answer(True, READY)
        why = ", ".join(f"{each.what} stuck for {each.age:.0f} s ({each.why})" for each in stuck)
    return Answer(False, f"{NOT_READY}: {why}")
