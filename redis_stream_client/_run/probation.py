"""Probation: where handler tasks wait whose streams are suspects. The decisions are those of `Suspects`."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence

from redis_stream_client._concurrency import clock
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.logs import Log
from redis_stream_client._model.statistics import Counters
from redis_stream_client._run.outcome import Rules
from redis_stream_client._run.suspects import Surroundings, Suspects, Verdict

LOOK = 0.005
"""Seconds between two looks whether the one on probation has nothing left to do, while others wait for it."""

FORGIVING = 0.25
"""Seconds that a suspect waits until others are acquitted or cleared. Redis may not answer."""

SELDOM = 20
"""At most one part in so many of the time goes into looks at all streams of this client: it may own thousands."""

NAMED = 10
"""The most streams that the log names of those that arrive together."""


class Probation:
    """Where the streams of one client wait whose owners have died: a `Gate` for its handler tasks.

    Args:
        rules: the rules for handlers.
        held: the streams that this client owns.
        acquit: has the records of streams that have nothing left to do say so.
        clear: has the records of streams that are at work forget the owners that died.
        counters: how many wait is counted here.
        members: how many members there are, this one included.
        unseen: for how many seconds the death of a member goes unseen at the least. A record says when the death
            of an owner was seen, and not when it died.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        log: Log,
        held: Iterable[LeaseState],
        acquit: Callable[[Sequence[LeaseState]], Awaitable[None]],
        clear: Callable[[Sequence[LeaseState]], Awaitable[None]],
        counters: Counters,
        members: Callable[[], int],
        unseen: float,
    ) -> None:
        self._log = log
        self._suspects = Suspects[LeaseState](rules.retry)
        self._held = held
        self._acquit = acquit
        self._clear = clear
        self._counters = counters
        self._members = members
        self._unseen = unseen
        self._verdicts: dict[LeaseState, asyncio.Future[Verdict]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._around = Surroundings((), at_rest=False)
        self._around_until = float("-inf")
        self._idle: list[LeaseState] = []
        self._unsaid: list[LeaseState] = []  # arrivals of which the log does not tell yet

    async def verdict(self, lease: LeaseState) -> Verdict:
        """See `Gate`. Whoever waits is cancelled when the lease is lost, or the client drains."""
        now = clock.now()
        trouble = lease.trouble
        lived = trouble.lived if trouble is not None else None
        self._suspects.add(
            lease,
            lease.deaths,
            lived=None if lived is None else max(0.0, lived - self._unseen),
            trials=trouble.trials if trouble is not None else 0,
            failing_for=lease.failing_for(now),
            now=now,
            name=lease.lbs_id,
        )
        self._unsaid.append(lease)
        verdict = self._verdicts[lease] = asyncio.get_running_loop().create_future()
        self._count()
        self._look_at(now)
        try:
            decided: Verdict = await verdict
            if decided in ("start", "trial"):
                await self._forgive()
            return decided
        except BaseException:
            self.ended(lease)
            raise
        finally:
            self._verdicts.pop(lease, None)

    def progressed(self, lease: LeaseState) -> None:
        """See `Gate`."""
        if self._suspects:
            awaited = lease in self._suspects.awaited
            now = clock.now()
            self._suspects.progressed(lease, now)
            if awaited:
                self._look_at(now)

    def ended(self, lease: LeaseState) -> None:
        """The work on a stream has ended."""
        if lease.begun:
            self._suspects.forget(lease.lbs_id)
        self._suspects.got_on(lease)
        if self._suspects:
            now = clock.now()
            self._suspects.remove(lease, now)
            self._count()
            self._look_at(now)

    # Inside.

    def _count(self) -> None:
        self._counters.suspects = len(self._suspects.waiting)

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, when - clock.now()), self._look)

    def _look(self) -> None:
        self._timer = None
        self._say_who_arrived()
        for lease in self._suspects.awaited:
            if lease.at_rest:
                self._suspects.got_on(lease)
        now = clock.now()
        while (decision := self._suspects.next(now, self._surroundings)) is not None:
            lease, decided = decision
            verdict = self._verdicts[lease]
            if not verdict.done():
                verdict.set_result(decided)
            self._count()
        again = self._suspects.look_again_at()
        if again is not None:
            self._look_at(min(again, now + LOOK) if self._suspects.awaited else again)

    def _surroundings(self) -> Surroundings:
        self._look_around()
        return self._around

    def _look_around(self) -> None:
        """Look at all streams, unless the last look was only just now, and took long."""
        began = clock.now()
        if began < self._around_until:
            return
        held = list(self._held)
        at_rest = [lease for lease in held if lease.at_rest]
        self._around = Surroundings([lease.deaths for lease in held], bool(at_rest), self._members())
        self._idle = [lease for lease in at_rest if lease.idle]
        took = clock.now() - began
        self._around_until = began + took * SELDOM

    async def _forgive(self) -> None:
        """A suspect starts: it may kill, and those that have nothing left to do, or live well here, must not be
        charged with it."""
        self._look_around()
        idle, self._idle = self._idle, []
        idle = [lease for lease in idle if lease.idle and lease.at_rest]
        cleared = [lease for lease in self._suspects.clear(clock.now()) if lease.begun and lease.lost is None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FORGIVING):
                if cleared:
                    await self._clear(cleared)
                if idle:
                    await self._acquit(idle)

    def _say_who_arrived(self) -> None:
        arrived, self._unsaid = self._unsaid, []
        for lease in arrived[:NAMED]:
            self._log.warning(
                "%d owners of %s have died without progress: its handler may kill processes, and starts after "
                "others",
                lease.deaths,
                lease.stream,
                about=lease,
            )
        if len(arrived) > NAMED:
            self._log.warning("so have owners of %d streams more", len(arrived) - NAMED)
