"""Following a lease's entries: what is handed over, and when reading begins, begins again and ends.

On a real server `testing/test_contract.py` does so; here the source says what the test wants.
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from redis_stream_client import EntriesTrimmed, Entry, Gap, NotOwner, Observer, RedisRejected, RedisUnavailable
from redis_stream_client._leases.entry_iterator import Batches, Entries
from redis_stream_client._leases.observation import Observation
from redis_stream_client._model.observer import SafeObserver
from tests.harness.leases import new_lease
from tests.harness.logs import LOG
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis_stream_client._leases.entry_iterator import OnGap
    from redis_stream_client._leases.state import LeaseState
    from redis_stream_client._model.letter_details import LetterDetails


T = TypeVar("T")

FOR_EVER = 60.0


class Source:
    """A source of what the test gives it."""

    def __init__(self) -> None:
        self.careful = False
        self.stale = False
        self.closed = False
        self.there: list[Entry | Gap] = []
        self.refusal: RedisRejected | None = None
        self._waiter: asyncio.Future[None] | None = None

    def give(self, *items: Entry | Gap) -> None:
        """These arrive now."""
        self.there += items
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    caught_up = False

    @property
    def ready(self) -> bool:
        return bool(self.there)

    def take(self) -> list[Entry | Gap]:
        taken, self.there = self.there, []
        return taken

    def want(self, waiter: asyncio.Future[None]) -> None:
        self._waiter = waiter
        if self.refusal is not None:
            waiter.set_exception(self.refusal)
        elif self.there:
            waiter.set_result(None)

    def close(self) -> None:
        self.closed = True


class Backend:
    """A backend and its data plane; `begun` counts how often a record was asked for."""

    def __init__(self) -> None:
        self.log = LOG
        self.held = True
        self.closed = False
        self.begun = 0
        self.missing = 0
        self.failure: Exception | None = None
        self.sources: list[Source] = []
        self.plane = self
        self.observation: Observation | None = None
        self.asleep: list[bool | Exception] = []
        """What is answered when a stream is to be put to sleep, in order; without an answer it lasts."""
        self.asked = 0

    def require_here(self) -> None:
        pass

    async def begin(
        self,
        lease: LeaseState,
        *,
        look_only: bool = False,
        most_deaths: int | None = None,
        trial: bool = False,
    ) -> None:
        self.begun += 1
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        lease.begin(None, 1)

    def follow(self, lease: LeaseState) -> Source:
        self.sources.append(Source())
        return self.sources[-1]

    def skipped(self, entries: int) -> None:
        self.missing += entries

    async def put_to_sleep(self, lease: LeaseState) -> bool:
        self.asked += 1
        await wait_until(lambda: self.asleep, "there is an answer")
        answer = self.asleep.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer:
            lease.end("done")
        return answer

    # What following asks for never.

    async def checkpoint(self, lease: LeaseState, id: str) -> None:
        raise NotImplementedError

    async def acquit(self, leases: Sequence[LeaseState]) -> None:
        raise NotImplementedError

    async def fail(self, lease: LeaseState, error: str) -> None:
        raise NotImplementedError

    async def answered(self, lease: LeaseState) -> None:
        raise NotImplementedError

    def finish(self, lease: LeaseState) -> asyncio.Future[None]:
        raise NotImplementedError

    async def release(
        self, lease: LeaseState, *, pause: float | None = None, graceful: bool = True, untried: bool = False
    ) -> None:
        raise NotImplementedError

    def start_release(
        self, lease: LeaseState, *, pause: float | None = None, graceful: bool = True, untried: bool = False
    ) -> asyncio.Future[None]:
        raise NotImplementedError

    async def bury(self, lease: LeaseState, reason: str, details: LetterDetails) -> None:
        raise NotImplementedError

    def keep_place(self, by: int) -> None:
        raise NotImplementedError


def entry(number: int) -> Entry:
    return Entry(f"{number}-0", {b"n": b"%d" % number})


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def lease(backend: Backend) -> LeaseState:
    return new_lease("7-0", backend=backend)


async def first_step(entries: AsyncIterator[T], backend: Backend) -> tuple[asyncio.Task[T], Source]:
    """Ask for the first step, and wait until the source is asked."""
    before = len(backend.sources)
    step: asyncio.Task[T] = asyncio.ensure_future(anext(entries))
    await wait_until(lambda: len(backend.sources) > before, "reading has begun")
    return step, backend.sources[-1]


async def test_the_record_is_asked_for_once_and_then_entries_are_handed_over_in_order(
    lease: LeaseState, backend: Backend
) -> None:
    entries = Entries(lease, backend)
    step, source = await first_step(entries, backend)
    assert lease.waiting == 1
    source.give(entry(1), entry(2))
    assert (await step, await anext(entries)) == (entry(1), entry(2))
    source.give(entry(3))
    assert await anext(entries) == entry(3)
    assert (backend.begun, lease.handed_over, lease.waiting) == (1, 3, 0)


async def test_a_lease_that_has_begun_asks_nobody(lease: LeaseState, backend: Backend) -> None:
    lease.begin("1-0", 1)
    step, source = await first_step(Entries(lease, backend), backend)
    source.give(entry(2))
    assert await step == entry(2)
    assert backend.begun == 0


async def test_a_gap_is_passed_over_and_said_once(
    lease: LeaseState, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    gap = Gap("1-0", "4-0", 2)
    for _ in range(2):  # a second iterator meets it, too
        step, source = await first_step(Entries(lease, backend), backend)
        assert not source.careful
        source.give(gap, entry(4))
        assert await step == entry(4)
    assert lease.gaps == (gap,)
    assert backend.missing == 2
    assert caplog.messages == [
        "2 entries of stream-7-0 after 1-0 and before 4-0 were trimmed or deleted before they were read"
    ]


async def test_who_must_stop_at_a_gap_goes_on_behind_it_with_the_next_step(
    lease: LeaseState, backend: Backend
) -> None:
    entries = Entries(lease, backend, "raise")
    step, source = await first_step(entries, backend)
    assert source.careful
    source.give(Gap("1-0", "4-0", 2), entry(4))
    with pytest.raises(EntriesTrimmed) as trimmed:
        await step
    assert trimmed.value.gap == Gap("1-0", "4-0", 2)
    assert await anext(entries) == entry(4)


async def test_when_the_server_may_have_lost_writes_what_has_arrived_is_read_anew(
    lease: LeaseState, backend: Backend
) -> None:
    entries = Entries(lease, backend)
    step, old = await first_step(entries, backend)
    old.give(entry(1), entry(2))
    assert await step == entry(1)
    old.stale = True
    backend.failure = RedisUnavailable("no answer")  # and the first question about it is not answered
    again = asyncio.ensure_future(anext(entries))
    await wait_until(lambda: len(backend.sources) == 2, "it reads anew")
    assert old.closed
    backend.sources[1].give(entry(1))
    assert await again == entry(1)
    assert backend.begun == 3


async def test_while_the_lock_is_in_doubt_nothing_is_handed_over(lease: LeaseState, backend: Backend) -> None:
    entries = Entries(lease, backend)
    step, source = await first_step(entries, backend)
    source.give(entry(1), entry(2))
    await step
    backend.held = False
    step = asyncio.ensure_future(anext(entries))
    await wait_until(lambda: lease.asking, "it waits for the lock, which is not the holder's standstill")
    backend.held = True
    assert await step == entry(2)


async def test_a_long_doubt_is_looked_at_seldom(
    lease: LeaseState, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of leases may wait for its end."""
    looks: list[float] = []
    loop = asyncio.get_running_loop()
    entries = Entries(lease, backend)
    step, source = await first_step(entries, backend)
    source.give(entry(1), entry(2))
    await step

    def held(self: Backend) -> bool:
        looks.append(loop.time())
        return looks[-1] > looks[0] + 1.0

    monkeypatch.setattr(Backend, "held", property(held), raising=False)
    assert await anext(entries) == entry(2)
    assert len(looks) < 15
    assert looks[1] < looks[0] + 0.1  # most doubts are short


