"""A handler task: one lease and the handler that works on it, under the rules of `run()`.

The same code runs in a client and in the tests of users (`testing`); only the backend of the lease differs.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.cancel_scope import CancelScope
from redis_stream_client._concurrency.standstill import Standstill, stood_still
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._leases.lease import AGAIN, Lease
from redis_stream_client._leases.observation import Observation
from redis_stream_client._leases.state import ENDED, LeaseState
from redis_stream_client._model.entry import order
from redis_stream_client._model.errors import (
    ClientClosed,
    NotOwner,
    RedisRejected,
    RedisStreamClientError,
    RedisUnavailable,
)
from redis_stream_client._model.failures import class_name, describe, is_a, is_cancellation
from redis_stream_client._model.letter_details import LetterDetails, split
from redis_stream_client._model.observer import BuriedFor
from redis_stream_client._model.retry_policy import later
from redis_stream_client._redis.error_mapping import KeyRejected
from redis_stream_client._run.handler import Handler
from redis_stream_client._run.outcome import Outcome, Rules, Status, Stop
from redis_stream_client._run.suspects import Verdict

if TYPE_CHECKING:
    from redis_stream_client._leases.backend import LeaseBackend


class Judge(Protocol):
    """Who sees how the handlers of all streams fare, and decides whether a failure is the stream's own."""

    def failed(self, lease: LeaseState, error: str) -> bool:
        """The handler of a stream has failed. Returns whether the log should show how."""
        ...

    def progressed(self, lease: LeaseState) -> None:
        """The handler of a stream has returned, or its checkpoint has advanced."""
        ...

    def counts(self, failed_at: float) -> bool:
        """Whether a failure of that time counts, asked after the rest that follows it."""
        ...

    def left_to_others(self, lease: LeaseState) -> float:
        """Seconds for which this client does not take a stream again whose failure did not count."""
        ...

    def ended(self, lease: LeaseState) -> None:
        """The handler of a stream has neither failed nor progressed, and the stream rests."""
        ...

    def stuck(self, lease: LeaseState, *, since: float) -> None:
        """The handler of a stream goes on though it was cancelled at that time."""
        ...

    def unstuck(self, lease: LeaseState) -> None:
        """It has ended."""
        ...


class Strict:
    """A `Judge` for whom each failure counts."""

    def failed(self, lease: LeaseState, error: str) -> bool:
        """It counts."""
        return True

    def counts(self, failed_at: float) -> bool:
        """It does."""
        return True

    def progressed(self, lease: LeaseState) -> None:
        """No other stream is judged by it."""

    def left_to_others(self, lease: LeaseState) -> float:
        """All count."""
        return 0.0

    def ended(self, lease: LeaseState) -> None:
        """Nor by this."""

    def stuck(self, lease: LeaseState, *, since: float) -> None:
        """Nor by this."""

    def unstuck(self, lease: LeaseState) -> None:
        """Nor by this."""


class Gate(Protocol):
    """What a stream must pass whose earlier owners have died."""

    async def verdict(self, lease: LeaseState) -> Verdict:
        """Wait until the handler of this stream may start, or it is known that the stream is to be buried."""
        ...

    def progressed(self, lease: LeaseState) -> None:
        """The checkpoint of any stream has advanced, or its handler has returned."""
        ...


