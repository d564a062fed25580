"""Says that a server is out of reach: once when that begins, with its cause, and once when it is over."""

from collections.abc import Callable, Mapping

from redis_stream_client._concurrency import clock
from redis_stream_client._model.logs import log

FAILURES = 2
"""In a row. One alone may be a connection that broke, which the next attempt mends before anybody would notice."""


class OutageLog:
    """The log of one server's outages, as one part of the client meets them.

    A warning at the second failure in a row, one line when answers come again, and everything between at DEBUG: an
    outage of an hour is two lines, whatever is tried meanwhile.

    Args:
        what: what does not answer, for the messages; asked for each time, since a master moves.
        extra: the log records' extra fields.
        within: an outage that explains this one: what fails while it lasts does not count here.
        failures: how many in a row are told.
    """

    def __init__(
        self,
        what: Callable[[], str],
        extra: Mapping[str, object],
        *,
        within: "OutageLog | None" = None,
        failures: int = FAILURES,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self._what = what
        self._extra = dict(extra)
        self._within = within
        self._enough = failures
        self._now = now
        self._failures = 0
        self._since = 0.0
        self._told = False

    @property
    def lasts(self) -> bool:
        """Whether there is an outage that was told."""
        return self._told

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    def failed(self, cause: object) -> None:
        """An attempt failed."""
        if not self._failures:
            self._since = self._now()
        if self._within is None or not self._within.failing:
            self._failures += 1
        tell = self._failures >= self._enough and not self._told
        self._told = self._told or tell
        text = " ".join(str(cause).split())
        (log.warning if tell else log.debug)("no usable answer from %s: %s", self._what(), text, extra=self._extra)

    def answered(self) -> None:
        """An attempt succeeded."""
        if self._told:
            log.info("%s answers again, after %.1f s", self._what(), self._now() - self._since, extra=self._extra)
        self._failures, self._told = 0, False