async def test_after_the_end_of_the_lease_nothing_is_handed_over(lease: LeaseState, backend: Backend) -> None:
    entries = Entries(lease, backend)
    step, source = await first_step(entries, backend)
    source.give(entry(1), entry(2))
    await step
    lease.end("claimed")
    with pytest.raises(NotOwner) as lost:
        await anext(entries)
    assert lost.value.reason == "claimed"


async def test_a_refusal_is_remembered_as_the_leases_own(lease: LeaseState, backend: Backend) -> None:
    entries = Entries(lease, backend)
    step, source = await first_step(entries, backend)
    source.give(entry(1))
    await step
    source.refusal = RedisRejected("no permission")
    with pytest.raises(RedisRejected):
        await anext(entries)
    assert lease.refused is source.refusal


async def test_two_steps_at_once_are_a_mistake_and_the_first_goes_on(lease: LeaseState, backend: Backend) -> None:
    entries = Entries(lease, backend)
    step, source = await first_step(entries, backend)
    with pytest.raises(RuntimeError, match="another task"):
        await anext(entries)
    source.give(entry(1))
    assert await step == entry(1)


# Batches.


async def test_a_batch_leaves_what_it_has_no_place_for_to_the_next_ones(
    lease: LeaseState, backend: Backend
) -> None:
    """These waited beside it, so the last one waits no more."""
    batches = Batches(lease, backend, 2, FOR_EVER)
    step, source = await first_step(batches, backend)
    source.give(entry(1))
    await wait_until(lambda: lease.collecting, "it has an entry, and waits for more")
    source.give(entry(2), entry(3), entry(4), entry(5))
    assert await step == [entry(1), entry(2)]
    assert await anext(batches) == [entry(3), entry(4)]
    step = asyncio.ensure_future(anext(batches))
    await wait_until(lambda: lease.collecting, "it has an entry, and waits for more")
    source.give(entry(6))
    assert await step == [entry(5), entry(6)]
    assert (lease.handed_over, lease.waiting, lease.collecting, lease.waiters) == (6, 0, 0, None)


