"""Leaving: how long it may take, and how that time is shared out.

A client must not hang if Redis does not answer, so it leaves within `GRACE`, whatever happens. Peers do the rest,
once the lock has expired. Durations are in seconds.
"""

GRACE = 0.5
"""For leaving as a whole: the client, or the block of a lease that was cancelled."""

FAREWELL = GRACE * 0.9
"""For all that a client does at its end. The last tenth is for those who wait for the end."""

LAST_WORDS = GRACE / 4
"""The last part of the farewell, after all releases: the client gives up its lock."""

UNANSWERED = GRACE / 2
"""For one request of the farewell; after that the client tries another connection."""

HANDLERS = GRACE / 2
"""For cancelled handlers to end and for releases to be answered, when a client releases everything at once."""

MANY = 1_000
"""Handlers. On our machine, so many cancelled handlers take 0.1 s to end, and five times as many 0.2 s. With more,
the client gives up its lock before all have ended."""


def kept_from_handlers(count: int) -> float:
    """How much of the farewell must remain when a client that releases everything waits for `count` handlers."""
    return GRACE * (0.7 if count > MANY else 0.4)
