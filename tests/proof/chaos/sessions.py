"""Sessions: streams that writers alone write to, all the time and to the end, and that sleep in between.

A session is busy for a while, at times that all processes work out from its number and the clock that they share.
Then entries come about as far apart as its idle time is long, so that sleep and write collide. Afterwards it is
left alone for so long that an entry which nobody was told of shows.
"""

from __future__ import annotations

NAME = "chat-"
COUNT = 160
IDLE = (0.1, 0.3, 0.6)
"""Seconds without an entry after which sessions fall asleep."""
PERIOD, BUSY = 40.0, 4.0
"""Seconds from the beginning of a busy time to that of the next one, and how long it lasts."""
NEAR = 4
"""One of so many is where the load balancer stream is; in a Cluster, the others are anywhere."""


def names(lbs: str) -> list[str]:
    """All sessions of a service, by their numbers."""
    return [f"{f'{{{lbs}}}' if number % NEAR == 0 else ''}{NAME}{number}" for number in range(COUNT)]


def is_session(stream: str) -> bool:
    """Whether a stream is a session."""
    return NAME in stream


def idle(stream: str) -> float:
    """Its idle time."""
    return IDLE[_number(stream) % len(IDLE)]


def is_busy(stream: str, time: float) -> bool:
    """Whether it is busy at this time."""
    return (time + _number(stream) * PERIOD / COUNT) % PERIOD < BUSY


def _number(stream: str) -> int:
    return int(stream.rpartition("-")[2])
