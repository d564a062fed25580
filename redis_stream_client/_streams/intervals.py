"""How often the fetcher looks where nothing tells it to: what such looks cost, and how late they find something.

All are seconds, but for the shares.
"""

POLL = (0.05, 1.0)
"""Between two looks at all streams that are waited for, where there are no wake-ups: at least, and at most."""

POLL_SHARE = 10
"""Such looks take a tenth of the time, unless that would make them rarer than the longest pause."""

UNPROVEN = 1.0
"""Between two such looks where there are wake-ups, while it is not known yet that they work."""

REASSURANCE = 20.0
"""The same once it is known. What no wake-up tells: a slot that moves while its key does not exist, ``SWAPDB``."""

LONGEST_WATCH = 3.0
"""Between two looks at what the server has become."""

WATCH_SHARE = 4
"""On a line with long round trips such looks leave four fifths of the time to the reads."""

LOOK_AROUND = 4.0
"""Between two looks where the slots of a Redis Cluster are, though every node answers."""
