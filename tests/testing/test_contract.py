"""What a lease and `run()` promise, of a client on a real server and of `redis_stream_client.testing` alike.

A user's test that passes in memory would mean nothing if the two could drift apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from redis_stream_client import Entry, Lease, NotOwner, PoisonError, RedisUnavailable, RetryLater, RetryPolicy
from tests.harness.backends import STREAM, Backend, Facts, InMemory, OnServer
from tests.harness.leases import state_of
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis_stream_client._leases.entry_iterator import Batches
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy

TICKS = ({"n": "1"}, {"n": "2"}, {"n": "3"})
FOR_EVER = 60.0


@pytest.fixture
def in_memory() -> Backend:
    return InMemory()


@pytest.fixture
async def on_server(redis: Connection, proxy: TcpProxy, service: str) -> AsyncIterator[Backend]:
    async with OnServer(redis, proxy, service) as backend:
        yield backend


@pytest.fixture(params=["in_memory", "on_server"])
def backend(request: pytest.FixtureRequest) -> Backend:
    backend: Backend = request.getfixturevalue(request.param)
    return backend


async def steps(lease: Lease, count: int) -> list[str]:
    """Take some entries, each call anew; returns their ids."""
    entries = lease.entries()
    return [(await anext(entries)).id for _ in range(count)]


class Recorder:
    """A handler that checkpoints what it reads, and what happened to it."""

    def __init__(self, work: Callable[[Lease], Any] | None = None) -> None:
        self.lease: Lease | None = None
        self.read: list[str] = []
        self.cancellations = 0
        self.work = work or self.follow

    async def __call__(self, lease: Lease) -> None:
        self.lease = lease
        try:
            await self.work(lease)
        except asyncio.CancelledError:
            self.cancellations += 1
            raise

    async def follow(self, lease: Lease) -> None:
        async for entry in lease.entries():
            self.read.append(entry.id)
            await lease.checkpoint(entry.id)

    async def without_checkpoints(self, lease: Lease) -> None:
        async for entry in lease.entries():
            self.read.append(entry.id)

    async def sleep(self, lease: Lease) -> None:
        await asyncio.sleep(FOR_EVER)

    @property
    def waits(self) -> bool:
        """Whether it waits for the next entry."""
        return self.lease is not None and state_of(self.lease).waiting > 0

    async def has_read(self, *ids: str) -> None:
        await wait_until(lambda: self.read == list(ids) and self.waits, f"it has read {ids}")


# Entries.


async def test_entries_come_in_order_from_the_first_with_their_bytes(backend: Backend) -> None:
    lease = await backend.own([{"type": "start", "an": "é"}, *TICKS])
    entries = lease.entries()
    assert await anext(entries) == Entry("1-0", {b"type": b"start", b"an": "é".encode()})
    assert [(await anext(entries)).text() for _ in range(3)] == list(TICKS)
    assert lease.position is None


async def test_entries_begin_after_the_checkpoint_that_an_earlier_owner_left(backend: Backend) -> None:
    lease = await backend.own(TICKS, position="2-0")
    assert await steps(lease, 1) == ["3-0"]
    assert lease.position == "2-0"


async def test_entries_wait_for_more_and_wake_when_it_comes(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    entries = lease.entries()
    for _ in TICKS:
        await anext(entries)
    for number in range(4, 8):
        step = asyncio.ensure_future(anext(entries))
        await wait_until(lambda: state_of(lease).waiting, "a step waits")
        assert await backend.feed({"n": str(number)}) == [f"{number}-0"]
        assert (await step).id == f"{number}-0"


async def test_each_call_of_entries_starts_anew_after_the_last_checkpoint(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    assert await steps(lease, 3) == ["1-0", "2-0", "3-0"]
    assert await steps(lease, 2) == ["1-0", "2-0"]
    await lease.checkpoint("1-0")
    assert await steps(lease, 2) == ["2-0", "3-0"]


async def test_two_iterators_of_one_lease_do_not_disturb_each_other(backend: Backend) -> None:
    lease = await backend.own()
    first, second = lease.entries(), lease.entries()
    waiting = [asyncio.ensure_future(anext(entries)) for entries in (first, second)]
    await wait_until(lambda: state_of(lease).waiting == 2, "both wait")
    await backend.feed(*TICKS)
    assert [entry.id for entry in await asyncio.gather(*waiting)] == ["1-0", "1-0"]
    assert (await anext(first)).id == (await anext(second)).id == "2-0"


async def test_a_cancelled_step_loses_no_entry(backend: Backend) -> None:
    lease = await backend.own()
    entries = lease.entries()
    for number in range(1, 6):
        step = asyncio.ensure_future(anext(entries))
        await wait_until(lambda: state_of(lease).waiting, "a step waits")
        await backend.feed({"n": str(number)})
        step.cancel()
        await asyncio.wait((step,))
        assert (await anext(entries)).id == f"{number}-0"


async def test_two_steps_of_one_iterator_at_once_are_a_mistake(backend: Backend) -> None:
    lease = await backend.own()
    entries = lease.entries()
    step = asyncio.ensure_future(anext(entries))
    await wait_until(lambda: state_of(lease).waiting, "a step waits")
    with pytest.raises(RuntimeError, match="call entries\\(\\) once for each"):
        await anext(entries)
    await backend.feed(*TICKS)
    assert (await step).id == "1-0"


# Batches.


async def ids(batches: Batches) -> list[str]:
    """Take one batch; returns its ids."""
    return [entry.id for entry in await anext(batches)]


async def collecting(lease: Lease, entries: int = 1) -> None:
    """Wait until a step has that many entries, and waits for more."""
    await wait_until(lambda: state_of(lease).collecting == entries, "a step has entries and waits for more")


async def test_a_batch_has_what_has_arrived_and_never_more_than_was_asked_for(backend: Backend) -> None:
    lease = await backend.own([{"an": "é"}, *TICKS, *TICKS], position="2-0")
    batches = lease.batches(max_entries=2)
    assert await anext(batches) == [Entry("3-0", {b"n": b"2"}), Entry("4-0", {b"n": b"3"})]
    assert await ids(batches) == ["5-0", "6-0"]
    assert await ids(batches) == ["7-0"]
    assert lease.position == "2-0"
    assert await ids(lease.batches(within=0)) == ["3-0", "4-0", "5-0", "6-0", "7-0"]


async def test_one_checkpoint_covers_a_batch(backend: Backend) -> None:
    lease = await backend.own(TICKS, attempts=3)
    batch = await anext(lease.batches())
    assert len(batch) == 3
    with pytest.raises(ValueError, match="beyond the last entry"):
        await lease.checkpoint("3-1")
    await lease.checkpoint(batch[-1].id)
    assert (lease.position, lease.attempts) == ("3-0", 0)
    assert state_of(lease).settled
    assert await backend.facts() == Facts("ours", None, "3-0", 0)


async def test_a_batch_is_handed_out_as_soon_as_it_is_full(backend: Backend) -> None:
    lease = await backend.own()
    step = asyncio.ensure_future(ids(lease.batches(max_entries=3, within=FOR_EVER)))
    await wait_until(lambda: state_of(lease).waiting, "a step waits")
    await backend.feed(*TICKS[:2])
    await collecting(lease)
    assert (state_of(lease).handed_over, step.done()) == (0, False)
    await backend.feed(*TICKS)
    assert await step == ["1-0", "2-0", "3-0"]
    assert state_of(lease).collecting == 0


async def test_a_batch_that_is_not_full_waits_for_more_for_a_while(backend: Backend) -> None:
    lease = await backend.own()
    batches = lease.batches(within=0.2)
    loop = asyncio.get_running_loop()
    for first in (1, 3):
        step = asyncio.ensure_future(ids(batches))
        await wait_until(lambda: state_of(lease).waiting, "a step waits")
        fed_at = loop.time()
        await backend.feed({"n": "1"})
        await collecting(lease)
        await backend.feed({"n": "2"})
        assert await step == [f"{first}-0", f"{first + 1}-0"]
        assert loop.time() - fed_at >= 0.199


async def test_a_cancelled_step_loses_nothing_of_its_batch(backend: Backend) -> None:
    lease = await backend.own()
    batches = lease.batches(max_entries=4, within=FOR_EVER)
    for number in range(1, 4):
        step = asyncio.ensure_future(anext(batches))
        await wait_until(lambda: state_of(lease).waiting, "a step waits")
        await backend.feed({"n": str(number)})
        await collecting(lease)
        step.cancel()
        await asyncio.wait((step,))
        assert (state_of(lease).collecting, state_of(lease).handed_over) == (0, 0)
    await backend.feed({"n": "4"})
    assert await ids(batches) == ["1-0", "2-0", "3-0", "4-0"]


async def test_a_batch_waits_from_the_arrival_of_its_first_entry_though_its_step_was_cancelled(
    backend: Backend,
) -> None:
    lease = await backend.own(TICKS)
    batches = lease.batches(within=0.3)
    loop = asyncio.get_running_loop()
    step = asyncio.ensure_future(anext(batches))
    await collecting(lease)
    step.cancel()
    await asyncio.wait((step,))
    arrived = loop.time()
    await wait_until(lambda: loop.time() - arrived > 0.3, "it has waited for long enough")
    step = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0)
    assert step.done()


async def test_two_steps_of_the_same_batches_at_once_are_a_mistake(backend: Backend) -> None:
    lease = await backend.own()
    batches = lease.batches()
    step = asyncio.ensure_future(anext(batches))
    await wait_until(lambda: state_of(lease).waiting, "a step waits")
    with pytest.raises(RuntimeError, match="call batches\\(\\) once for each"):
        await anext(batches)
    await backend.feed(*TICKS)
    assert (await step)[0].id == "1-0"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_entries": 0}, ValueError),
        ({"max_entries": 2.0}, TypeError),
        ({"max_entries": True}, TypeError),
        ({"within": -0.1}, ValueError),
        ({"within": float("nan")}, ValueError),
        ({"within": None}, TypeError),
        ({"on_gap": "ignore"}, ValueError),
    ],
)
async def test_what_cannot_be_asked_of_batches_is_refused_at_once(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    lease = await InMemory().own()
    with pytest.raises(error, match=next(iter(arguments))):
        lease.batches(**arguments)


async def test_a_loss_cancels_a_step_that_collects(backend: Backend) -> None:
    lease = await backend.own(TICKS)

    async def block() -> None:
        async with lease:
            losing = asyncio.create_task(lose())
            try:
                async for _ in lease.batches(within=FOR_EVER):
                    pytest.fail("there was a batch")
                pytest.fail("batches() ended")
            finally:
                await losing

    async def lose() -> None:
        await collecting(lease)
        await backend.lose()

    with pytest.raises(NotOwner):
        await block()
    assert await backend.facts() == Facts("a peer's", None, None, 1)


async def test_no_batch_is_handed_out_in_doubt(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    batches = lease.batches(within=0.1)
    step = asyncio.ensure_future(ids(batches))
    await collecting(lease)
    async with backend.doubt():
        doubted = asyncio.get_running_loop().time()
        await wait_until(lambda: asyncio.get_running_loop().time() > doubted + 0.1, "the batch is due")
        assert not step.done() or lease.owned
    assert await step == ["1-0", "2-0", "3-0"]


async def test_a_batch_waits_for_the_end_of_an_outage(backend: Backend) -> None:
    lease = await backend.own()
    batches = lease.batches(max_entries=3, within=FOR_EVER)
    with backend.unavailable(), pytest.raises(RedisUnavailable):
        await anext(batches)
    step = asyncio.ensure_future(ids(batches))
    await wait_until(lambda: state_of(lease).waiting, "a step waits")
    with backend.unavailable():
        await backend.feed(*TICKS)
        with pytest.raises(RedisUnavailable):  # so long at least does it wait
            await lease.checkpoint("1-0")
        assert not step.done()
    assert await step == ["1-0", "2-0", "3-0"]


# Sleep.


SHORT = 0.1
LONG = 600.0


async def test_a_stream_with_nothing_to_read_is_put_to_sleep(backend: Backend) -> None:
    lease = await backend.own(TICKS, position="3-0")
    assert await lease.done_if_idle() is True
    assert await lease.lost() == "done"
    assert await backend.facts() == Facts("done", None, "3-0", 0)
    with pytest.raises(NotOwner, match="done"):
        await lease.done_if_idle()


async def test_an_entry_that_was_not_read_keeps_a_stream_awake(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    assert await lease.done_if_idle() is False
    assert await steps(lease, 1) == ["1-0"]
    await lease.checkpoint("1-0")
    assert await lease.done_if_idle() is False
    assert lease.owned
    assert await steps(lease, 2) == ["2-0", "3-0"]
    assert await lease.done_if_idle() is False
    await lease.checkpoint("3-0")
    assert await lease.done_if_idle() is True
    assert await backend.facts() == Facts("done", None, "3-0", 0)


async def test_an_entry_without_a_checkpoint_keeps_a_stream_awake_and_nothing_is_asked(backend: Backend) -> None:
    lease = await backend.own(TICKS[:1])
    assert await steps(lease, 1) == ["1-0"]
    with backend.unavailable():
        assert await lease.done_if_idle() is False
    assert lease.owned


async def test_the_loop_ends_when_nothing_comes_and_the_stream_sleeps_then(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    entries = lease.entries(idle=SHORT)
    read: list[str] = []
    async for entry in entries:
        read.append(entry.id)
        await lease.checkpoint(entry.id)
    assert read == ["1-0", "2-0", "3-0"]
    assert await lease.lost() == "done"
    assert await backend.facts() == Facts("done", None, "3-0", 0)
    with pytest.raises(StopAsyncIteration):
        await anext(entries)
    with pytest.raises(NotOwner):
        await anext(lease.entries(idle=SHORT))


async def test_batches_end_when_nothing_comes(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    read: list[str] = []
    async for batch in lease.batches(max_entries=2, within=2 * SHORT, idle=SHORT):
        read += [entry.id for entry in batch]
        await lease.checkpoint(batch[-1].id)
    assert read == ["1-0", "2-0", "3-0"]
    assert (await backend.facts()).state == "done"


async def test_what_comes_in_time_is_read_and_idle_time_starts_anew(backend: Backend) -> None:
    lease = await backend.own()
    began = time.monotonic()
    entries = lease.entries(idle=3 * SHORT)
    for number in range(1, 5):
        step = asyncio.ensure_future(anext(entries))
        await asyncio.sleep(2 * SHORT)  # time itself is tested
        await backend.feed({"n": str(number)})
        entry = await step
        assert entry.id == f"{number}-0"
        await lease.checkpoint(entry.id)
    assert time.monotonic() - began >= 8 * SHORT
    with pytest.raises(StopAsyncIteration):
        await anext(entries)


async def test_idle_time_passes_over_steps_that_were_cancelled(backend: Backend) -> None:
    lease = await backend.own()
    entries = lease.entries(idle=4 * SHORT)
    ended = False
    while not ended:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHORT):
                try:
                    await anext(entries)
                except StopAsyncIteration:
                    ended = True
    assert (await backend.facts()).state == "done"


async def test_the_loop_waits_for_the_checkpoint_of_what_was_read(backend: Backend) -> None:
    lease = await backend.own(TICKS[:1])
    entries = lease.entries(idle=SHORT)
    await anext(entries)
    step = asyncio.ensure_future(anext(entries))
    await asyncio.sleep(4 * SHORT)  # time itself is tested
    assert not step.done()
    assert (await backend.facts()).state == "ours"
    await lease.checkpoint("1-0")
    with pytest.raises(StopAsyncIteration):
        await step
    assert await backend.facts() == Facts("done", None, "1-0", 0)


@pytest.mark.parametrize("in_batches", [False, True])
async def test_a_handler_whose_loop_ends_by_itself_has_finished_the_stream(
    backend: Backend, in_batches: bool
) -> None:
    async def session(lease: Lease) -> None:
        async for batch in lease.batches(idle=SHORT):
            await lease.checkpoint(batch[-1].id)

    async def in_steps(lease: Lease) -> None:
        async for entry in lease.entries(idle=SHORT):
            await lease.checkpoint(entry.id)

    await backend.start(session if in_batches else in_steps, TICKS, attempts=3)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.position, outcome.attempts) == ("done", "3-0", 0)
    assert await backend.facts() == Facts("done", None, "3-0", 0)


async def test_a_session_that_finds_nothing_has_not_tried(backend: Backend) -> None:
    async def session(lease: Lease) -> None:
        async for _ in lease.entries(idle=SHORT):
            raise AssertionError("there is nothing")

    await backend.start(session, TICKS, position="3-0")
    assert (await backend.outcome()).status == "done"
    assert await backend.facts() == Facts("done", None, "3-0", 0)


@pytest.mark.parametrize("on_done", ["trim", "delete"])
async def test_what_becomes_of_a_stream_that_sleeps(backend: Backend, on_done: str) -> None:
    async def session(lease: Lease) -> None:
        async for entry in lease.entries(idle=SHORT):
            await lease.checkpoint(entry.id)

    await backend.start(session, TICKS, on_done=on_done)
    assert (await backend.outcome()).status == "done"
    assert await backend.left() == ([] if on_done == "trim" else None)


async def test_nobody_sleeps_once_a_newer_owner_has_begun(backend: Backend) -> None:
    lease = await backend.own()
    await lease.checkpoint("1-0")
    await backend.overtake()
    with pytest.raises(NotOwner) as refused:
        await lease.done_if_idle()
    assert refused.value.reason == "claimed"
    assert (await backend.facts()).state == "a peer's"


async def test_a_loss_ends_a_loop_that_falls_asleep_with_an_error(backend: Backend) -> None:
    lease = await backend.own()
    entries = lease.entries(idle=LONG)
    step = asyncio.ensure_future(anext(entries))
    await wait_until(lambda: state_of(lease).waiting, "a step waits")
    await backend.lose()
    with pytest.raises(NotOwner):
        await step


async def test_a_stream_does_not_sleep_in_an_outage_and_does_after_it(backend: Backend) -> None:
    lease = await backend.own()
    entries = lease.entries(idle=SHORT)
    with backend.unavailable():
        with pytest.raises(RedisUnavailable):
            await lease.done_if_idle()
        assert lease.owned
    with pytest.raises(StopAsyncIteration):
        await anext(entries)
    assert (await backend.facts()).state == "done"


async def test_a_loop_lives_through_an_outage_in_which_it_would_end(backend: Backend) -> None:
    lease = await backend.own()
    entries = lease.entries(idle=SHORT)
    step = asyncio.ensure_future(anext(entries))
    await wait_until(lambda: state_of(lease).waiting, "a step waits")
    with backend.unavailable():
        with pytest.raises(RedisUnavailable):  # so long at least does it last
            await lease.checkpoint("1-0")
        assert not step.done()
        assert lease.owned
    with pytest.raises(StopAsyncIteration):
        await step
    assert (await backend.facts()).state == "done"


async def test_a_stream_does_not_sleep_in_doubt(backend: Backend) -> None:
    lease = await backend.own()
    entries = lease.entries(idle=SHORT)
    async with backend.doubt():
        step = asyncio.ensure_future(anext(entries))
        await asyncio.sleep(0)
        await backend.feed(*TICKS)
    assert (await step).id == "1-0"


async def test_falling_asleep_goes_on_if_its_caller_is_gone_and_another_call_waits_for_it(
    backend: Backend,
) -> None:
    lease = await backend.own()
    await lease.checkpoint("1-0")
    asking = asyncio.create_task(lease.done_if_idle())
    await asyncio.sleep(0)
    asking.cancel()
    assert await lease.done_if_idle() is True
    assert asking.cancelled()
    assert (await backend.facts()).state == "done"


async def test_draining_stops_a_handler_that_would_fall_asleep_later(backend: Backend) -> None:
    async def session(lease: Lease) -> None:
        async for entry in lease.entries(idle=LONG):
            await lease.checkpoint(entry.id)

    handler = Recorder(session)
    await backend.start(handler, TICKS)
    await wait_until(lambda: handler.waits and cast("Lease", handler.lease).position == "3-0", "it has read all")
    backend.drain()
    assert (await backend.outcome()).status == "drained"
    assert await backend.facts() == Facts("released", None, "3-0", 0)


@pytest.mark.parametrize(
    ("idle", "error"), [(-1.0, ValueError), (float("nan"), ValueError), ("10", TypeError), (True, TypeError)]
)
async def test_what_is_no_idle_time_is_refused_at_once(idle: Any, error: type[Exception]) -> None:
    lease = await InMemory().own()
    for follow in (lease.entries, lease.batches):
        with pytest.raises(error, match="idle"):
            follow(idle=idle)


# Checkpoints.


async def test_a_checkpoint_advances_the_position_and_starts_the_attempts_anew(backend: Backend) -> None:
    lease = await backend.own(TICKS, position="1-0", attempts=3)
    assert await steps(lease, 1) == ["2-0"]
    assert lease.attempts == 3
    assert await backend.facts() == Facts("ours", None, "1-0", 3)
    await lease.checkpoint("2-0")
    assert (lease.position, lease.attempts) == ("2-0", 0)
    assert await backend.facts() == Facts("ours", None, "2-0", 0)


async def test_a_checkpoint_needs_no_step_of_entries_before_it(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    await lease.checkpoint("2-0")
    assert await steps(lease, 1) == ["3-0"]


@pytest.mark.parametrize("beyond", ["2-1", "3-0", "99999999999999-0"])
async def test_a_checkpoint_beyond_what_was_handed_out_is_a_mistake(backend: Backend, beyond: str) -> None:
    """Though more has arrived already. The furthest of several iterators counts."""
    lease = await backend.own(TICKS, position="1-0")
    first, second = lease.entries(), lease.entries()
    assert (await anext(first)).id == "2-0"
    with pytest.raises(ValueError, match=rf"{beyond} is beyond the last entry .* 2-0"):
        await lease.checkpoint(beyond)
    assert (await backend.facts()).position == "1-0"
    await lease.checkpoint("0-5")  # at or below the stored one: changes nothing
    assert lease.position == "1-0"
    assert [(await anext(second)).id for _ in range(2)] == ["2-0", "3-0"]
    await lease.checkpoint("3-0")
    assert (lease.position, lease.owned) == ("3-0", True)


async def given_up(lease: Lease, *ids: str) -> None:
    """Ask for checkpoints, and wait for none of them."""
    asked = [asyncio.create_task(lease.checkpoint(id)) for id in ids]
    await asyncio.sleep(0)
    for asking in asked:
        asking.cancel()
    await asyncio.wait(asked)
    assert all(asking.cancelled() for asking in asked)


@pytest.mark.parametrize("begun", [True, False])
async def test_a_checkpoint_counts_when_its_caller_is_gone(backend: Backend, begun: bool) -> None:
    lease = await backend.own(TICKS, position="1-0", attempts=3)
    if begun:
        assert await steps(lease, 1) == ["2-0"]
    with backend.answers_late():
        await given_up(lease, "2-0")
    await wait_until(lambda: (lease.position, lease.attempts) == ("2-0", 0), "the answer has been heard")
    assert await backend.facts() == Facts("ours", None, "2-0", 0)


async def test_checkpoints_whose_callers_are_gone_count_in_order(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    await steps(lease, 3)
    with backend.answers_late():
        await given_up(lease, "1-0", "3-0", "2-0")
    await lease.checkpoint("2-0")
    await wait_until(lambda: lease.position == "3-0", "all answers have been heard")
    assert (await backend.facts()).position == "3-0"


async def test_an_answer_that_comes_late_does_not_settle_what_was_read_meanwhile(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    entries = lease.entries()
    await anext(entries)
    with backend.answers_late():
        await given_up(lease, "1-0")
        await anext(entries)
    await wait_until(lambda: lease.position == "1-0", "the answer has been heard")
    assert not state_of(lease).settled
    await lease.checkpoint("2-0")
    assert state_of(lease).settled


async def test_a_handler_whose_checkpoint_is_answered_after_it_failed_has_got_on(backend: Backend) -> None:
    failed = asyncio.Event()

    async def work(lease: Lease) -> None:
        async for entry in lease.entries():
            await given_up(lease, entry.id)
            failed.set()
            raise TimeoutError

    with backend.answers_late():
        await backend.start(work, TICKS, attempts=3, max_attempts=3)
        await failed.wait()
    outcome = await backend.outcome()
    assert (outcome.status, outcome.position, outcome.attempts) == ("failed", "1-0", 0)
    assert await backend.facts() == Facts("released", None, "1-0", 0)


@pytest.mark.parametrize("late", ["2-0", "1-0", "0-5", "002-00"])
async def test_a_checkpoint_that_is_not_greater_succeeds_and_moves_nothing(backend: Backend, late: str) -> None:
    lease = await backend.own(TICKS)
    await lease.checkpoint("2-0")
    await lease.checkpoint(late)
    assert lease.position == "2-0"
    assert (await backend.facts()).position == "2-0"


async def test_checkpoints_are_compared_as_numbers(backend: Backend) -> None:
    lease = await backend.own()
    for id in ("9-0", "10-0", "10-9", "10-10", "18446744073709551615-18446744073709551615"):
        await lease.checkpoint(id)
        assert lease.position == (await backend.facts()).position == id


@pytest.mark.parametrize(
    ("id", "error"),
    [
        ("1", ValueError),
        ("", ValueError),
        ("1-*", ValueError),
        ("-1-0", ValueError),
        ("18446744073709551616-0", ValueError),
        (b"1-0", TypeError),
        (Entry("1-0", {}), TypeError),
        (None, TypeError),
    ],
)
async def test_what_is_not_an_id_is_refused(backend: Backend, id: Any, error: type[Exception]) -> None:
    lease = await backend.own(TICKS)
    with pytest.raises(error, match=r"entry\.id|must be a str"):
        await lease.checkpoint(id)
    assert await backend.facts() == Facts("ours", None, None, 0)


async def test_a_checkpoint_after_a_newer_owner_began_is_refused_and_cancels_the_block(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    cancelled = False

    async def block() -> None:
        nonlocal cancelled
        async with lease:
            await lease.checkpoint("1-0")
            await backend.overtake()
            assert lease.owned
            with pytest.raises(NotOwner) as refused:
                await lease.checkpoint("2-0")
            assert refused.value.reason == "claimed"
            assert not lease.owned
            try:
                await asyncio.sleep(FOR_EVER)
            except asyncio.CancelledError:
                cancelled = True
                raise

    with pytest.raises(NotOwner) as left:
        await block()
    assert cancelled
    assert (left.value.reason, left.value.stream, left.value.lbs_id) == ("claimed", STREAM, lease.lbs_id)
    facts = await backend.facts()
    assert (facts.state, facts.position) == ("a peer's", "1-0")


async def test_done_after_a_newer_owner_began_is_refused(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    await backend.overtake()
    with pytest.raises(NotOwner):
        await lease.done()
    assert await lease.lost() == "claimed"
    assert (await backend.facts()).state == "a peer's"


async def test_a_release_after_a_newer_owner_began_takes_nothing_from_it(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    await backend.overtake()
    await lease.release()  # as good as repeated: who has it now has a greater fence
    assert await lease.lost() == "released"
    assert (await backend.facts()).state == "a peer's"


async def test_the_first_step_after_a_newer_owner_began_is_refused(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    await backend.overtake()
    with pytest.raises(NotOwner):
        await anext(lease.entries())
    assert await lease.lost() == "claimed"


# The block of a lease.


async def test_the_end_of_the_block_says_done(backend: Backend) -> None:
    lease = await backend.own(TICKS, attempts=3)
    async with lease as entered:
        assert entered is lease
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)
            if entry.id == "3-0":
                break
    assert await backend.facts() == Facts("done", None, "3-0", 0)
    assert await lease.lost() == "done"


async def test_a_failure_of_the_block_releases(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    error = LookupError("no such customer")

    async def block() -> None:
        async with lease:
            await lease.checkpoint("1-0")
            raise error

    with pytest.raises(LookupError) as caught:
        await block()
    assert caught.value is error
    assert await backend.facts() == Facts("released", None, "1-0", 0)


async def test_a_cancellation_of_the_block_releases(backend: Backend) -> None:
    lease = await backend.own(TICKS)

    async def work() -> None:
        async with lease:
            await asyncio.sleep(FOR_EVER)

    block = asyncio.create_task(work())
    await wait_until(lambda: state_of(lease).cancel_scope is not None, "the block was entered")
    block.cancel()
    await asyncio.wait((block,))
    assert block.cancelled()
    assert not lease.owned
    assert (await backend.facts()).state == "released"


async def test_a_loss_cancels_the_block_once_and_its_cleanup_may_await(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    cancellations = 0
    cleaned = False

    async def block() -> None:
        nonlocal cancellations, cleaned
        async with lease:
            await backend.lose()
            try:
                await asyncio.sleep(FOR_EVER)
            except asyncio.CancelledError:
                cancellations += 1
                raise
            finally:
                for _ in range(10):
                    await asyncio.sleep(0.001)
                cleaned = True

    with pytest.raises(NotOwner) as caught:
        await block()
    assert (cancellations, cleaned) == (1, True)
    assert caught.value.reason == "claimed"
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0
    assert (await backend.facts()).state == "a peer's"


async def test_a_loss_cancels_a_step_that_waits(backend: Backend) -> None:
    lease = await backend.own()

    async def block() -> None:
        async with lease:
            await backend.lose()
            async for _ in lease.entries():
                pytest.fail("there was no entry")
            pytest.fail("entries() ended")

    with pytest.raises(NotOwner):
        await block()


async def test_a_loss_whose_cancellation_is_swallowed_is_still_not_owner(backend: Backend) -> None:
    lease = await backend.own(TICKS)

    async def block() -> None:
        async with lease:
            await backend.lose()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(FOR_EVER)
            with pytest.raises(NotOwner):
                await lease.checkpoint("1-0")

    with pytest.raises(NotOwner):
        await block()
    assert await backend.facts() == Facts("a peer's", None, None, 0)


async def test_after_a_loss_nothing_is_accepted(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    waiting = asyncio.create_task(lease.lost())
    await backend.lose()
    assert await waiting == "claimed"
    for use in (lambda: lease.checkpoint("1-0"), lease.done, lease.release, lambda: anext(lease.entries())):
        with pytest.raises(NotOwner) as refused:
            await cast("Any", use)()
        assert refused.value.reason == "claimed"
    with pytest.raises(NotOwner):
        async with lease:
            pytest.fail("entered")
    assert await backend.facts() == Facts("a peer's", None, None, 0)


@pytest.mark.parametrize("end", ["done", "release"])
async def test_a_lease_that_its_holder_ended_is_of_no_use_and_says_so(backend: Backend, end: str) -> None:
    lease = await backend.own(TICKS)
    async with lease:
        await (lease.done() if end == "done" else lease.release())
        for use in (lambda: lease.checkpoint("1-0"), lease.done, lease.release, lambda: anext(lease.entries())):
            with pytest.raises(NotOwner, match="this lease has ended, and is of no use any more"):
                await cast("Any", use)()
    assert (await backend.facts()).state == ("done" if end == "done" else "released")


async def test_the_block_of_a_lease_is_entered_once(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    async with lease:
        with pytest.raises(RuntimeError, match="a lease is entered once"):
            async with lease:
                pytest.fail("entered twice")


async def test_a_lease_knows_what_was_announced(backend: Backend) -> None:
    lease = await backend.own(info={"lang": "de", "numbers": [1, 2]})
    assert (lease.stream, lease.info) == (STREAM, {"lang": "de", "numbers": [1, 2]})
    assert lease.owned
    assert lease.fence.lbs_id == lease.lbs_id
    assert lease.fence.deliveries == lease.deliveries


# Outages, and doubt.


async def test_a_checkpoint_that_gets_no_answer_says_so_and_may_be_repeated(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    await lease.checkpoint("1-0")
    with backend.unavailable():
        with pytest.raises(RedisUnavailable, match="repeating is safe") as caught:
            await lease.checkpoint("2-0")
        assert (caught.value.stream, caught.value.lbs_id) == (STREAM, lease.lbs_id)
        assert lease.owned
    assert (await backend.facts()).position == "1-0"
    await lease.checkpoint("2-0")
    assert await backend.facts() == Facts("ours", None, "2-0", 0)


async def test_a_first_step_that_gets_no_answer_says_so_and_may_be_repeated(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    entries = lease.entries()
    with backend.unavailable(), pytest.raises(RedisUnavailable):
        await anext(entries)
    assert (await anext(entries)).id == "1-0"


async def test_a_later_step_waits_for_the_end_of_an_outage(backend: Backend) -> None:
    lease = await backend.own()
    entries = lease.entries()
    step = asyncio.ensure_future(anext(entries))
    await wait_until(lambda: state_of(lease).waiting, "a step waits")
    with backend.unavailable():
        await backend.feed(*TICKS)
        with pytest.raises(RedisUnavailable):  # so long at least does it wait
            await lease.checkpoint("1-0")
        assert not step.done()
    assert (await step).id == "1-0"
    assert (await anext(entries)).id == "2-0"


async def test_an_end_that_gets_no_answer_says_so(backend: Backend) -> None:
    lease = await backend.own()
    with backend.unavailable():
        with pytest.raises(RedisUnavailable):
            await lease.done()
        assert lease.owned
    assert (await backend.facts()).state == "ours"
    await lease.done()
    assert (await backend.facts()).state == "done"


async def test_a_release_that_gets_no_answer_ends_the_lease_all_the_same(backend: Backend) -> None:
    lease = await backend.own()
    with backend.unavailable():
        with pytest.raises(RedisUnavailable):
            await lease.release()
        assert not lease.owned
        assert (await backend.facts()).state == "ours"
    assert await lease.lost() == "released"


async def test_a_doubt_that_passes_costs_nothing(backend: Backend) -> None:
    handler = Recorder()
    await backend.start(handler)
    await wait_until(lambda: handler.waits, "it waits for the first entry")
    async with backend.doubt():
        await backend.feed(*TICKS)
    await handler.has_read("1-0", "2-0", "3-0")
    assert handler.lease is not None
    assert handler.lease.owned
    assert (await backend.facts()).position == "3-0"
    backend.drain()
    assert (await backend.outcome()).status == "drained"


async def test_what_is_asked_in_doubt_is_answered_after_it(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    async with backend.doubt():
        asking = asyncio.create_task(lease.checkpoint("1-0"))
        await asyncio.sleep(0)
    await asking
    async with backend.doubt():
        finishing = asyncio.create_task(lease.done())
        await asyncio.sleep(0)
    await finishing
    assert await backend.facts() == Facts("done", None, "1-0", 0)


# Handlers: the end.


async def test_a_handler_that_returns_has_finished_the_stream(backend: Backend) -> None:
    async def handler(lease: Lease) -> str:
        assert (lease.position, lease.attempts) == ("1-0", 2)
        await lease.checkpoint((await anext(lease.entries())).id)
        return "what it returns is of no interest"

    await backend.start(handler, TICKS, position="1-0", attempts=2)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.error, outcome.position, outcome.attempts) == ("done", None, "2-0", 0)
    assert await backend.facts() == Facts("done", None, "2-0", 0)


async def test_a_handler_that_raises_has_tried_and_the_stream_is_released(backend: Backend) -> None:
    error = LookupError("no such customer")

    async def handler(lease: Lease) -> None:
        raise error

    await backend.start(handler, TICKS)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.error, outcome.position, outcome.attempts) == ("failed", error, None, 1)
    assert await backend.facts() == Facts("released", None, None, 1)


@pytest.mark.parametrize("in_batches", [False, True])
async def test_an_owner_with_nothing_left_to_do_is_no_failed_attempt(backend: Backend, in_batches: bool) -> None:
    """Else a stream that is idle for long would go to the dead letters after so many outages."""

    async def follow(lease: Lease) -> None:
        if in_batches:
            async for batch in lease.batches():
                await lease.checkpoint(batch[-1].id)
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)

    handler = Recorder(follow)
    await backend.start(handler, TICKS, position="3-0", attempts=3)

    async def acquitted() -> bool:
        return (await backend.facts()).attempts == 0

    await wait_until(lambda: handler.lease, "it works")
    await wait_until(acquitted, "it has waited for entries for a while")
    await backend.lose()
    assert (await backend.outcome()).status == "lost"


async def test_attempts_before_are_counted(backend: Backend) -> None:
    async def handler(lease: Lease) -> None:
        assert lease.attempts == 4
        await anext(lease.entries())
        assert lease.attempts == 4
        raise LookupError

    await backend.start(handler, TICKS, attempts=4)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.attempts) == ("failed", 4)
    assert await backend.facts() == Facts("released", None, None, 4)


async def test_an_attempt_that_got_on_does_not_count(backend: Backend) -> None:
    async def handler(lease: Lease) -> None:
        await lease.checkpoint("1-0")
        raise LookupError

    await backend.start(handler, TICKS, attempts=16)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.position, outcome.attempts) == ("failed", "1-0", 0)
    assert await backend.facts() == Facts("released", None, "1-0", 0)


async def test_a_late_checkpoint_is_no_progress(backend: Backend) -> None:
    async def handler(lease: Lease) -> None:
        await lease.checkpoint("1-0")
        raise LookupError

    await backend.start(handler, TICKS, position="1-0", attempts=3)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.attempts) == ("failed", 3)
    assert await backend.facts() == Facts("released", None, "1-0", 3)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("end", ["done", "released"])
async def test_what_a_handler_says_itself_is_what_counts(backend: Backend, end: str, fails: bool) -> None:
    async def handler(lease: Lease) -> None:
        await anext(lease.entries())
        await (lease.done() if end == "done" else lease.release())
        if fails:
            raise LookupError

    await backend.start(handler, TICKS, attempts=3, deaths=2)
    outcome = await backend.outcome()
    assert (outcome.status, isinstance(outcome.error, LookupError)) == (end, fails)
    assert await backend.facts() == Facts(end, None, None, 0)


async def test_one_failure_too_many_is_a_dead_letter_with_its_reason(backend: Backend) -> None:
    async def handler(lease: Lease) -> None:
        raise LookupError("no such customer")

    await backend.start(handler, TICKS, position="1-0", attempts=3, max_attempts=3)
    outcome = await backend.outcome()
    assert (outcome.status, type(outcome.error), outcome.attempts) == ("dead", LookupError, 3)
    reason = "failed 3 times, at last: LookupError: no such customer"
    assert await backend.facts() == Facts("dead", reason, "1-0", 0)


POISON = "raised what goes to the dead letters at once: PoisonError: "


async def test_poison_is_a_dead_letter_at_once_whatever_the_policy_says(backend: Backend) -> None:
    async def handler(lease: Lease) -> None:
        raise ExceptionGroup("two", [ValueError(), PoisonError("unknown tenant")])

    await backend.start(handler, TICKS, position="1-0", max_attempts=None)
    assert (await backend.outcome()).status == "dead"
    assert await backend.facts() == Facts("dead", POISON + "unknown tenant", "1-0", 0)


async def test_an_entry_that_cannot_be_decoded_is_poison_that_names_it(backend: Backend) -> None:
    read: list[int] = []

    async def handler(lease: Lease) -> None:
        async for entry in lease.entries():
            read.append(entry.decode(lambda fields: int(fields["n"])))
            await lease.checkpoint(entry.id)

    await backend.start(handler, [{"n": "1"}, {"n": "one"}])
    outcome = await backend.outcome()
    assert (outcome.status, type(outcome.error), read) == ("dead", PoisonError, [1])
    error = "ValueError: invalid literal for int() with base 10: 'one'"
    reason = f"{POISON}entry 2-0 of {STREAM!r} cannot be decoded: {error}"
    assert await backend.facts() == Facts("dead", reason, "1-0", 0)


async def test_info_that_cannot_be_decoded_is_poison(backend: Backend) -> None:
    async def handler(lease: Lease) -> None:
        lease.decode_info(lambda info: info["caller"])

    await backend.start(handler, TICKS)
    assert (await backend.outcome()).status == "dead"
    reason = f"{POISON}the info of {STREAM!r} cannot be decoded: TypeError: 'NoneType' object is not subscriptable"
    assert await backend.facts() == Facts("dead", reason, None, 0)


async def test_info_is_decoded_by_any_callable(backend: Backend) -> None:
    lease = await backend.own(TICKS, info={"rate": "8000"})
    assert lease.decode_info(lambda info: int(info["rate"])) == 8000
    with pytest.raises(PoisonError, match=f"^the info of '{STREAM}' cannot be decoded$") as caught:
        lease.decode_info(int)
    assert isinstance(caught.value.__cause__, TypeError)


async def test_an_entry_says_of_which_stream_it_is(backend: Backend) -> None:
    lease = await backend.own(TICKS)
    assert (await anext(lease.entries())).stream == STREAM
    await backend.feed({"n": "4"})
    assert {entry.stream for entry in await anext(lease.batches())} == {STREAM}


async def test_a_stream_that_killed_too_many_owners_is_given_up_untried(backend: Backend) -> None:
    handler = Recorder()
    await backend.start(handler, TICKS, attempts=4, deaths=3, max_attempts=3)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.error, outcome.attempts) == ("dead", None, 4)
    assert handler.lease is None
    assert await backend.facts() == Facts("dead", "its owners died 3 times", None, 0)


# Handlers: the policy.


SOON = RetryPolicy(longest_pause=0.1)
"""The policy of `run()`, with short rests."""


class Poison(Exception):
    """What no further attempt can mend."""


def fails(error: BaseException, *, after: int = 0) -> Callable[[Lease], Any]:
    """A handler that takes so many entries, and raises."""

    async def handler(lease: Lease) -> None:
        await steps(lease, after)
        raise error

    return handler


async def test_many_failures_in_a_short_time_bury_nothing(backend: Backend) -> None:
    await backend.start(fails(LookupError()), TICKS, attempts=40, failing_for=500.0, retry=SOON)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.attempts) == ("failed", 40)
    assert await backend.facts() == Facts("released", None, None, 40)


async def test_many_failures_in_a_long_time_do(backend: Backend) -> None:
    await backend.start(
        fails(LookupError("no"), after=2), TICKS, position="1-0", attempts=40, failing_for=600.0, retry=SOON
    )
    outcome = await backend.outcome()
    assert (outcome.status, outcome.attempts) == ("dead", 40)
    assert await backend.facts() == Facts("dead", "failed 40 times, at last: LookupError: no", "1-0", 0)
    letter = await backend.letter()
    assert (letter.position, letter.last_entry) == ("1-0", "3-0")
    assert (letter.error_type, letter.error) == ("LookupError", "no")
    assert (letter.failures, letter.deaths) == (40, 0)
    assert letter.failing_since == pytest.approx(time.time() - 600, abs=30)


async def test_few_failures_in_a_long_time_bury_nothing(backend: Backend) -> None:
    await backend.start(fails(LookupError()), TICKS, attempts=15, failing_for=80_000.0, retry=SOON)
    assert (await backend.outcome()).status == "failed"


async def test_a_policy_may_be_stricter(backend: Backend) -> None:
    policy = RetryPolicy(max_attempts=2, patience=5)
    await backend.start(fails(LookupError()), TICKS, attempts=2, failing_for=6.0, retry=policy)
    assert (await backend.outcome()).status == "dead"


async def test_deaths_are_no_failures(backend: Backend) -> None:
    """Nor the other way round: of five owners two have failed, with this one three."""
    await backend.start(fails(LookupError()), TICKS, attempts=5, deaths=2, failing_for=9.0, max_attempts=4)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.attempts) == ("failed", 5)
    assert await backend.facts() == Facts("released", None, None, 5)


async def test_what_policy_has_no_number_never_buries(backend: Backend) -> None:
    await backend.start(
        fails(LookupError()),
        TICKS,
        attempts=900,
        deaths=400,
        failing_for=9e4 - 9e3,
        retry=RetryPolicy(max_attempts=None, longest_pause=0.1),
    )
    outcome = await backend.outcome()
    assert (outcome.status, outcome.attempts) == ("failed", 900)


@pytest.mark.parametrize(
    "error", [Poison("bad"), ExceptionGroup("tasks", [LookupError(), Poison("bad")])], ids=["alone", "in a group"]
)
async def test_poison_goes_to_the_dead_letters_at_once(backend: Backend, error: Exception) -> None:
    policy = RetryPolicy(max_attempts=None, bury_on=(Poison,))
    await backend.start(fails(error, after=1), TICKS, retry=policy)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.error) == ("dead", error)
    reason = (await backend.facts()).reason
    assert reason is not None
    assert reason.startswith("raised what goes to the dead letters at once: ")
    letter = await backend.letter()
    assert (letter.last_entry, letter.error_type, letter.error) == ("1-0", "Poison", "bad")


async def test_poison_after_a_checkpoint_goes_there_too(backend: Backend) -> None:
    async def handler(lease: Lease) -> None:
        await lease.checkpoint((await anext(lease.entries())).id)
        raise Poison

    await backend.start(handler, TICKS, retry=RetryPolicy(bury_on=(Poison,)))
    assert (await backend.outcome()).status == "dead"
    assert (await backend.letter()).position == "1-0"


async def test_whom_a_handler_puts_off_has_not_failed(backend: Backend) -> None:
    error = RetryLater(after=0.05)
    await backend.start(fails(error), TICKS, attempts=3, deaths=2, max_attempts=3)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.error, outcome.failed) == ("postponed", error, False)
    assert await backend.facts() == Facts("released", None, None, 0)


async def test_whom_a_handler_puts_off_keeps_its_earlier_failures(backend: Backend) -> None:
    await backend.start(fails(RetryLater(after=0.05)), TICKS, attempts=3)
    assert (await backend.outcome()).status == "postponed"
    assert (await backend.facts()).attempts == 2


async def test_a_drain_keeps_earlier_failures(backend: Backend) -> None:
    handler = Recorder()
    handler.work = handler.without_checkpoints
    await backend.start(handler, TICKS, attempts=3, drain_timeout=0.0)
    await handler.has_read("1-0", "2-0", "3-0")
    backend.drain()
    assert (await backend.outcome()).status == "drained"
    assert (await backend.facts()).attempts == 2


async def test_an_owner_with_nothing_left_to_do_makes_earlier_failures_forgotten(backend: Backend) -> None:
    handler = Recorder()
    await backend.start(handler, TICKS, position="3-0", attempts=7)

    async def forgotten() -> bool:
        return (await backend.facts()).attempts == 0

    await wait_until(lambda: handler.lease, "it works")
    await wait_until(forgotten, "it has waited for entries for a while")
    await wait_until(lambda: handler.lease and handler.lease.attempts == 0, "its owner has heard so")
    backend.drain()
    assert (await backend.outcome()).status == "drained"
    assert (await backend.facts()).attempts == 0


async def test_a_handler_cannot_enter_the_lease_that_it_is_given(backend: Backend) -> None:
    async def handler(lease: Lease) -> None:
        async with lease:
            pytest.fail("entered twice")

    await backend.start(handler)
    outcome = await backend.outcome()
    assert outcome.status == "failed"
    assert "a lease is entered once" in str(outcome.error)
    assert (await backend.facts()).state == "released"


# Handlers: loss.


async def test_a_loss_cancels_the_handler_once_and_its_cleanup_may_await(backend: Backend) -> None:
    cleaned = False

    async def work(lease: Lease) -> None:
        nonlocal cleaned
        try:
            await asyncio.sleep(FOR_EVER)
        finally:
            for _ in range(10):
                await asyncio.sleep(0.001)
            cleaned = True

    handler = Recorder(work)
    await backend.start(handler, TICKS)
    await wait_until(lambda: handler.lease, "it works")
    await backend.lose()
    outcome = await backend.outcome()
    assert (outcome.status, type(outcome.error)) == ("lost", asyncio.CancelledError)
    assert (handler.cancellations, cleaned) == (1, True)
    assert await backend.facts() == Facts("a peer's", None, None, 0)


async def test_a_handler_that_swallows_its_cancellation_and_returns_has_finished_nothing(backend: Backend) -> None:
    async def work(lease: Lease) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FOR_EVER)

    handler = Recorder(work)
    await backend.start(handler, TICKS)
    await wait_until(lambda: handler.lease, "it works")
    await backend.lose()
    outcome = await backend.outcome()
    assert (outcome.status, outcome.error) == ("lost", None)
    assert (await backend.facts()).state == "a peer's"


async def test_a_handler_whose_checkpoint_is_refused_has_lost(backend: Backend) -> None:
    async def work(lease: Lease) -> None:
        await lease.checkpoint("1-0")
        await backend.overtake()
        await lease.checkpoint("2-0")

    handler = Recorder(work)
    await backend.start(handler, TICKS)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.position) == ("lost", "1-0")
    facts = await backend.facts()
    assert (facts.state, facts.position) == ("a peer's", "1-0")


# Handlers: draining.


async def test_draining_stops_a_handler_that_waits_for_the_next_entry(backend: Backend) -> None:
    handler = Recorder()
    await backend.start(handler, TICKS, attempts=3)
    await handler.has_read("1-0", "2-0", "3-0")
    backend.drain()
    outcome = await backend.outcome()
    assert (outcome.status, outcome.position) == ("drained", "3-0")
    assert handler.cancellations == 1
    assert await backend.facts() == Facts("released", None, "3-0", 0)


async def test_draining_waits_for_the_checkpoint_of_what_was_read(backend: Backend) -> None:
    go_on = asyncio.Event()

    async def work(lease: Lease) -> None:
        async for entry in lease.entries():
            handler.read.append(entry.id)
            await go_on.wait()
            if entry.id == "3-0":
                await lease.checkpoint("3-0")

    handler = Recorder(work)
    await backend.start(handler, [*TICKS, *TICKS], drain_timeout=FOR_EVER)
    await wait_until(lambda: handler.read, "it has read one")
    backend.drain()
    await wait_until(lambda: handler.lease and state_of(handler.lease).draining, "the drain has begun")
    go_on.set()
    outcome = await backend.outcome()
    assert (outcome.status, outcome.position) == ("drained", "3-0")
    assert handler.read == ["1-0", "2-0", "3-0"]
    assert await backend.facts() == Facts("released", None, "3-0", 0)


async def test_a_handler_without_checkpoints_is_drained_when_the_time_is_over(backend: Backend) -> None:
    handler = Recorder()
    handler.work = handler.without_checkpoints
    await backend.start(handler, TICKS, attempts=3, deaths=2, drain_timeout=0.1)
    await handler.has_read("1-0", "2-0", "3-0")
    backend.drain()
    outcome = await backend.outcome()
    assert (outcome.status, outcome.position) == ("drained", None)
    assert await backend.facts() == Facts("released", None, None, 0)


async def test_a_handler_that_does_not_read_is_drained_when_the_time_is_over(backend: Backend) -> None:
    handler = Recorder()
    handler.work = handler.sleep
    await backend.start(handler, TICKS, drain_timeout=0.1)
    await wait_until(lambda: handler.lease, "it works")
    backend.drain()
    assert (await backend.outcome()).status == "drained"
    assert handler.cancellations == 1
    assert (await backend.facts()).state == "released"


async def test_a_drained_handler_that_returns_all_the_same_has_finished_nothing(backend: Backend) -> None:
    async def work(lease: Lease) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            async for entry in lease.entries():
                await lease.checkpoint(entry.id)

    handler = Recorder(work)
    await backend.start(handler, TICKS)
    await wait_until(lambda: handler.waits and handler.lease and handler.lease.position == "3-0", "it waits")
    backend.drain()
    outcome = await backend.outcome()
    assert (outcome.status, outcome.error) == ("drained", None)
    assert (await backend.facts()).state == "released"


async def test_a_handler_that_returns_before_it_notices_the_draining_is_done(backend: Backend) -> None:
    go_on = asyncio.Event()

    async def work(lease: Lease) -> None:
        await anext(lease.entries())
        await go_on.wait()

    handler = Recorder(work)
    await backend.start(handler, TICKS, drain_timeout=FOR_EVER)
    await wait_until(lambda: handler.lease and not state_of(handler.lease).settled, "it has read one")
    backend.drain()
    await wait_until(lambda: handler.lease and state_of(handler.lease).draining, "the drain has begun")
    go_on.set()
    assert (await backend.outcome()).status == "done"
    assert (await backend.facts()).state == "done"


async def test_a_drained_handler_that_ignores_it_loses_the_stream(backend: Backend) -> None:
    go_on = asyncio.Event()

    async def work(lease: Lease) -> None:
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()

    handler = Recorder(work)
    await backend.start(handler, TICKS, drain_timeout=0.0)
    await wait_until(lambda: handler.lease, "it works")
    backend.drain()

    async def released() -> bool:
        return (await backend.facts()).state == "released"

    try:
        await wait_until(released, "the stream was released without it")
        assert (await backend.facts()).attempts == 0  # that it was asked to stop is not its failure
        assert handler.lease is not None
        with pytest.raises(NotOwner):
            await handler.lease.checkpoint("1-0")
    finally:
        go_on.set()
    assert (await backend.outcome()).status == "drained"


async def test_cancelling_releases_at_once(backend: Backend) -> None:
    handler = Recorder()
    handler.work = handler.sleep
    await backend.start(handler, TICKS, attempts=3, deaths=2)
    await wait_until(lambda: handler.lease, "it works")
    await backend.cancel()
    assert handler.cancellations == 1
    assert await backend.facts() == Facts("released", None, None, 0)


async def test_draining_stops_a_handler_whose_batch_is_not_full(backend: Backend) -> None:
    async def work(lease: Lease) -> None:
        async for batch in lease.batches(within=FOR_EVER):
            handler.read += [entry.id for entry in batch]

    handler = Recorder(work)
    await backend.start(handler, TICKS, attempts=3, deaths=2)
    await wait_until(lambda: handler.lease and state_of(handler.lease).collecting, "it has entries, and waits")
    backend.drain()
    outcome = await backend.outcome()
    assert (outcome.status, outcome.position, handler.read) == ("drained", None, [])
    assert handler.cancellations == 1
    assert await backend.facts() == Facts("released", None, None, 0)


async def test_draining_waits_for_the_checkpoint_of_the_whole_batch(backend: Backend) -> None:
    go_on = asyncio.Event()

    async def work(lease: Lease) -> None:
        async for batch in lease.batches(max_entries=3, within=FOR_EVER):
            handler.read += [entry.id for entry in batch]
            await lease.checkpoint(batch[1].id)
            await go_on.wait()
            if len(handler.read) > 3:
                await lease.checkpoint(batch[2].id)

    handler = Recorder(work)
    await backend.start(handler, [*TICKS, *TICKS, *TICKS], drain_timeout=FOR_EVER)
    await wait_until(lambda: handler.lease and handler.lease.position == "2-0", "it is within a batch")
    backend.drain()
    await wait_until(lambda: handler.lease and state_of(handler.lease).draining, "the drain has begun")
    go_on.set()
    outcome = await backend.outcome()
    assert (outcome.status, outcome.position) == ("drained", "6-0")
    assert len(handler.read) == 6
    assert await backend.facts() == Facts("released", None, "6-0", 0)


# Handlers: progress.


async def test_a_handler_without_progress_loses_the_stream_and_has_tried(backend: Backend) -> None:
    handler = Recorder()
    handler.work = handler.sleep
    await backend.start(handler, TICKS, progress_timeout=0.1)
    outcome = await backend.outcome()
    assert (outcome.status, outcome.attempts) == ("stalled", 1)
    assert handler.cancellations == 1
    assert await backend.facts() == Facts("released", None, None, 1)


@pytest.mark.parametrize(("failures", "state"), [(3, "released"), (2, "dead")])
async def test_a_handler_that_ignores_the_end_of_its_time_has_failed_and_not_died(
    backend: Backend, failures: int, state: str
) -> None:
    go_on = asyncio.Event()

    async def work(lease: Lease) -> None:
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()

    handler = Recorder(work)
    await backend.start(handler, TICKS, progress_timeout=0.1, attempts=3, deaths=1, max_attempts=failures)
    await wait_until(lambda: handler.lease, "it works")

    async def ended() -> bool:
        return (await backend.facts()).state == state

    try:
        await wait_until(ended, f"the stream is {state} without it")
    finally:
        go_on.set()
    assert (await backend.outcome()).status == "stalled"


async def test_a_last_standstill_is_a_dead_letter(backend: Backend) -> None:
    handler = Recorder()
    handler.work = handler.sleep
    await backend.start(handler, TICKS, progress_timeout=0.1, attempts=2, max_attempts=2)
    assert (await backend.outcome()).status == "dead"
    assert await backend.facts() == Facts("dead", "failed 2 times, at last: no progress in time", None, 0)


async def test_a_handler_that_says_so_or_waits_for_entries_does_not_stand_still(backend: Backend) -> None:
    timeout = 0.2

    async def work(lease: Lease) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + 2 * timeout
        while loop.time() < end:
            await asyncio.sleep(timeout / 20)
            lease.progress()
        async for entry in lease.entries():
            handler.read.append(entry.id)
            if entry.id == "3-0":
                return

    handler = Recorder(work)
    await backend.start(handler, TICKS[:2], progress_timeout=timeout)
    await handler.has_read("1-0", "2-0")
    waited = asyncio.get_running_loop().time() + 2 * timeout
    await wait_until(lambda: asyncio.get_running_loop().time() > waited, "it has waited for long enough")
    await backend.feed(TICKS[2])
    assert (await backend.outcome()).status == "done"


async def test_a_handler_whose_batch_waits_for_more_does_not_stand_still(backend: Backend) -> None:
    timeout = 0.2

    async def work(lease: Lease) -> None:
        batch = await anext(lease.batches(max_entries=3, within=FOR_EVER))
        handler.read += [entry.id for entry in batch]

    handler = Recorder(work)
    await backend.start(handler, TICKS[:2], progress_timeout=timeout)
    await wait_until(lambda: handler.lease and state_of(handler.lease).collecting, "it has entries, and waits")
    waited = asyncio.get_running_loop().time() + 2 * timeout
    await wait_until(lambda: asyncio.get_running_loop().time() > waited, "it has waited for long enough")
    await backend.feed(TICKS[2])
    assert (await backend.outcome()).status == "done"
    assert handler.read == ["1-0", "2-0", "3-0"]


# Handlers: outages.


async def test_a_handler_may_live_through_an_outage(backend: Backend) -> None:
    outage, unanswered, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(lease: Lease) -> None:
        async for entry in lease.entries():
            await outage.wait()
            try:
                await lease.checkpoint(entry.id)
            except RedisUnavailable:
                unanswered.set()
                await over.wait()
                await lease.checkpoint(entry.id)
            handler.read.append(entry.id)

    handler = Recorder(work)
    await backend.start(handler, TICKS, drain_timeout=FOR_EVER)
    await wait_until(lambda: handler.lease and not state_of(handler.lease).settled, "it has read one")
    with backend.unavailable():
        outage.set()
        await unanswered.wait()
        assert (await backend.facts()).position is None
    over.set()
    await handler.has_read("1-0", "2-0", "3-0")
    backend.drain()
    assert (await backend.outcome()).status == "drained"
    assert await backend.facts() == Facts("released", None, "3-0", 0)


async def test_a_handler_that_fails_in_an_outage_has_failed(backend: Backend) -> None:
    outage = asyncio.Event()

    async def work(lease: Lease) -> None:
        await lease.checkpoint("1-0")
        await outage.wait()
        await lease.checkpoint("2-0")

    handler = Recorder(work)
    await backend.start(handler, TICKS)
    await wait_until(lambda: handler.lease and handler.lease.position, "it works")
    with backend.unavailable():
        outage.set()
        outcome = await backend.outcome()
    assert (outcome.status, type(outcome.error), outcome.position) == ("failed", RedisUnavailable, "1-0")
    assert (await backend.facts()).state != "done"


async def test_a_handler_that_is_drained_in_an_outage_is_drained(backend: Backend) -> None:
    handler = Recorder()
    await backend.start(handler, TICKS)
    await handler.has_read("1-0", "2-0", "3-0")
    with backend.unavailable():
        backend.drain()
        assert (await backend.outcome()).status == "drained"
    assert (await backend.facts()).state != "done"


async def test_a_stream_that_was_finished_in_an_outage_is_done_after_it(backend: Backend) -> None:
    outage, returned = asyncio.Event(), asyncio.Event()

    async def work(lease: Lease) -> None:
        await outage.wait()
        returned.set()

    handler = Recorder(work)
    await backend.start(handler, TICKS)
    await wait_until(lambda: handler.lease, "it works")
    with backend.unavailable():
        outage.set()
        await returned.wait()
        await asyncio.sleep(0)
        assert (await backend.facts()).state == "ours"
    assert (await backend.outcome()).status == "done"
    assert (await backend.facts()).state == "done"


# What becomes of the stream.


def reads(count: int, *, checkpoints: int = 0, ends: bool = True) -> Recorder:
    """A handler that reads so many entries, checkpoints the first of them, and ends."""

    async def work(lease: Lease) -> None:
        entries = lease.entries()
        for number in range(1, count + 1):
            entry = await anext(entries)
            if number <= checkpoints:
                await lease.checkpoint(entry.id)
        if not ends:
            raise ValueError

    return Recorder(work)


@pytest.mark.parametrize(
    ("on_done", "read", "checkpoints", "left", "position"),
    [
        ("keep", 3, 2, ["1-0", "2-0", "3-0"], "2-0"),
        ("trim", 3, 2, ["3-0"], "2-0"),
        ("trim", 3, 3, [], "3-0"),
        ("trim", 3, 0, ["1-0", "2-0", "3-0"], None),
        ("trim", 0, 0, ["1-0", "2-0", "3-0"], None),
        ("delete", 3, 2, None, None),
        ("delete", 3, 0, None, None),
        ("delete", 2, 1, ["3-0"], "2-0"),
        ("delete", 2, 2, ["3-0"], "2-0"),
        ("delete", 0, 0, ["1-0", "2-0", "3-0"], None),
    ],
)
async def test_what_becomes_of_a_stream_that_is_done(
    backend: Backend, on_done: str, read: int, checkpoints: int, left: list[str] | None, position: str | None
) -> None:
    await backend.start(reads(read, checkpoints=checkpoints), TICKS, on_done=on_done)
    assert (await backend.outcome()).status == "done"
    assert (await backend.facts()) == Facts("done", None, position, 0)
    assert await backend.left() == left


@pytest.mark.parametrize("on_done", ["trim", "delete"])
async def test_a_stream_that_is_not_done_is_kept(backend: Backend, on_done: str) -> None:
    await backend.start(reads(3, checkpoints=2, ends=False), TICKS, on_done=on_done)
    assert (await backend.outcome()).status == "failed"
    assert await backend.left() == ["1-0", "2-0", "3-0"]


async def test_an_empty_stream_is_deleted_unread(backend: Backend) -> None:
    await backend.start(reads(0), on_done="delete")
    assert (await backend.outcome()).status == "done"
    assert await backend.left() is None


async def test_what_an_earlier_owner_has_processed_is_deleted_with_the_rest(backend: Backend) -> None:
    await backend.start(reads(1), TICKS, position="2-0", on_done="delete")
    assert (await backend.outcome()).status == "done"
    assert await backend.left() is None
