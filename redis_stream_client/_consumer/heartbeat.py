"""The heartbeat: renews the consumer lock, and takes it anew after a lapse."""

import asyncio
import contextlib
from collections.abc import Callable

from redis_stream_client._concurrency import clock
from redis_stream_client._consumer.membership import Membership
from redis_stream_client._leases.lock_state import LapseCause, State
from redis_stream_client._model.logs import log
from redis_stream_client._ownership.redis_backend import Ownership
from redis_stream_client._redis.error_mapping import GroupMissing, Unanswered


class Heartbeat:
    """One ``PEXPIRE`` at least every `heartbeat_interval`, whatever number of streams is held."""

    def __init__(self, member: Membership, ownership: Ownership, on_held: Callable[[], None]) -> None:
        self._member = member
        self._ownership = ownership
        self._on_held = on_held
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._backoff = member.backoff()

    async def run(self) -> None:
        """Until cancelled. Raises `RedisRejected` when Redis refuses for good."""
        self._watch_deadline()
        try:
            while True:
                try:
                    if self._member.lock_state.state is State.HELD:
                        await self._beat()
                    else:
                        await self._resume()
                    self._backoff.reset()
                except (Unanswered, GroupMissing) as error:
                    self._member.outage.failed(error)
                    await asyncio.sleep(self._backoff.pause())
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def poke(self) -> None:
        """Beat now: something said that our lock is gone."""
        self._wake.set()

    def lapsed(self, cause: LapseCause) -> None:
        """The lock lapsed: what that means for the leases, at once."""
        log.warning("the consumer lock lapsed (%s)", cause, extra={"consumer": self._member.options.consumer})
        if cause == "silent":
            self._ownership.lose(self._member.table, "expired")
        self._wake.set()
        if self._timer is not None:
            self._rearm()

    async def _beat(self) -> None:
        self._wake.clear()
        await beat(self._member)
        while (pause := self._until_due()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
                    return

    def _until_due(self) -> float:
        """Seconds until the next beat; who asks for the turn to sweep has beaten, too."""
        beat_at = self._member.lock_state.beat_at
        return 0.0 if beat_at is None else beat_at + self._member.options.heartbeat_interval - clock.now()

    async def _resume(self) -> None:
        """Take the lock again; then look, at leisure, which leases nobody took meanwhile."""
        sent = clock.now()
        await self._member.operations.join(self._member.options.heartbeat_interval)
        self._member.outage.answered()
        self._member.lock_state.answered(sent)
        pending: dict[str, int] = {}
        last: str | None = None
        while True:
            page = await self._member.operations.pending(last, self._member.patience)
            pending.update(page.found)
            last = page.last
            if last is None:
                break
            again = clock.now()
            if not await self._member.operations.beat(self._member.options.heartbeat_interval):
                return
            sent = again
            self._member.lock_state.answered(sent)
        disagreeing = self._member.table.disagreeing(pending)
        owners = await owners_of(self._member, [lease.lbs_id for lease in disagreeing])
        if not self._member.lock_state.held_since(sent):
            return
        self._ownership.lose_to(zip(disagreeing, owners, strict=True))
        log.info(
            "the consumer lock is held again; %d streams kept",
            len(self._member.table),
            extra={"consumer": self._member.options.consumer},
        )
        self._watch_deadline()
        self._on_held()

    def _watch_deadline(self) -> None:
        """The deadline's own callback: notices a lapse without asking anybody."""
        self._member.lock_state.check()
        self._rearm()

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = self._member.lock_state.deadline - clock.now()
        if self._member.lock_state.state not in (State.HELD, State.SUSPECT):
            delay = self._member.options.heartbeat_interval
        self._timer = asyncio.get_running_loop().call_later(max(0.001, delay), self._watch_deadline)


async def beat(member: Membership, turn: float | None = None) -> bool:
    """Renew the lock; with `turn`, ask with the same beat for the turn to sweep, which lasts that many seconds.

    Returns whether the turn is ours, and the lock, too. Raises as `Operations.beat`.
    """
    epoch = member.lock_state.epoch
    sent = clock.now()
    member.lock_state.asking()
    won, timeout = False, member.options.heartbeat_interval
    if turn is None:
        alive = await member.operations.beat(timeout)
    else:
        alive, won = await member.operations.beat_and_turn(turn, timeout)
    member.outage.answered()
    if not member.lock_state.believed(epoch):
        return False
    if not alive:
        member.lock_state.lapse("missing")
        return False
    member.lock_state.renewed(sent, epoch)
    member.counters.beats += 1
    return won


async def owners_of(member: Membership, lbs_ids: list[str]) -> list[str]:
    """Who owns each entry now; '' where it is gone."""
    owners: list[str] = []
    while len(owners) < len(lbs_ids):
        owners += await member.operations.inspect(lbs_ids[len(owners) :], member.patience)
    return owners