async def test_a_batch_that_is_due_has_all_that_has_come_from_the_source(
    lease: LeaseState, backend: Backend
) -> None:
    batches = Batches(lease, backend, 3, 0.0)
    step, source = await first_step(batches, backend)
    source.give(entry(1), entry(2), entry(3), entry(4))
    assert await step == [entry(1), entry(2), entry(3)]
    source.give(entry(5))
    assert await anext(batches) == [entry(4), entry(5)]


@pytest.mark.parametrize("on_gap", ["warn", "raise"])
async def test_a_gap_ends_a_batch_for_who_must_stop_there(
    lease: LeaseState, backend: Backend, on_gap: OnGap
) -> None:
    gaps = Gap("0-0", "2-0", 1), Gap("2-0", "5-0", 2)
    batches = Batches(lease, backend, 3, 0.0, on_gap)
    step, source = await first_step(batches, backend)
    source.give(gaps[0], entry(2), gaps[1], entry(5), entry(6), entry(7))
    if on_gap == "warn":
        assert await step == [entry(2), entry(5), entry(6)]
        assert await anext(batches) == [entry(7)]
    else:
        with pytest.raises(EntriesTrimmed, match="the next step of these batches"):
            await step
        assert await anext(batches) == [entry(2)]
        assert lease.gaps == gaps[:1]
        with pytest.raises(EntriesTrimmed):
            await anext(batches)
        assert await anext(batches) == [entry(5), entry(6), entry(7)]
    assert lease.gaps == gaps
    assert backend.missing == 3


async def test_a_refusal_ends_a_step_and_the_next_one_has_what_it_had_collected(
    lease: LeaseState, backend: Backend
) -> None:
    batches = Batches(lease, backend, 3, FOR_EVER)
    step, source = await first_step(batches, backend)
    source.give(entry(1))
    await wait_until(lambda: lease.collecting, "it has an entry, and waits for more")
    step.cancel()
    await asyncio.wait((step,))
    source.refusal = RedisRejected("no permission")
    with pytest.raises(RedisRejected):
        await anext(batches)
    source.refusal = None
    source.there = [entry(2), entry(3)]
    assert await anext(batches) == [entry(1), entry(2), entry(3)]


