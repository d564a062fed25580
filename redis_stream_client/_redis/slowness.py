"""Slowness: how long answers have taken lately on a connection, so that requests on a slow line get more time."""

from collections.abc import Callable

from redis_stream_client._concurrency import clock

MEMORY = 10.0
"""Seconds for which the slowest answer counts. A line that is slow gives more of them meanwhile."""

MARGIN = 2
"""A request gets as many times as long as the slowest answer took."""


class Slowness:
    """Makes timeouts longer where answers take long. Otherwise a request that cannot be made smaller would be
    repeated in vain, as often as it is sent.

    Args:
        longest: the longest timeout that this gives, in seconds; 0: it changes none.
    """

    def __init__(self, longest: float = 0.0, now: Callable[[], float] = clock.now) -> None:
        self._longest = longest
        self._now = now
        self._slowest = 0.0
        self._until = float("-inf")

    def timeout(self, asked: float) -> float:
        """The timeout of a request for which the caller asks for `asked` seconds."""
        if asked >= self._longest or self._now() >= self._until:
            return asked
        return max(asked, min(MARGIN * self._slowest, self._longest))

    def took(self, sent: float) -> None:
        """Note that a request that was sent at `sent` is answered now, or is given up; or a connection is open."""
        if self._longest:
            now = self._now()
            if now - sent >= self._slowest or now >= self._until:
                self._slowest, self._until = now - sent, now + MEMORY
