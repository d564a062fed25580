"""Sleeping: finish a lease only if its data stream has nothing more to read, even if replies are lost.

The order of the steps is what makes it safe. First the announcement is withheld: from then on a producer announces
the stream anew. Then Redis looks at the data stream. An entry that was written before is seen; one that is written
later comes with an announcement of its own. A crash between two steps leaves an announcement too many at worst.
"""

import contextlib
import functools
import itertools
from typing import NamedTuple

from redis_stream_client._concurrency.batching import Batch
from redis_stream_client._concurrency.owned_tasks import OwnedTasks
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.errors import ClientClosed, NotOwner, RedisRejected, RedisUnavailable
from redis_stream_client._model.logs import Log
from redis_stream_client._ownership.callers import Callers
from redis_stream_client._ownership.checkpoints import Progress
from redis_stream_client._ownership.endings import Endings
from redis_stream_client._ownership.losses import Losses
from redis_stream_client._ownership.retry import Lapsed, Retries, lapsed
from redis_stream_client._protocol.base import PAGE
from redis_stream_client._protocol.deliveries import Deliveries
from redis_stream_client._redis.error_mapping import GroupMissing


class Attempt(NamedTuple):
    """An attempt to put a stream to sleep, and its number. A request of an earlier one, executed late, must not
    undo what a later one has withheld."""

    lease: LeaseState
    number: int


class Sleeping:
    """Puts streams to sleep for their holders. Those that fall asleep at about the same time share calls."""

    def __init__(
        self,
        *,
        log: Log,
        consumer: str,
        deliveries: Deliveries,
        lock_state: LockState,
        table: LeaseTable,
        losses: Losses,
        retries: Retries,
        tasks: OwnedTasks[ClientClosed],
        progress: Progress,
        endings: Endings,
    ) -> None:
        self._log = log
        self._consumer = consumer
        self._deliveries = deliveries
        self._lock_state = lock_state
        self._table = table
        self._losses = losses
        self._retries = retries
        self._progress = progress
        self._endings = endings
        self._callers = Callers(tasks.spawn, tasks.gone, log)
        withhold = functools.partial(self._send, restore=False)
        self._withholding = Batch[Attempt, str](withhold, tasks.spawn, tasks.gone, PAGE)
        restore = functools.partial(self._send, restore=True)
        self._restoring = Batch[Attempt, str](restore, tasks.spawn, tasks.gone, PAGE)
        self._attempts = itertools.count(1)

    async def put_to_sleep(self, lease: LeaseState) -> bool:
        """See `Lease.done_if_idle`. Two attempts at the same time are one: the second would undo the order of the
        first."""
        self._lock_state.check()
        if not self._table.holds(lease):
            raise lease.not_owner(gone=lease.done_sent is not None)
        try:
            await self._callers.share(lease, functools.partial(self._put_to_sleep, lease))
        except NotOwner:  # its holder may have said done at the same time
            if lease.lost != "done":
                raise
        return lease.lost == "done"

    async def answered(self, lease: LeaseState) -> None:
        """Wait for the attempts whose callers were cancelled."""
        await self._callers.answered(lease)

    async def _put_to_sleep(self, lease: LeaseState) -> None:
        if not lease.begun:
            await self._progress.begin(lease)
        if not lease.processed:
            return
        attempt = next(self._attempts)
        if not await self._may(lease, self._withholding, attempt):
            return
        try:
            asleep = await self._progress.doze(lease)
        except RedisRejected:
            with contextlib.suppress(RedisUnavailable):
                await self._may(lease, self._restoring, attempt)
            raise
        if asleep:
            await self._endings.finish(lease, asleep=True)
            self._log.debug("%s sleeps", lease.stream, about=lease)
        else:
            await self._may(lease, self._restoring, attempt)

    async def _may(self, lease: LeaseState, batch: Batch[Attempt, str], attempt: int) -> bool:
        """Withhold or restore the announcement. False: the lease has ended in favour of a newer announcement, or
        by a `done` at the same time. Raises `NotOwner` if it was lost."""
        while True:
            deliveries = lease.deliveries
            standing = await batch.add(Attempt(lease, attempt))
            if standing != self._consumer or deliveries == lease.deliveries:
                break
        if standing in ("withheld", "restored"):
            return True
        if standing == "newer":
            await self._endings.finish(lease)
            self._log.debug("%s was announced again meanwhile", lease.stream, about=lease)
            return False
        await self._endings.answered(lease)
        if lease.lost == "done":
            return False
        owner = "" if standing == "gone" else standing
        self._losses.lose_to([(lease, owner)])
        raise lease.not_owner(gone=not owner, owner=owner or None)

    async def _send(self, attempts: list[Attempt], *, restore: bool) -> list[str | Exception]:
        leases = [attempt.lease for attempt in attempts]

        async def attempt(timeout: float) -> list[str]:
            entries = [(lease.lbs_id, lease.deliveries, lease.stream, number) for lease, number in attempts]
            return await self._deliveries.withhold(entries, timeout, restore=restore)

        def wanted() -> bool:
            return any(map(self._table.holds, leases))

        try:
            return [*await self._retries.until_answered(attempt, wanted, changes_ownership=False)]
        except RedisRejected as error:  # no reason to close the client, which can do all the rest
            return [error] * len(leases)
        except Lapsed:
            return [lapsed(lease, "done_if_idle") for lease in leases]
        except GroupMissing:
            self._lock_state.lapse("missing")
            return ["gone"] * len(leases)
