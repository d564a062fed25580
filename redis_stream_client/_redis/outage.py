"""The log of outages: one line when a server goes out of reach, with the cause, and one when it is back."""

from collections.abc import Callable
from dataclasses import replace

from redis_stream_client._concurrency import clock
from redis_stream_client._model.logs import Log
from redis_stream_client._model.observer import Observer, RedisOutage

FAILURES = 2
"""Failures in a row that count as an outage. A single failure may be a broken connection, which the next attempt
repairs."""


class OutageLog:
    """The log of the outages of one server, as one part of the client sees them.

    It logs a warning at the second failure in a row, one line when answers come again, and everything between at
    DEBUG. So an outage of an hour gives two lines.

    Args:
        what: names what does not answer, for the messages; called each time, because a master can change.
        log: the log of the consumer.
        within: an outage that would explain this one; failures during it do not count here.
        failures: failures in a row that give a warning.
        observer: is told of an outage when the log is.
    """

    def __init__(
        self,
        what: Callable[[], str],
        log: Log,
        *,
        within: "OutageLog | None" = None,
        failures: int = FAILURES,
        observer: Observer | None = None,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self._what = what
        self._log = log
        self._within = within
        self._enough = failures
        self._observer = observer
        self._now = now
        self._failures = 0
        self._since = 0.0
        self._told = False
        self._told_of: RedisOutage | None = None

    @property
    def lasts(self) -> bool:
        """Whether there is an outage that was logged."""
        return self._told

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    def failed(self, cause: object) -> None:
        """Note that an attempt has failed."""
        if not self._failures:
            self._since = self._now()
        if self._within is None or not self._within.failing:
            self._failures += 1
        tell = self._failures >= self._enough and not self._told
        self._told = self._told or tell
        text = " ".join(str(cause).split())
        (self._log.warning if tell else self._log.debug)("no usable answer from %s: %s", self._what(), text)
        if tell and self._observer is not None:
            self._told_of = RedisOutage(self._what(), text, self._now() - self._since)
            self._observer.outage_began(self._told_of)

    def answered(self) -> None:
        """Note that an attempt has succeeded."""
        if self._told:
            self._log.info("%s answers again, after %.1f s", self._what(), self._now() - self._since)
            if self._observer is not None and self._told_of is not None:
                self._observer.outage_ended(replace(self._told_of, seconds=self._now() - self._since))
        self._failures, self._told = 0, False
