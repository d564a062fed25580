"""Intervals: how often the fetcher looks at streams without being told to. Short ones cost more, long ones find
changes later.

All values are in seconds, except the shares.
"""

POLL = (0.05, 1.0)
"""Without wake-ups: the shortest and the longest interval between two looks at all streams that somebody waits
for."""

POLL_SHARE = 10
"""Such looks take 1 / POLL_SHARE of the time, unless the longest interval requires more."""

UNPROVEN = 1.0
"""With wake-ups that have not proven to work yet: the interval between two such looks."""

REASSURANCE = 20.0
"""With wake-ups that work: the interval. Wake-ups miss a slot that moves while its key does not exist, and
``SWAPDB``."""

LONGEST_WATCH = 3.0
"""The longest interval between two checks of what the server has become."""

WATCH_SHARE = 4
"""Such checks leave this many times their own duration to the reads: four fifths of the time on a slow line."""

LOOK_AROUND = 4.0
"""The interval between two look-ups of the slots of a Redis Cluster while all nodes answer."""
