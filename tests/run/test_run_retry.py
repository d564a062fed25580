"""The policy for retries on a real server: across owners and processes, with lost replies, drained, cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import DeadLetters, Lease, RetryLater, RetryPolicy
from redis_stream_client._model.announcement import FIELD, encode
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from tests.faults.test_lost_replies import LOSSES, Loss, load_scripts, lose
from tests.harness.runs import Running, RunWorker, add, dead_letters, idle, owners, record, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server
    from tests.harness.workers import Worker

    StartWorker = Callable[..., Awaitable[Worker]]

CALL = "call-1"
TTL: dict[str, Any] = {"lock_ttl": 1.0}
QUICK: dict[str, Any] = {"first_pause": 0.02, "longest_pause": 0.05}
LONG = RetryPolicy(first_pause=30.0)
"""After a failure there is time for a test."""


class Failing:
    """A handler that takes an entry and fails."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error or LookupError("no such customer")
        self.times: list[float] = []

    async def __call__(self, lease: Lease) -> None:
        self.times.append(time.monotonic())
        await anext(lease.entries())
        raise self.error


async def counted(redis: Connection, service: str) -> tuple[str, str]:
    """The owners that count, and the failures."""
    stored = await record(redis, service, CALL)
    return stored.get("attempts", ""), stored.get("failures", "")


# Patience.


async def test_a_stream_fails_for_as_long_as_patience_says_whoever_owns_it(
    server: Server, redis: Connection, service: str
) -> None:
    ids = await write(server.url, CALL, 2)
    handler, policy = Failing(), RetryPolicy(max_attempts=3, patience=1.5, **QUICK)
    members = [Running(server.url, service, handler, retry=policy, **TTL) for _ in range(2)]
    began = time.time()
    async with members[0], members[1]:
        await add(redis, service, [CALL])
        await wait_until(lambda: dead_letters(redis, service), "it is buried")
    [letter] = [letter async for letter in DeadLetters(redis, service)]
    assert handler.times[-1] - handler.times[0] >= 1.5
    assert letter.failures == len(handler.times) > 3
    assert letter.reason == f"failed {letter.failures} times, at last: LookupError: no such customer"
    assert (letter.stream, letter.position, letter.last_entry) == (CALL, None, ids[0])
    assert (letter.error_type, letter.error, letter.deaths) == ("LookupError", "no such customer", 0)
    assert letter.failing_since is not None
    assert began - 1 < letter.failing_since < time.time() - 1.4


async def test_failures_of_processes_that_are_gone_count(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    """Each fails once, and is killed."""
    policy: dict[str, Any] = {"max_attempts": 3, "patience": 0, "first_pause": 0.01, "longest_pause": 0.01}
    await add(redis, service, ["failing-1"])
    for failures in (1, 2):
        worker = await (await start_worker(RunWorker, retry=policy, lock_ttl=2.0)).joined()

        async def failed() -> bool:
            return (await record(redis, service, "failing-1")).get("failures") == str(failures)

        await wait_until(failed, "it has failed")
        worker.kill()
        await worker.exit_code()
    handler = Failing()

    async def fails(lease: Lease) -> None:
        handler.times.append(0.0)
        raise LookupError

    async with Running(server.url, service, fails, retry=RetryPolicy(**policy), **TTL):
        [letter] = await wait_until(lambda: dead_letters(redis, service), "it is buried")
    assert letter["reason"].startswith("failed 3 times")
    assert len(handler.times) == 1


async def test_progress_begins_everything_anew(server: Server, redis: Connection, service: str) -> None:
    """A stream that fails at each entry, and gets on in the end, may fail for longer than patience says."""
    ids = await write(server.url, CALL, 6, end=True)
    failures = 0

    async def handle(lease: Lease) -> None:
        nonlocal failures
        entry = await anext(lease.entries())
        if lease.attempts <= 2:
            failures += 1
            raise LookupError
        await lease.checkpoint(entry.id)
        assert lease.attempts == 0
        if entry.id != ids[-1]:
            await lease.release()

    policy = RetryPolicy(max_attempts=3, patience=0, **QUICK)
    async with Running(server.url, service, handle, retry=policy, **TTL) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: run.client.statistics().streams_done == 1, "it is done", timeout=15)
    assert failures == 2 * len(ids)
    assert await dead_letters(redis, service) == []


