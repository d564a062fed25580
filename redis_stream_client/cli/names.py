"""What consumers are called on the screen, and the ids that are meant."""

import re

from redis_stream_client import FleetStatus
from redis_stream_client.cli.failure import NotThere, Unusable
from redis_stream_client.terminal.text import printable

PREFIX = "redis-consumer-"
"""What ids of consumers begin with, unless another library made them."""

SUFFIX = re.compile(r"-[0-9a-f]{8}")
"""What they end with, so that no two are the same."""

NAMED = 4
"""Members that an error names."""


def short_name(consumer: str) -> str:
    """The id without what all ids begin with."""
    return consumer.removeprefix(PREFIX) or consumer


def shown_name(consumer: str, encoding: str | None = None) -> str:
    """The same, safe to be shown; `encoding` as of `printable`."""
    return printable(short_name(consumer), encoding)


def full_name(given: str, status: FleetStatus) -> str:
    """The id of the member that is meant: by its id, as the screen shows it or in full, or by its `consumer_name`.

    Raises `NotThere`, or, if there is more than one, `Unusable`.
    """
    ids = [member.id for member in status.members]
    for id in (given, PREFIX + given):
        if id in ids:
            return id
    start = PREFIX + given
    found = [id for id in ids if id.startswith(start) and SUFFIX.fullmatch(id, len(start))]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotThere(f"no member is called {printable(given)}")
    names = ", ".join(shown_name(id) for id in found[:NAMED])
    others = f" and {len(found) - NAMED:,} others" if len(found) > NAMED else ""
    raise Unusable(f"{len(found)} members are called {printable(given)}: {names}{others}; give the id of one")