async def test_an_unfinished_batch_is_forgotten_where_the_server_may_have_lost_writes(
    lease: LeaseState, backend: Backend
) -> None:
    batches = Batches(lease, backend, 2, FOR_EVER)
    step, old = await first_step(batches, backend)
    old.give(entry(1))
    await wait_until(lambda: lease.collecting, "it has an entry, and waits for more")
    old.stale = True
    old.give(entry(9))  # what wakes it
    await wait_until(lambda: len(backend.sources) == 2, "it reads anew")
    backend.sources[1].give(entry(2), entry(3))
    assert await step == [entry(2), entry(3)]


async def test_who_drops_it_reads_no_more(lease: LeaseState, backend: Backend) -> None:
    entries = Entries(lease, backend)
    step, source = await first_step(entries, backend)
    source.give(entry(1))
    await step
    del entries, step
    gc.collect()
    await wait_until(lambda: source.closed, "the source is closed")


# Idle time.


SHORT = 0.05


async def idle_step(
    entries: AsyncIterator[T], backend: Backend, *, caught_up: bool = True
) -> tuple[asyncio.Task[T], Source]:
    step, source = await first_step(entries, backend)
    source.caught_up = caught_up
    return step, source


async def test_a_loop_without_anything_to_do_ends_and_has_ended(lease: LeaseState, backend: Backend) -> None:
    entries = Entries(lease, backend, idle=SHORT)
    step, _ = await idle_step(entries, backend)
    backend.asleep = [True]
    for _ in range(3):
        with pytest.raises(StopAsyncIteration):
            await step
        step = asyncio.ensure_future(anext(entries))
    with pytest.raises(StopAsyncIteration):
        await step
    assert backend.asked == 1


async def test_a_stream_that_was_not_read_to_its_end_is_not_put_to_sleep(
    lease: LeaseState, backend: Backend
) -> None:
    entries = Entries(lease, backend, idle=SHORT)
    step, source = await idle_step(entries, backend, caught_up=False)
    await asyncio.sleep(5 * SHORT)  # time itself is tested
    assert backend.asked == 0
    source.caught_up = True
    backend.asleep = [True]
    with pytest.raises(StopAsyncIteration):
        await step


async def test_a_stream_that_stays_awake_is_asked_about_after_another_idle_time(
    lease: LeaseState, backend: Backend
) -> None:
    entries = Entries(lease, backend, idle=2 * SHORT)
    step, _ = await idle_step(entries, backend)
    backend.asleep = [False]
    await wait_until(lambda: backend.asked == 1 and not backend.asleep, "it stays awake")
    started = asyncio.get_running_loop().time()
    await wait_until(lambda: backend.asked == 2, "it is asked about again")
    assert asyncio.get_running_loop().time() - started >= SHORT
    backend.asleep = [True]
    with pytest.raises(StopAsyncIteration):
        await step


async def test_without_an_answer_the_loop_goes_on(lease: LeaseState, backend: Backend) -> None:
    entries = Entries(lease, backend, idle=SHORT)
    step, source = await idle_step(entries, backend)
    backend.asleep = [RedisUnavailable("no answer")]
    await wait_until(lambda: backend.asked == 1 and not backend.asleep, "there was no answer")
    source.give(entry(1))
    assert await step == entry(1)


@pytest.mark.parametrize("error", [RedisRejected("another type"), NotOwner("lost", reason="claimed")])
async def test_other_errors_are_the_users_and_a_later_step_is_as_before(
    lease: LeaseState, backend: Backend, error: Exception
) -> None:
    entries = Entries(lease, backend, idle=SHORT)
    step, source = await idle_step(entries, backend)
    backend.asleep = [error]
    with pytest.raises(type(error)):
        await step
    assert lease.refused is (error if isinstance(error, RedisRejected) else None)
    if isinstance(error, NotOwner):
        lease.end("claimed")
        with pytest.raises(NotOwner):
            await anext(entries)
    else:
        source.give(entry(1))
        assert await anext(entries) == entry(1)


async def test_a_step_that_was_cancelled_while_it_asked_goes_on_with_that(
    lease: LeaseState, backend: Backend
) -> None:
    """Nothing is handed out while nobody knows whether the stream sleeps."""
    entries = Entries(lease, backend, idle=SHORT)
    step, source = await idle_step(entries, backend)
    await wait_until(lambda: backend.asked == 1, "it is asked about")
    step.cancel()
    await asyncio.wait((step,))
    source.give(entry(1))
    step = asyncio.ensure_future(anext(entries))
    await wait_until(lambda: backend.asked == 2, "it is asked about again")
    assert not step.done()
    backend.asleep = [False]
    assert await step == entry(1)


