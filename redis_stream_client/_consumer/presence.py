"""Presence: a process that dies loses its connections at once, and Redis its subscriptions with them.

While the listener has the channel of our own lock, we declare so in Redis, together with the run id of the server:
on another server, after a restart or a failover, the declaration means nothing. When the listener is lost, we
withdraw before half of our grace is over; if we cannot, our lock is in doubt. Only death is proved that way:
whoever keeps its connections, cannot be seen, or does not declare lives as long as its lock.
"""

import asyncio

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._concurrency.waiting import wait_for
from redis_stream_client._consumer.presence_state import PresenceState
from redis_stream_client._leases.lock_state import LockState, State
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import Log
from redis_stream_client._model.options import FIRST_PAUSE, Options
from redis_stream_client._protocol.presence import Declared, PresenceScripts
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered
from redis_stream_client._redis.outage import OutageLog

LONGEST_PAUSE = 0.5
"""The longest pause in seconds between two attempts to declare or to withdraw."""

UNSEEN_PAUSE = 0.05
"""Seconds until the next attempt to declare after one in which Redis did not see our subscription."""


class Presence:
    """Declares our presence, and withdraws it."""

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
        self._wake = asyncio.Event()
        self._epoch = 0
        self._declaring: asyncio.Task[Declared] | None = None
        self._said = False
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        presence_state.changed.add(self._changed)
        lock_state.changed.add(self._wake.set)

    def _changed(self) -> None:
        """If the subscription was lost, our lock is soon in doubt, and a declaration that has no answer yet must
        not delay the withdrawal."""
        if self._state.step == "withdraw":
            if not self._state.subscribed:
                self._lock_state.unseen(self._state.unsubscribed_at)
            if self._declaring is not None:
                self._declaring.cancel()
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            self._say_if_impossible()
            step = self._next_step()
            if step is None:
                await wait_for(self._wake, self._pause())
                continue
            try:
                if step == "withdraw":
                    await self._withdraw()
                else:
                    await self._declare()
                self._backoff.reset()
                self._outage.answered()
            except (Unanswered, GroupMissing) as error:
                self._outage.failed(error)
                await wait_for(self._wake, self._backoff.pause())  # something that happens ends the pause
            except RedisRejected as error:
                if step == "declare":
                    self._refused(error)
                else:  # it was permitted when we declared
                    await asyncio.sleep(self._backoff.pause())

    def _next_step(self) -> str | None:
        if self._lock_state.state is not State.HELD:
            return None  # taking the lock again withdraws, too
        if self._lock_state.epoch != self._epoch:
            self._epoch = self._lock_state.epoch
            self._state.lock_taken_anew()
            self._wake.clear()
        return self._state.step

    def _pause(self) -> float | None:
        """Seconds until there is something to do by itself; None: there is nothing."""
        if self._state.standing != "declared" or self._lock_state.state is not State.HELD:
            return None
        return self._state.declare_at - clock.now()

    async def _declare(self) -> None:
        epoch, subscription = self._lock_state.epoch, self._state.subscriptions
        grace, nonce = self._state.grace, self._state.declares()
        self._lock_state.declared(grace)
        sent = clock.now()
        declaring = self._declaring = start_task(
            self._scripts.present(nonce, grace, self._timeout), "redis_stream_client declaring"
        )
        try:
            await asyncio.wait((declaring,))
        finally:
            self._declaring = None
            if not declaring.cancel() and not declaring.cancelled():
                declaring.exception()  # marks it as retrieved
        if declaring.cancelled():
            return
        answer = declaring.result()
        if not self._lock_state.believed(epoch) or subscription != self._state.subscriptions:
            return
        if answer == "present":
            self._state.has_declared(grace, clock.now() - sent)
        elif answer == "lapsed":
            self._lock_state.lapse("missing")
        elif self._state.standing == "declared":
            self._state.not_seen_any_more()
        else:
            self._state.not_seen()
            await wait_for(self._wake, UNSEEN_PAUSE)

    def _refused(self, error: RedisRejected) -> None:
        if self._state.refused(str(error)):
            self._lock_state.withdrawn()

    async def _withdraw(self) -> None:
        epoch, sent, losses = self._lock_state.epoch, clock.now(), self._state.losses
        there = await self._scripts.withdraw(self._timeout)
        if not self._lock_state.believed(epoch):
            return
        if there:
            self._lock_state.renewed(sent, epoch)
        else:
            self._lock_state.lapse("missing")
        if self._state.has_withdrawn(losses):
            self._lock_state.withdrawn()

    def _say_if_impossible(self) -> None:
        if self._state.why and not self._said:
            self._said = True
            self._log.info("peers notice a crash of this client by its lock alone (%s)", self._state.why)
