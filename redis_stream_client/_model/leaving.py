"""How long leaving may take, and what that time is for.

A client must not hang on a Redis that does not answer, so it leaves within `GRACE`, whatever happens. What is not
done by then is for the peers, once the lock has expired. Durations are seconds.
"""

GRACE = 0.5
"""For leaving in all: the client, or a lease's block that was cancelled."""

FAREWELL = GRACE * 0.9
"""For everything that a client does at its end. In the tenth that remains, whoever waits for it sees the end."""

LAST_WORDS = GRACE / 4
"""Of the farewell, for its very end, after all releases: the client gives up its lock."""

UNANSWERED = GRACE / 2
"""For one request of the farewell; then another connection is tried."""

HANDLERS = GRACE / 2
"""For cancelled handlers to end, and for releases to be answered, where a client releases at once."""

MANY = 1_000
"""Handlers. Cancelled, so many take 0.1 s here to end, five times as many 0.2 s: the client gives up its lock
before all have ended."""


def kept_from_handlers(count: int) -> float:
    """How much of the farewell must remain when a client that releases at once waits for `count` handlers."""
    return GRACE * (0.7 if count > MANY else 0.4)
