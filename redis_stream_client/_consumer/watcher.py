"""The watcher: sees by their presence which members have died, and deposes them.

One member watches all others, so that a fleet costs Redis some 30 small scripts per second, whatever its size. The
others ask whether somebody watches, and by that whether Redis still sees them: a network may have closed our
subscription towards Redis alone.
"""

import asyncio

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.waiting import wait_for
from redis_stream_client._consumer.absences import PERIOD, SETTLING, Absences
from redis_stream_client._consumer.presence_state import PresenceState
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import FIRST_PAUSE, Options
from redis_stream_client._protocol.presence import PresenceScripts
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.outage import OutageLog

AT_ONCE = 100
"""The most members that one script call deposes."""

NAMED = 10
"""The most of them that the log names."""


class Watcher:
    """Watches the presence of the peers, if nobody else does."""

    def __init__(
        self,
        *,
        log: Log,
        outage: OutageLog,
        options: Options,
        scripts: PresenceScripts,
        lock_state: LockState,
        presence_state: PresenceState,
    ) -> None:
        self._log = log
        self._outage = outage
        self._timeout = options.presence_patience
        self._scripts = scripts
        self._lock_state = lock_state
        self._state = presence_state
        self._absences = Absences()
        self._others = False
        self._wake = asyncio.Event()
        self._backoff = Backoff(FIRST_PAUSE, PERIOD)
        presence_state.changed.add(self._wake.set)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._sleep()
            if not self._may_look:
                self._absences.begin(self._state.subscribed_at + SETTLING)
                continue
            try:
                await self._depose()
                if clock.now() >= self._absences.next_look:
                    await self._look()
                    self._outage.answered()
                self._backoff.reset()
            except (Unanswered, GroupMissing) as error:
                self._outage.failed(error)
                self._absences.unanswered(clock.now())
                self._lock_state.doubt()  # and the answer to a beat ends the doubt: in doubt we do not look
                await asyncio.sleep(self._backoff.pause())
            except RedisRejected as error:
                self._state.impossible(str(error))

    @property
    def _may_look(self) -> bool:
        """Whether what we see means something. Who was cut off itself a moment ago, or must not take over streams,
        deposes nobody."""
        if self._state.standing != "declared" or not self._lock_state.held or self._lock_state.quiet:
            return False
        return clock.now() >= self._state.subscribed_at + SETTLING

    async def _sleep(self) -> None:
        """Sleep until something is due."""
        self._wake.clear()
        if self._state.standing != "declared":
            await self._wake.wait()
            return
        now = clock.now()
        if not self._may_look:
            until = max(now + PERIOD, self._state.subscribed_at + SETTLING)
        else:
            if self._state.others and not self._others:
                self._absences.next_look = now  # we are not alone any more
            self._others = self._state.others
            until = self._absences.next_due
        await wait_for(self._wake, until - now)

    async def _look(self) -> None:
        epoch, subscription = self._lock_state.epoch, self._state.subscriptions
        asked = clock.now()
        self._lock_state.asking(asked)
        found = await self._scripts.watch(self._state.nonce, self._absences.tenure, self._timeout)
        if found.what != "lapsed":
            self._lock_state.there(asked, epoch)
        if not self._lock_state.believed(epoch) or subscription != self._state.subscriptions:
            return  # `run` begins anew
        if not self._state.subscribed:
            return  # that we are not seen is known, and withdrawn, perhaps
        self._absences.saw(found, asked, clock.now())
        match found.what:
            case "blind":  # so peers may have been without us for our whole grace
                self._lock_state.unseen(asked - self._state.grace)
                self._state.not_seen_any_more()
            case "undeclared":
                self._state.undeclared()
            case "lapsed":
                self._lock_state.lapse("missing")
            case _:
                self._state.counted(found.present, watching=found.what != "other")

    async def _depose(self) -> None:
        """Depose who is still absent after its grace. The script compares everything again, also whether we are
        still present: we may have stood still since the last look."""
        victims = self._absences.take_due(clock.now(), AT_ONCE)
        if not victims or not self._may_look:
            return
        deposed = await self._scripts.depose(self._state.nonce, victims, self._timeout)
        self._state.deposed += len(deposed)
        for consumer in deposed[:NAMED]:
            self._log.info("%s has lost its connections: peers take over its streams", consumer)
        if len(deposed) > NAMED:
            self._log.info("so have %d more", len(deposed) - NAMED)