async def test_rests_grow_with_the_failures_and_not_beyond_the_longest(
    server: Server, redis: Connection, service: str
) -> None:
    await write(server.url, CALL, 1)
    handler = Failing()
    policy = RetryPolicy(first_pause=0.1, longest_pause=0.4)
    async with Running(server.url, service, handler, retry=policy, **TTL):
        await add(redis, service, [CALL])
        await wait_until(lambda: len(handler.times) == 6, "it has failed")
    rests = [after - before for before, after in zip(handler.times, handler.times[1:], strict=False)]
    for rest, longest in zip(rests, (0.1, 0.2, 0.4, 0.4, 0.4), strict=True):
        assert longest / 2 <= rest < 2 * longest + 0.5  # released, it is left to the peers for as long again


async def test_a_stream_that_no_peer_wants_is_tried_again_soon_after_its_rest(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)
    await write(server.url, CALL, 1)
    handler = Failing()
    async with Running(server.url, service, handler, retry=RetryPolicy(first_pause=1.5), lock_ttl=0.3):
        await add(redis, service, [CALL])
        await wait_until(lambda: len(handler.times) == 2, "it is tried again")
    assert 1.5 <= handler.times[1] - handler.times[0] < 2.7


# The rest after a failure.


async def test_a_stream_rests_while_it_is_owned_and_the_failure_is_recorded_after_that(
    server: Server, redis: Connection, service: str
) -> None:
    await write(server.url, CALL, 1)
    handler = Failing()
    async with Running(server.url, service, handler, retry=LONG, **TTL) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: run.client.statistics().failing, "it has failed, and rests")
        assert run.owned == [CALL]
        assert await counted(redis, service) == ("1", "")
        run.client.drain()
        async with asyncio.timeout(2):
            await run.task
    assert await counted(redis, service) == ("0", "1")
    assert set((await owners(redis, service)).values()) == {"nobody"}
    assert len(handler.times) == 1


async def test_run_cancelled_in_a_rest_releases_at_once_and_nobody_has_died(
    server: Server, redis: Connection, service: str
) -> None:
    await write(server.url, CALL, 1)
    async with Running(server.url, service, Failing(), retry=LONG, **TTL) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: run.client.statistics().failing, "it has failed, and rests")
        started = time.monotonic()
        run.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run.task
        assert time.monotonic() - started < 1.0
    assert (await counted(redis, service))[0] == "0"
    async with Running(server.url, service, **TTL) as heir:
        await heir.handles(CALL)
        assert heir.leases[0].attempts <= 2