class Alone:
    """The `Gate` of a stream beside which there is no other, so that there is nothing to wait for."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    async def verdict(self, lease: LeaseState) -> Verdict:
        """Decide at once."""
        last = self._rules.is_last(lease.deaths, lease.failing_for(clock.now()))
        return "bury" if last else "start"

    def progressed(self, lease: LeaseState) -> None:
        """Nobody waits for it."""


class HandlerTask:
    """One lease and its handler.

    Args:
        lease: the state of the lease.
        face: the lease that the handler gets.
        backend: the backend of the lease.
        handler: the handler of the user.
        rules: the rules for handlers.
        judge: decides whether failures count.
        gate: decides when a stream starts whose earlier owners have died.
        ready: whether the progress record of earlier owners has been read, or cannot exist.
    """

    __slots__ = (
        "_backend",
        "_face",
        "_gate",
        "_giving_up",
        "_handler",
        "_judge",
        "_keeps_place",
        "_pausing",
        "_ready",
        "_rules",
        "_stop",
        "_timer",
        "_working",
        "called",
        "lease",
        "suspect",
    )

    def __init__(
        self,
        lease: LeaseState,
        face: Lease,
        backend: "LeaseBackend",
        handler: Handler,
        rules: Rules,
        judge: Judge,
        gate: Gate,
        *,
        ready: bool = False,
    ) -> None:
        self.lease = lease
        self._face = face
        self._backend = backend
        self._ready = ready
        self._handler = handler
        self._rules = rules
        self._judge = judge
        self._gate = gate
        self._stop: Stop | None = None
        self._working = False
        self.called = False  # whether the handler was called
        self.suspect = False  # whether it waits, since earlier owners have died
        self._keeps_place = False
        self._pausing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._giving_up: asyncio.Task[Outcome] | None = None

    # What others call.

    def drain(self, *, given: bool = False) -> None:
        """Stop the handler at its next step of entries() after a checkpoint; at once if it is not at work.

        `given`: so that the stream can go to a peer that has fewer.
        """
        self.lease.drain(given=given)
        if not self._working:
            self.stop("drained")

    def undrain(self) -> None:
        """Let the handler go on that `drain` was to stop, if it has not come to that step yet."""
        self.lease.undrain()

    @property
    def may_be_given(self) -> bool:
        """Whether its stream may go to a peer that has fewer: it may move, and the handler is at work, and is not
        stopped already."""
        return self._working and self.may_be_stopped and self.lease.may_move

    @property
    def may_be_stopped(self) -> bool:
        """Whether the handler may be stopped so that the stream can go: it is not so already, nor pinned."""
        lease = self.lease
        return not (lease.draining or self._stop is not None or lease.lost is not None or lease.pinned)

    def stop(self, why: Stop) -> None:
        """Cancel the handler."""
        self._stop = self._stop or why
        if self._pausing is not None and not self._pausing.done():
            self._pausing.set_result(None)
        else:
            self.lease.cancel(why)

    def stalled(self, now: float, standstill: Standstill) -> bool:
        """Whether the handler has shown no progress for too long. Waiting for an entry or for Redis does not
        count, nor does the time for which this process stood still."""
        timeout, since = self._rules.progress_timeout, self.lease.progress_at
        return (
            timeout is not None
            and self._working
            and not (self.lease.waiting or self.lease.asking)
            and now - since > timeout
            and now - since - standstill.since(since) > timeout
        )

    def idle_for(self, now: float) -> float:
        """For how many seconds the handler has had nothing to do: it waits for an entry, and has checkpointed all
        entries before. 0 once its attempt does not count any more."""
        lease = self.lease
        if not (self._working and lease.idle):
            return 0.0
        return now - lease.progress_at

    # The work.

    async def run(self) -> Outcome:
        """Handle the lease to its end. Raises `RedisRejected` if Redis does not permit what every handler
        needs."""
        lease = self.lease
        try:
            cancel_scope = lease.enter()
        except NotOwner as lost:
            return self._outcome("lost", lost)
        cancel_scope.on_fire = self._fired
        error: BaseException | None = None
        try:
            if self._stop is None:
                if not self._ready:
                    await self._begin()
                await self._until_held()
                lease.watcher = self
                lease.progress()
                self._working = self.called = True
                if self._backend.observation is None:
                    await self._handler(self._face)
                else:
                    await self._observed(self._backend.observation)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:
            if is_a(raised, GeneratorExit) and not cancel_scope.here:
                raise  # the garbage collector throws it into a task whose loop was closed
            error = raised
        finally:
            self._working = False
        if is_cancellation(error) and cancel_scope.cancelled_by_others:
            # Somebody cancels this task, or all at the program's end: one turn of the loop later it is known
            # whether the client is leaving.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        noticed = False
        if not cancel_scope.leave_unfired():
            noticed, _ = await cancel_scope.leave(is_cancellation(error))
        if self._timer is not None:
            self._timer.cancel()
        if self._keeps_place:
            self._backend.keep_place(-1)
            self._judge.unstuck(lease)
        try:
            return await self._conclude(error, stopped=self._stopped(cancel_scope, noticed))
        finally:
            # Breaks reference cycles: with the lease, and with the error, whose traceback has this frame.
            lease.watcher = error = None

    async def _observed(self, observation: Observation) -> None:
        with observation.handling(self.lease):
            await self._handler(self._face)

    def progressed(self, lease: LeaseState) -> None:
        """The checkpoint has advanced, or the handler has returned."""
        self._judge.progressed(lease)
        self._gate.progressed(lease)

    async def _begin(self) -> None:
        """Read how far earlier owners got. Where there were none, this writes nothing. Where some have died, wait
        for what becomes of it."""
        begin = partial(self._backend.plane.begin, look_only=not self.lease.unrecorded)
        await self._insist(partial(begin, most_deaths=self._rules.spared))
        if self.lease.begun or not self.lease.deaths:
            return
        self.suspect = True
        try:
            verdict = await self._gate.verdict(self.lease)
        finally:
            self.suspect = False
        if verdict == "pass":
            raise PassedOn
        await self._insist(partial(begin, trial=verdict == "trial"))
        if verdict == "bury":
            raise TooManyDeaths

    async def _insist(self, operation: Callable[[LeaseState], Awaitable[None]]) -> None:
        """Repeat an operation until Redis answers, as long as the lease is held."""
        while True:
            try:
                return await operation(self.lease)
            except RedisRejected as refused:
                self.lease.refused = refused
                raise
            except RedisUnavailable:
                if self.lease.lost is not None:
                    raise
                await asyncio.sleep(AGAIN)

    async def _until_held(self) -> None:
        """Wait until the lock is held. Until then a peer may have begun, as when this process stood still; the
        loss cancels the waiting."""
        while True:
            if self._backend.held:
                return
            await asyncio.sleep(AGAIN)

    def _stopped(self, cancel_scope: CancelScope, noticed: bool) -> Stop | None:
        """Why this task has stopped the handler; None if the handler ended before it noticed."""
        if self._stop is not None and not cancel_scope.fired:  # it had not begun
            return self._stop
        if not noticed:
            return None
        return self._stop or "drained"

    def _fired(self) -> None:
        """The handler was cancelled. One that ignores this loses the stream, and still counts for
        `max_streams`."""
        if self.lease.lost is not None:
            self._keep_place()
        if self._timer is None:
            self._be_patient(self._rules.patience)

    def _be_patient(self, seconds: float) -> None:
        due = clock.now() + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._ignored, due)

    def _ignored(self, due: float) -> None:
        late = clock.now() - due
        if stood_still(late, self._rules.patience):  # this process stood still, and its handler, too
            self._be_patient(min(late, self._rules.patience))
            return
        lease = self.lease
        self._backend.log.warning(
            "the handler of %s ignores its cancellation, now for %g s: the stream goes on without it, and it "
            "counts for max_streams until it ends",
            lease.stream,
            self._rules.patience,
            about=lease,
        )
        self._judge.stuck(lease, since=due - self._rules.patience)
        self._keep_place()
        if lease.lost is None and self._stop == "stalled":
            self._giving_up = start_task(self._give_up(), f"giving up {lease.stream}")
        elif lease.lost is None:
            with contextlib.suppress(ClientClosed):  # leaving releases it, too
                self._backend.start_release(lease)

    async def _give_up(self) -> Outcome:
        """End the lease while its handler goes on, which has stalled: a failure, and no death."""
        try:
            return await self._failed(None, "stalled", "no progress in time, and its cancellation is ignored")
        except RedisStreamClientError as failure:
            return self._outcome("lost", failure)

    def _keep_place(self) -> None:
        if not self._keeps_place:
            self._keeps_place = True
            self._backend.keep_place(1)

    # The end.

    async def _conclude(self, error: BaseException | None, stopped: Stop | None) -> Outcome:
        lease = self.lease
        if self._giving_up is not None:
            await asyncio.wait((self._giving_up,))
        refused = lease.refused
        if refused is not None and refused is error and not isinstance(refused, KeyRejected):
            raise refused  # as it would for every stream: the handler is not at fault
        try:
            if lease.lost is not None or self._backend.closed:  # closing ends one lease after the other
                return self._lost(error, stopped)
            if is_a(error, PassedOn):
                await self._release(graceful=False)
                return self._outcome("postponed", None)
            if is_a(error, TooManyDeaths):
                return await self._bury("deaths", f"its owners died {lease.deaths} times", None, "")
            if stopped == "drained":
                if error is not None and not is_cancellation(error):
                    self._log_failure(error)
                await self._release(untried=not self.called)
                return self._outcome("drained", error)
            if stopped == "stalled":
                return await self._failed(error, "stalled", "no progress in time")
            if error is None:
                await self._insist(self._backend.finish)
                self.progressed(lease)
                return self._outcome("done", None)
            if (after := later(error)) is not None:
                return await self._postpone(after, error)
            return await self._failed(error, "failed", describe(error))
        except (NotOwner, ClientClosed, RedisUnavailable) as failure:
            return self._outcome("lost", failure)

    def _lost(self, error: BaseException | None, stopped: Stop | None) -> Outcome:
        lost = self.lease.lost
        if lost == "done":
            self.progressed(self.lease)
        if lost not in ENDED:
            return self._outcome("lost", error)
        if error is not None and not is_cancellation(error):
            self._log_failure(error)
        return self._outcome(stopped or lost, error)  # type: ignore[arg-type]

    async def _failed(self, error: BaseException | None, status: Status, what: str) -> Outcome:
        """Rest, record the failure, release; or bury the stream, if it was one failure too many."""
        lease, failed_at = self.lease, clock.now()
        await self._backend.answered(lease)  # a checkpoint whose caller is gone may be accepted
        if lease.lost is not None:
            return self._lost(error, None)
        if (poison := self._rules.poison_in(error)) is not None:
            self._log_failure(error)
            what = describe(poison)
            self._tell_of_failure(error, status)
            return await self._bury("poison", f"raised what goes to the dead letters at once: {what}", error, what)
        counts, last = lease.attempts > 0, False  # else it got on
        if counts:
            lease.fail(what)
            last = self._rules.is_last(lease.failures, lease.failing_for(failed_at))
        self._tell_of_failure(error, status)
        shown = is_a(error, RedisStreamClientError) or self._judge.failed(lease, what)
        pause = self._rules.pause(lease.failures)
        if status == "stalled":
            self._log_stall(shown=shown)
            await self._rest(min(pause, self._rules.pause(1)))  # until it is known whether others stall, too
        else:
            self._log_failure(error, shown=shown)
            if not lease.draining:
                await self._rest(min(pause, self._rules.pause(1)) if last else pause)
                pause = min(pause, self._rules.patience)  # by then a peer has it that wants it
        overlooked = counts and not self._judge.counts(failed_at)
        if last and not overlooked and lease.lost is None:
            reason = f"failed {lease.failures} times, at last: {what}"
            return await self._bury("failures", reason, error, what)
        if await self._give_back(what, pause, counts=counts and not overlooked, overlooked=overlooked):
            return self._outcome(status, error)
        return await self._bury("failures", f"failed {lease.deliveries} times, at last: {what}", error, what)

    async def _give_back(self, what: str, pause: float, *, counts: bool, overlooked: bool) -> bool:
        """Record the failure, if it counts, and release. False: the stream was tried too often for that."""
        lease = self.lease
        if counts and lease.lost is None and not await self._record_failure(what):
            return False
        if overlooked:
            pause = max(pause, self._judge.left_to_others(lease))
        if lease.lost is None:
            await self._release(pause=pause, graceful=overlooked, untried=overlooked)
        return True

    async def _record_failure(self, what: str) -> bool:
        """Have the record say it, so that it counts, whoever owns the stream next. False: the stream was tried too
        often for that."""
        lease = self.lease
        try:
            await self._backend.plane.fail(lease, what)
        except RedisUnavailable as failure:  # where the record says that we began, it looks as if we had died
            self._backend.log.debug("could not count the failure of %s: %s", lease.stream, failure, about=lease)
        except RedisRejected as failure:  # nothing but the deliveries counts what was tried with such a stream
            self._backend.log.debug("could not count the failure of %s: %s", lease.stream, failure, about=lease)
            age = time.time() - order(lease.lbs_id)[0] / 1000
            known = age >= 0  # otherwise the id says nothing: it is ahead of our clock, or no clock has made it
            return not self._rules.is_last(lease.deliveries, age if known else float("inf"))
        return True

    async def _postpone(self, seconds: float, error: BaseException | None) -> Outcome:
        """Rest, and release: the handler asked for it."""
        lease = self.lease
        await self._backend.answered(lease)
        if lease.lost is None and not lease.draining:
            self._backend.log.debug("%s is left alone for %g s", lease.stream, seconds, about=lease)
            self._judge.ended(lease)
            await self._rest(self._rules.rest(seconds))
        if lease.lost is not None:
            return self._lost(None, None)
        await self._release(pause=self._rules.pause(1))
        return self._outcome("postponed", error)

    async def _release(self, *, pause: float | None = None, graceful: bool = True, untried: bool = False) -> None:
        """Release the stream. Without an answer the lease has ended all the same, and a peer takes it over.

        A handler that was drained or put off was at work, and its owner lived: the deaths before it are over. One
        that was not called, or that failed in an outage, did not come to what those may have died of.
        """
        with contextlib.suppress(RedisUnavailable):
            await self._backend.release(self.lease, pause=pause, graceful=graceful, untried=untried)

    async def _rest(self, seconds: float) -> None:
        """Pause for `seconds`; end the pause early if the lease is lost or the client drains."""
        self._pausing = waiter = self.lease.add_waiter()
        timer = asyncio.get_running_loop().call_later(seconds, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self.lease.remove_waiter(waiter)
            self._pausing = None

    async def _bury(self, why: BuriedFor, reason: str, error: BaseException | None, what: str) -> Outcome:
        """Move the stream to the dead letters. `what`: the failure of this owner, if there was one."""
        lease = self.lease
        self._backend.log.error(
            "%s goes to the dead letters: %s; mend the cause, then put it back: redis-stream-client dead",
            lease.stream,
            reason,
            about=lease,
        )
        try:
            await self._insist(partial(self._backend.bury, reason=reason, details=self._details(what)))
        except KeyRejected as refused:
            self._backend.log.error(
                "%s cannot be moved to the dead letters, and is tried again: %s",
                lease.stream,
                describe(refused),
                about=lease,
            )
            pause = self._rules.pause(lease.tries)
            await self._rest(pause)
            if lease.lost is None and error is not None:
                await self._record_failure(what)
            if lease.lost is None:
                await self._release(pause=pause, graceful=False)
            return self._outcome("failed", error)
        if self._backend.observation is not None:
            kind = split(what)[0] or (class_name(error) if error is not None else "")
            self._backend.observation.buried(lease.lbs_id, why, lease.stream, kind)
        return self._outcome("dead", error)

    def _tell_of_failure(self, error: BaseException | None, status: Status) -> None:
        if self._backend.observation is not None:
            self._backend.observation.failed(self.lease, error, stalled=status == "stalled")

    def _details(self, what: str) -> LetterDetails:
        lease = self.lease
        trouble = lease.trouble
        kind, text = split(what or (trouble.error if trouble is not None else ""))
        return LetterDetails(
            position=lease.position,
            last_entry=lease.last_entry,
            error_type=kind,
            error=text,
            failures=lease.failures,
            deaths=lease.deaths,
            failing_since=time.time() - lease.failing_for(clock.now()) if trouble is not None else None,
        )

    def _log_failure(self, error: BaseException | None, *, shown: bool = True) -> None:
        lease = self.lease
        if not shown:  # one line for each stream would bury what the log says of the outage
            what = "" if error is None else describe(error)
            self._backend.log.debug("the handler of %s failed, too: %s", lease.stream, what, about=lease)
            return
        self._backend.log.error(
            "the handler of %s failed (%s, fence %s)",
            lease.stream,
            f"attempt {lease.tries}" if lease.tries else "after progress",
            lease.fence,
            error=error,
            about=lease,
            extra={"attempts": lease.tries},
        )

    def _log_stall(self, *, shown: bool) -> None:
        lease, timeout = self.lease, self._rules.progress_timeout
        say = self._backend.log.warning if shown else self._backend.log.debug
        say(
            "no progress on %s for %g s (progress_timeout): its handler is cancelled, and it is released",
            lease.stream,
            timeout,
            about=lease,
            extra={"attempts": lease.tries},
        )

    def _outcome(self, status: Status, error: BaseException | None) -> Outcome:
        return Outcome(status, error, self.lease.position, self.lease.tries)


class PassedOn(Exception):
    """A peer is to find out what ails the stream. It never leaves the package."""


class TooManyDeaths(Exception):
    """A stream that no owner survives. It never leaves the package."""


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
