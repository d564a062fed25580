"""How long leaving may take, and what that time is for.

A client must not hang on a Redis that does not answer, so it leaves within `GRACE`, whatever happens. What is not
done by then is for the peers, once the lock has expired. Durations are seconds.
"""

GRACE = 0.5
"""For leaving in all: the client, or a lease's block that was cancelled."""

FAREWELL = GRACE * 0.9
"""For everything that a client does at its end. In the tenth that remains, whoever waits for that sees it end."""

LAST_WORDS = GRACE / 4
"""Of the farewell, for what comes at its very end, and after all releases: giving up the lock."""

UNANSWERED = GRACE / 2
"""For one request of the farewell; then another connection is tried."""

HANDLERS = GRACE / 2
"""For cancelled handlers to end, where a client releases at once."""

MANY = 1_000
"""Handlers. So many cannot all be waited for before the lock goes."""


def kept_from_handlers(count: int) -> float:
    """Where a client releases at once and cancels `count` handlers: time of the farewell that they must leave."""
    return GRACE * (0.7 if count > MANY else 0.4)