async def test_a_lease_that_is_lost_in_a_rest_is_recorded_by_nobody(
    server: Server, redis: Connection, service: str
) -> None:
    await write(server.url, CALL, 1)
    async with Running(server.url, service, Failing(), retry=LONG, **TTL) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: run.client.statistics().failing, "it has failed, and rests")
        [lease] = run.client.leases.values()
        group = f"{service}-group"
        await redis.set(f"{{{service}-input}}:lock:thief", "{}")
        await redis.xclaim(f"{service}-input", group, "thief", 0, [lease.lbs_id])
        await redis.delete(f"{{{service}-input}}:lock:{run.client.id}")
        assert await lease.lost() == "claimed"
        await wait_until(lambda: run.client.statistics().handlers == 0, "its task has ended")
        assert await counted(redis, service) == ("1", "")


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_failure_whose_record_is_not_answered_counts_once(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    await load_scripts(redis)
    await write(server.url, CALL, 1)
    fault = lose(proxy, "fail", loss)

    async def handle(lease: Lease) -> None:
        if lease.attempts < 3:
            raise LookupError
        await idle(lease)

    async with Running(proxy.url, service, handle, retry=RetryPolicy(**QUICK), **TTL) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        await wait_until(lambda: len(run.leases) == 3, "the third one waits for entries", timeout=5)
        assert fault.matched
        assert run.leases[2].attempts == 3
        assert await counted(redis, service) == ("1", "2")


@pytest.mark.parametrize("end", ["cancel", "drain", "cancel the task"])
async def test_the_end_comes_while_a_failure_is_being_recorded(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, end: str
) -> None:
    """Redis has counted it, and the answer does not arrive."""
    await load_scripts(redis)
    await write(server.url, CALL, 1)
    async with Running(proxy.url, service, Failing(), retry=RetryPolicy(**QUICK), **TTL) as run:
        unheard = proxy.hold_replies_after(scripts.load("fail").sha.encode(), connections=1)
        await add(redis, service, [CALL])
        await wait_until(lambda: unheard.matched, "it is recorded")
        started = time.monotonic()
        if end == "drain":
            run.client.drain()
        elif end == "cancel":
            run.task.cancel()
        else:
            [handling] = [task for task in asyncio.all_tasks() if task.get_name() == f"handler of {CALL}"]
            handling.cancel()
            await asyncio.wait((handling,))
            assert handling.cancelled()
            run.client.drain()
        with contextlib.suppress(asyncio.CancelledError):
            await run.task
        assert time.monotonic() - started < (1.0 if end == "cancel" else 3.0)
        unheard.release()
    attempts, failures = await counted(redis, service)
    assert (attempts, failures) == ("0", "1")
    assert not run.client.leases
    async with Running(server.url, service, **TTL) as heir:
        await heir.handles(CALL)
        assert heir.leases[0].attempts == 2


# Later.


async def test_a_stream_that_is_put_off_is_owned_and_offered_again_after_that(
    server: Server, redis: Connection, service: str
) -> None:
    await write(server.url, CALL, 1)
    handler = Failing(RetryLater(after=0.8))
    async with Running(server.url, service, handler, max_attempts=1, **TTL) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: handler.times and not run.working, "it rests")
        assert run.owned == [CALL]
        await wait_until(lambda: len(handler.times) == 3, "it is offered again, and again")
        assert run.client.statistics().failing == ()
        assert run.client.statistics().handlers_failed == 0
        assert [lease.attempts for lease in run.leases] == [1, 1, 1]
    for before, after in zip(handler.times, handler.times[1:], strict=False):
        assert 0.8 <= after - before < 2.5
    assert await dead_letters(redis, service) == []


async def test_a_drain_ends_what_was_put_off(server: Server, redis: Connection, service: str) -> None:
    await write(server.url, CALL, 1)
    handler = Failing(RetryLater(after=3600))
    async with Running(server.url, service, handler, **TTL) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: handler.times and not run.working, "it rests")
        run.client.drain()
        async with asyncio.timeout(2):
            await run.task
    assert await counted(redis, service) == ("0", "")
    assert set((await owners(redis, service)).values()) == {"nobody"}


@pytest.mark.parametrize("lbs_id", ["*", "99999999999999-0"], ids=["of now", "of the year 5138"])
async def test_where_no_record_counts_the_deliveries_do_whatever_the_id_says(
    server: Server, redis: Connection, service: str, lbs_id: str
) -> None:
    await redis.set(Keys(service).progress(CALL), "of another type")
    await redis.xadd(Keys(service).lbs, {FIELD: encode(CALL)}, id=lbs_id)
    policy = RetryPolicy(max_attempts=3, patience=0, **QUICK)
    async with Running(server.url, service, Failing(), retry=policy, **TTL):
        [letter] = await wait_until(lambda: dead_letters(redis, service), "it is buried")
    assert letter["reason"].startswith("failed 3 times")


# Members of earlier versions.


async def test_what_an_earlier_version_counted_are_deaths(server: Server, redis: Connection, service: str) -> None:
    await write(server.url, CALL, 1)
    await add(redis, service, [CALL])
    async with Running(server.url, service, **TTL) as run:
        await run.handles(CALL)
    key = f"{{{CALL}}}:{service}:progress"
    fence = str(run.leases[0].fence)
    await redis.delete(key)
    await redis.hset(key, mapping={"fence": fence, "consumer": run.client.id, "attempts": 5})
    handler = Failing()
    policy = RetryPolicy(max_attempts=6, patience=0, **QUICK)
    async with Running(server.url, service, handler, retry=policy, **TTL):
        [letter] = await wait_until(lambda: dead_letters(redis, service), "it is buried")
    assert letter["reason"].startswith("failed 6 times")
    [found] = [letter async for letter in DeadLetters(redis, service)]
    assert (found.failures, found.deaths) == (6, 5)
