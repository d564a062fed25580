"""The opener: opens connections, with more time for an attempt after one that was too short."""

from redis.asyncio.connection import AbstractConnection

from redis_stream_client._concurrency import clock
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.error_mapping import Unanswered

FIRST_ATTEMPT = 2.0
"""Seconds for one attempt to connect, and again for the first commands; the caller's own deadline may be shorter.
After an attempt that used up its time, the next one gets twice as much, up to `connect_timeout`."""

LONGEST_ATTEMPT = 10.0
"""The upper bound without a `connect_timeout`."""


class AttemptTime:
    """The time for one attempt to connect, in seconds. It doubles after an attempt that used up its time."""

    def __init__(self, first: float, longest: float = LONGEST_ATTEMPT) -> None:
        self._first = self.seconds = first
        self._longest = max(first, longest)

    def failed(self, took: float) -> None:
        """Note an attempt that failed after `took` seconds."""
        if took >= self.seconds * 0.9:
            self.seconds = min(2 * self.seconds, self._longest)

    def succeeded(self, took: float) -> None:
        """Note an attempt that succeeded after `took` seconds."""
        self.seconds = min(max(self._first, 2 * took), self._longest)


class Opener:
    """Opens connections of one role, with more time after an attempt that used up its time.

    Attributes:
        took: seconds that the last connection took to open: at least one round trip.
    """

    def __init__(self, endpoint: Endpoint, role: str, first: float, longest: float = LONGEST_ATTEMPT) -> None:
        self._endpoint = endpoint
        self._role = role
        self._attempt = AttemptTime(first, longest)
        self.took = 0.0

    @property
    def seconds(self) -> float:
        """The time for the next attempt, or for each of the first commands after this one."""
        return self._attempt.seconds

    async def open(self) -> AbstractConnection:
        """Connect. Raises as `Endpoint.open`."""
        started = clock.now()
        try:
            connection = await self._endpoint.open(self._attempt.seconds, self._role)
        except Unanswered:
            self._attempt.failed(clock.now() - started)
            raise
        self.took = clock.now() - started
        self._attempt.succeeded(self.took)
        return connection
