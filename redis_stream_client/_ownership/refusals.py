"""Refusals: a progress record refuses its lease. Retries are limited, pauses grow, and the log says it once."""

import asyncio

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.backoff import Backoff
from redis_stream_client._leases.state import LeaseState, Rest
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import Log
from redis_stream_client._protocol.progress_records import Foreign
from redis_stream_client._redis.error_mapping import KeyRejected, WrongType

FIRST_REST, LONGEST_REST = 0.5, 10.0
"""The first and the longest pause in seconds before a refused record is read again for the same lease; it
doubles."""


class Refusals:
    """Limits the time for which a lease and its record may contradict each other, whatever the cause.

    Args:
        lease: the lease.
        most: the limit in seconds: one lifetime of the lock, since a lock must expire before its owner counts as
            dead.
        longest_pause: the longest pause between two attempts, in seconds.
        log: the log of the consumer.
    """

    def __init__(self, lease: LeaseState, most: float, longest_pause: float, log: Log) -> None:
        self._lease = lease
        self._log = log
        self._give_up = clock.now() + most
        self._backoff = Backoff(0.005, longest_pause)
        self._count = 0

    async def another(self) -> None:
        """Count a refusal. Raises `RedisUnavailable` if there have been refusals for too long."""
        self._count += 1
        if self._count == 1:  # the usual one: there was another owner
            return
        if clock.now() >= self._give_up:
            lease = self._lease
            self._log.warning("the record of %s was refused %d times", lease.stream, self._count, about=lease)
            raise lease.no_answer("begin")
        await asyncio.sleep(self._backoff.pause())


async def rest(lease: LeaseState) -> None:
    """Pause before a refused record is read again. The pauses grow, however often the holder asks."""
    left = lease.rest.until - clock.now() if lease.rest is not None else 0.0
    if left > 0 and lease.lost is None:
        lost = lease.add_waiter()
        try:
            await asyncio.wait((lost,), timeout=left)
        finally:
            lease.remove_waiter(lost)


def rejected(lease: LeaseState, record: str, error: RedisRejected, log: Log) -> RedisRejected:
    """The record is useless for this lease. Returns the error that says why."""
    first = lease.rest is None
    seconds = FIRST_REST if lease.rest is None else min(lease.rest.seconds * 2, LONGEST_REST)
    lease.rest = Rest(clock.now() + seconds, seconds)
    if not isinstance(error, Foreign):
        return about(lease, error)
    foreign = KeyRejected(
        f"the progress record of {lease.stream!r} was not written by this library: in the hash {record!r}, "
        f"{error.args[0]}",
        hint="it is left as it is; find out who wrote it, then delete that key, or repair it",
        stream=lease.stream,
        lbs_id=lease.lbs_id,
    )
    if first:
        log.error("%s", foreign, about=lease)
    return foreign


def about(lease: LeaseState, error: RedisRejected) -> RedisRejected:
    """The error for a stream whose progress cannot be recorded."""
    about = {"stream": lease.stream, "lbs_id": lease.lbs_id}
    if isinstance(error, WrongType):
        return WrongType(
            f"the key for the progress of {lease.stream!r} holds another type of value than a hash",
            hint="only this library writes it; delete or rename that key",
            **about,
        )
    return type(error)(
        f"the progress of {lease.stream!r} cannot be recorded: {error.args[0]}", hint=error.hint, **about
    )
