"""The log of what lasts: one line when it begins, a reminder each minute while it lasts, and one line at its end.

So an outage is a few lines, however often the client tries again, and however many streams it concerns; the
attempts themselves are logged at DEBUG. The reminders need no attempt: they come also when nothing else happens.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from redis_stream_client._concurrency import clock
from redis_stream_client._model.log_fields import LogFields
from redis_stream_client._model.logs import Log
from redis_stream_client._model.observer import Observer, RedisOutage
from redis_stream_client._redis.endpoint import Endpoint
from redis_stream_client._redis.wordings import Wording

FAILURES = 2
"""Failures in a row that count as an outage. A single failure may be a broken connection, which the next attempt
repairs."""

REMIND = 60.0
"""Seconds between two lines of one outage."""

AGAIN = 5.0
"""One that ended less than `REMIND` after its last line began, and begins again, is told of when it has lasted for
so many seconds: what comes and goes all the time fills no log."""

GIVEN_UP = 2 * REMIND
"""Seconds without an attempt after which it is not known whether an outage lasts: nobody tries any more."""


class Outages:
    """All outages that one consumer sees. Reminds of those that last.

    Args:
        log: the log of the consumer.
        observer: is told of outages of servers: of each one, even if the log has told of another a moment ago.
    """

    def __init__(self, log: Log, observer: Observer | None = None, now: Callable[[], float] = clock.now) -> None:
        self._log = log
        self._observer = observer
        self._now = now
        self._lasting: set[OutageLog] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def watch(
        self,
        wording: Wording,
        details: Callable[[], LogFields] = LogFields,
        *,
        within: "OutageLog | None" = None,
        failures: int = FAILURES,
        least: float = 0.0,
        each: bool = False,
    ) -> "OutageLog":
        """The log of one thing that may go wrong for a while; see `OutageLog`."""
        return OutageLog(
            self,
            self._log,
            self._observer,
            wording,
            details,
            within=within,
            failures=failures,
            least=least,
            each=each,
            now=self._now,
        )

    def of_server(
        self,
        wording: Wording,
        where: Endpoint,
        *,
        within: "OutageLog | None" = None,
        failures: int = FAILURES,
        least: float = 0.0,
    ) -> "OutageLog":
        """The log of one thing that a server may not do for a while."""
        return self.watch(wording, lambda: {"address": where.where}, within=within, failures=failures, least=least)

    def lasts(self, outage: "OutageLog") -> None:
        """It has begun, or goes on."""
        if outage not in self._lasting and not self._closed:
            self._lasting.add(outage)
            self._set_timer()

    def over(self, outage: "OutageLog") -> None:
        """It is over, or was none."""
        self._lasting.discard(outage)

    def close(self) -> None:
        """Remind of nothing more: the client has left."""
        self._closed = True
        self._lasting.clear()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lasting:
            due = min(outage.due for outage in self._lasting) - self._now()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due), self.remind)

    def remind(self) -> None:
        """Say what lasts, where it is time."""
        now = self._now()
        for outage in [outage for outage in self._lasting if outage.due <= now]:
            outage.remind()
        self._set_timer()


class OutageLog:
    """The log of one thing that may go wrong for a while, as one part of the client sees it.

    Args:
        outages: told when it begins, and when it is over.
        log: the log of the consumer.
        observer: is told, too, if it is the outage of a server.
        wording: what the lines say.
        details: gives further fields of the lines, as they are now: a master can change its address.
        within: an outage that would explain this one; failures during it do not count here.
        failures: failures in a row that count as an outage.
        least: seconds that it must last. Of attempts that are made together, many fail at once.
        each: tell of each, however soon it comes after the last one.

    """

    def __init__(
        self,
        outages: Outages,
        log: Log,
        observer: Observer | None,
        wording: Wording,
        details: Callable[[], LogFields],
        *,
        within: "OutageLog | None",
        failures: int,
        least: float,
        each: bool,
        now: Callable[[], float],
    ) -> None:
        self._outages = outages
        self._log = log
        self._observer = observer
        self._wording = wording
        self._details = details
        self._within = within
        self._enough = failures
        self._least = least
        self._each = each
        self._now = now
        self._failures = 0
        self._tries = False  # whether attempts tell of it, which might end
        self._failed_at = self._since = 0.0
        self._began_at = ""  # as text, which does not change if the system clock is set
        self._error = ""
        self._told = False
        self._observed: RedisOutage | None = None
        self._quiet_until = float("-inf")

    @property
    def due(self) -> float:
        """When there is something to say next, while it lasts."""
        if self._told:
            return self._quiet_until
        return max(min(self._quiet_until, self._since + AGAIN), self._since + self._least)

    @property
    def lasts(self) -> bool:
        """Whether there is an outage that was logged."""
        return self._told

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    # What attempts tell.

    def failed(self, cause: object) -> None:
        """Note that an attempt has failed."""
        now = self._now()
        if not self._failures and not self._told:
            self._since = now
        if self._within is None or not self._within.failing:
            self._failures += 1
        self._failed_at, self._tries = now, True
        self._error = " ".join(str(cause).split())
        self._log.debug("an attempt failed (%s): %s", self._wording.kind, self._error)
        if self._failures >= self._enough and now - self._since >= self._least:
            self._begin()

    def answered(self) -> None:
        """Note that an attempt has succeeded."""
        if self._failures:
            self.ended()

    # What is known without attempts.

    def began(self, error: str, since: float) -> None:
        """It lasts, since then."""
        self._error, self._since, self._tries = error, since, False
        self._failures += 1
        self._begin()

    def ended(self, over: str = "", also: str = "", extra: LogFields | None = None) -> None:
        """It is over. `over`: what is so instead of what usually is at the end; `also`: what else to say."""
        self._failures = 0
        self._outages.over(self)
        if self._told:
            self._told = False
            self._say(self._log.info, f"{over or self._wording.over}, after %(duration)s{also}", extra)
        if self._each:
            self._quiet_until = float("-inf")
        self._observed_end()

    def forget(self) -> None:
        """Nobody asks any more whether it is over."""
        self._failures, self._told = 0, False
        self._outages.over(self)
        self._observed_end()

    # The lines.

    def remind(self) -> None:
        """It is time for a line, and it is not over."""
        now = self._now()
        if self._tries and now - self._failed_at > GIVEN_UP:
            if self._told:
                self._say(self._log.info, f"{self._wording.trouble}: nobody asks any more whether that is over")
            self.forget()
        elif not self._told:
            self._begin()
        else:
            self._quiet_until = now + REMIND
            if self._within is None or not self._within.lasts:
                self._say(self._log.warning, f"{self._wording.trouble}, still, for %(duration)s: %(error)s")

    def _begin(self) -> None:
        if not self._told and (now := self._now()) >= self.due:
            self._told = True
            self._began_at = _text(time.time() - (now - self._since))
            self._quiet_until = now + REMIND
            wording = self._wording
            self._say(self._log.warning, f"{wording.trouble}, since %(since)s: %(error)s; {wording.follows}")
        self._outages.lasts(self)
        if self._observer is None or self._observed is not None:
            return
        if (address := self._details().get("address")) is not None:
            self._observed = RedisOutage(address, self._error, self._now() - self._since, self._wording.kind)
            self._observer.outage_began(self._observed)

    def _observed_end(self) -> None:
        observed, self._observed = self._observed, None
        if self._observer is not None and observed is not None:
            self._observer.outage_ended(replace(observed, seconds=self._now() - self._since))

    def _say(self, write: Callable[..., None], text: str, extra: LogFields | None = None) -> None:
        lasted = self._now() - self._since
        fields: LogFields = {
            "outage": self._wording.kind,
            "error": self._error,
            "since": self._began_at,
            "lasted": round(lasted, 3),
            **self._details(),
            **(extra or {}),
        }
        write(text, {**fields, "duration": duration(lasted)}, extra=fields)


def _text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """A duration as people read it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    return f"{minutes} min" if minutes < 100 else f"{hours} h"
