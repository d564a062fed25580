"""Retries: repeat an operation that got no answer, while the lock is held."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._leases.lock_state import LockState, State
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.errors import NotOwner, RedisUnavailable
from redis_stream_client._model.options import FIRST_PAUSE, Options
from redis_stream_client._ownership.audit_schedule import AuditSchedule
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.outage import OutageLog

T = TypeVar("T")


class Lapsed(Exception):
    """The lock lapsed, or would have lapsed by now, before Redis answered. Never leaves the package."""

    def __init__(self) -> None:
        super().__init__("the consumer lock lapsed before Redis answered")


class Retries:
    """Repeats operations on held leases. Each of these operations may be repeated."""

    def __init__(
        self, *, options: Options, outage: OutageLog, lock_state: LockState, audits: AuditSchedule
    ) -> None:
        self._outage = outage
        self._lock_ttl = options.lock_ttl
        self._patience = options.patience
        self._longest_pause = options.longest_pause
        self._lock_state = lock_state
        self._audits = audits

    async def until_answered(
        self,
        attempt: Callable[[float], Awaitable[T]],
        wanted: Callable[[], bool],
        *,
        changes_ownership: bool = True,
    ) -> T:
        """Repeat until Redis answers, for one lifetime of the lock. Goes on after a lapse if the lock comes back
        and `wanted` is still true. Raises `Lapsed` at the end, and not earlier: while the lock lives, so does the
        lease."""
        give_up = clock.now() + self._lock_ttl
        backoff = Backoff(FIRST_PAUSE, self._longest_pause)
        while True:
            self._lock_state.check()
            if self._lock_state.state is State.SUSPECT:
                await asyncio.sleep(self._longest_pause / 10)
                continue
            if self._lock_state.state is not State.HELD or not wanted() or clock.now() >= give_up:
                raise Lapsed
            try:
                answer = await attempt(self._patience)
            except Unanswered as error:
                self._outage.failed(error)
                if error.maybe_executed and changes_ownership:
                    self._audits.request()
                await asyncio.sleep(backoff.pause())
            else:
                self._outage.answered()
                return answer


def lapsed(lease: LeaseState, operation: str) -> NotOwner | RedisUnavailable:
    """The error of an operation that had no reply when the lock lapsed."""
    return lease.no_answer(operation) if lease.lost is None else lease.not_owner()