async def test_a_step_after_one_that_was_cancelled_while_the_stream_fell_asleep_is_the_end(
    lease: LeaseState, backend: Backend
) -> None:
    entries = Entries(lease, backend, idle=SHORT)
    step, _ = await idle_step(entries, backend)
    await wait_until(lambda: backend.asked == 1, "it is asked about")
    step.cancel()
    await asyncio.wait((step,))
    lease.end("done")
    with pytest.raises(StopAsyncIteration):
        await anext(entries)
    assert backend.asked == 1


async def test_after_a_doubt_idle_time_starts_anew(lease: LeaseState, backend: Backend) -> None:
    entries = Entries(lease, backend, idle=4 * SHORT)
    step, _ = await idle_step(entries, backend)
    backend.asleep = [True]
    backend.held = False
    await wait_until(lambda: lease.asking, "it waits for the lock")
    backend.held = True
    started = asyncio.get_running_loop().time()
    with pytest.raises(StopAsyncIteration):
        await step
    assert asyncio.get_running_loop().time() - started >= 3 * SHORT


async def test_without_idle_time_a_step_has_no_timer(
    lease: LeaseState, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[float] = []
    loop = asyncio.get_running_loop()
    set_timer = loop.call_later

    def call_later(delay: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        if getattr(callback, "__name__", "") == "_wake":
            timers.append(delay)
        return set_timer(delay, callback, *args)

    monkeypatch.setattr(loop, "call_later", call_later)
    step, source = await first_step(Entries(lease, backend), backend)
    source.give(entry(1))
    await step
    assert timers == []
    step, source = await first_step(Entries(lease, backend, idle=60.0), backend)
    source.give(entry(2))
    await step
    assert timers == [60.0]


async def test_a_batch_that_is_collected_is_no_idle_time(lease: LeaseState, backend: Backend) -> None:
    batches = Batches(lease, backend, 10, within=4 * SHORT, idle=SHORT)
    step, source = await idle_step(batches, backend)
    source.give(entry(1))
    assert await step == [entry(1)]
    assert backend.asked == 0
    lease.checkpointed(entry(1).id, advanced=True, handed_over=1)
    backend.asleep = [True]
    with pytest.raises(StopAsyncIteration):
        await anext(batches)


# Who is told of steps.


class Follows(Observer):
    """Notes the steps."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def asked(self, consumer: str, stream: str) -> None:
        self.told.append("asked")

    def received(self, consumer: str, stream: str, entries: Sequence[Entry]) -> None:
        self.told.append([entry.id for entry in entries])


async def test_an_observer_is_told_of_each_step_and_of_what_it_returns(
    lease: LeaseState, backend: Backend
) -> None:
    observer = Follows()
    backend.observation = Observation(SafeObserver(observer, LOG), "me")
    entries = Entries(lease, backend)
    step, source = await first_step(entries, backend)
    assert observer.told == ["asked"]
    source.give(entry(1), entry(2))
    assert (await step, await anext(entries)) == (entry(1), entry(2))
    assert observer.told == ["asked", ["1-0"], "asked", ["2-0"]]


async def test_an_observer_is_told_of_batches_as_they_are(lease: LeaseState, backend: Backend) -> None:
    observer = Follows()
    backend.observation = Observation(observer, "me")
    step, source = await first_step(Batches(lease, backend, 2, FOR_EVER), backend)
    source.give(entry(1), entry(2), entry(3))
    await step
    assert observer.told == ["asked", ["1-0", "2-0"]]


async def test_who_does_not_want_to_know_of_steps_costs_them_nothing(lease: LeaseState, backend: Backend) -> None:
    class Elsewhere(Observer):
        def gained(self, gain: object) -> None:
            pass

    for observer in (Elsewhere(), SafeObserver(Elsewhere(), LOG)):
        assert not Observation(observer, "me").follows_steps
    assert Observation(Follows(), "me").follows_steps
