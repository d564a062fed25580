"""Probation: where handler tasks wait whose streams are suspects. The decisions are those of `Suspects`."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence

from redis_stream_client._concurrency import clock
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._model.logs import log
from redis_stream_client._model.statistics import Counters
from redis_stream_client._run.outcome import Rules
from redis_stream_client._run.suspects import Surroundings, Suspects, Verdict

LOOK = 0.005
"""Seconds between two looks whether the one on probation has nothing left to do, while others wait for it."""

ACQUITTING = 0.25
"""Seconds that a suspect waits until others are acquitted. Redis may not answer."""

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
        counters: how many wait is counted here.
        has_peers: whether there are other members.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        held: Iterable[LeaseState],
        acquit: Callable[[Sequence[LeaseState]], Awaitable[None]],
        counters: Counters,
        has_peers: Callable[[], bool],
    ) -> None:
        self._suspects = Suspects[LeaseState](rules.retry)
        self._held = held
        self._acquit = acquit
        self._counters = counters
        self._has_peers = has_peers
        self._verdicts: dict[LeaseState, asyncio.Future[Verdict]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._around = Surroundings((), at_rest=False)
        self._around_until = float("-inf")
        self._idle: list[LeaseState] = []
        self._unsaid: list[tuple[LeaseState, float]] = []  # arrivals of which the log does not tell yet

    async def verdict(self, lease: LeaseState) -> Verdict:
        """See `Gate`. Whoever waits is cancelled when the lease is lost, or the client drains."""
        now = clock.now()
        trouble = lease.trouble
        rest = self._suspects.add(
            lease,
            lease.deaths,
            lived=trouble.lived if trouble is not None else None,
            trials=trouble.trials if trouble is not None else 0,
            failing_for=lease.failing_for(now),
            now=now,
            name=lease.lbs_id,
        )
        self._unsaid.append((lease, rest))
        verdict = self._verdicts[lease] = asyncio.get_running_loop().create_future()
        self._count()
        self._look_at(now)
        try:
            decided: Verdict = await verdict
            if decided in ("start", "trial"):
                await self._acquit_idle()
            return decided
        except BaseException:
            self.ended(lease)
            raise
        finally:
            self._verdicts.pop(lease, None)

    def progressed(self, lease: LeaseState) -> None:
        """See `Gate`."""
        if self._suspects:
            awaited = self._suspects.probation is lease
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
        self._counters.suspects = len(self._suspects)

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, when - clock.now()), self._look)

    def _look(self) -> None:
        self._timer = None
        self._say_who_arrived()
        on_probation = self._suspects.probation
        if on_probation is not None and on_probation.at_rest:
            self._suspects.got_on(on_probation)
        now = clock.now()
        while (decision := self._suspects.next(now, self._surroundings)) is not None:
            lease, decided = decision
            verdict = self._verdicts[lease]
            if not verdict.done():
                verdict.set_result(decided)
            self._count()
        again = self._suspects.look_again_at()
        if again is not None:
            polling = self._suspects.probation is not None
            self._look_at(min(again, now + LOOK) if polling else again)

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
        self._around = Surroundings([lease.deaths for lease in held], bool(at_rest), self._has_peers())
        self._idle = [lease for lease in at_rest if lease.idle]
        took = clock.now() - began
        self._around_until = began + took * SELDOM

    async def _acquit_idle(self) -> None:
        """A suspect starts: it may kill, and those that have nothing left to do must not be charged with it."""
        self._look_around()
        idle, self._idle = self._idle, []
        idle = [lease for lease in idle if lease.idle and lease.at_rest]
        if idle:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACQUITTING):
                    await self._acquit(idle)

    def _say_who_arrived(self) -> None:
        arrived, self._unsaid = self._unsaid, []
        grave = [(lease, rest) for lease, rest in arrived if rest]
        for lease, rest in grave[:NAMED]:
            log.warning(
                "%d owners of %s have died, and it did not get on; it rests %.1f s, and starts alone",
                lease.deaths,
                lease.stream,
                rest,
                extra=lease.log_fields(),
            )
        if len(grave) > NAMED:
            log.warning("so have owners of %d more streams", len(grave) - NAMED)
        if len(arrived) > len(grave):
            log.info("the last owner of %d streams has died; they start one by one", len(arrived) - len(grave))
