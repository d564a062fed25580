"""Ring 3: `run()` when processes die or freeze, when replies are lost, and when connections break."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import Lease, NotOwner, RedisUnavailable
from redis_stream_client._concurrency import clock
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from tests.faults.test_lost_replies import LOSSES, Loss, lose
from tests.harness.runs import (
    Ledger,
    Running,
    RunWorker,
    add,
    calls,
    dead_letters,
    finished,
    idle,
    owners,
    record,
    write,
)
from tests.harness.scenes import time_passes
from tests.harness.waiting import stop, wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server
    from tests.harness.workers import Worker, WorkerEvent

    StartWorker = Callable[..., Awaitable[Worker]]

CALL = "call-1"
FAST: dict[str, Any] = {"lock_ttl": 0.5}


def told(workers: list[Worker], event: str, stream: str) -> list[WorkerEvent]:
    """What the workers reported of a stream, in the order of time."""
    found = [e for worker in workers for e in worker.events if (e.event, e.stream) == (event, stream)]
    return sorted(found, key=lambda e: e.time)


# Processes.


async def test_a_stream_that_kills_its_owners_ends_in_the_dead_letters_after_max_attempts(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    rules: dict[str, Any] = {"max_attempts": 3, **FAST}
    workers = await asyncio.gather(*(start_worker(RunWorker, **rules) for _ in range(3)))
    for worker in workers:
        await worker.joined()
    await write(server.url, "good-1", 2)
    await add(redis, service, ["poison-1", "good-1"])
    for worker in workers:
        assert await worker.exit_code() == -9
    ledger = Ledger()
    async with Running(server.url, service, ledger.follow, **rules) as survivor:
        (letter,) = await wait_until(lambda: dead_letters(redis, service), "it is buried")
        assert "its owners died 3 times" in letter["reason"]
        assert "poison-1" in letter["lbs-input"]
        await survivor.handles("good-1")
        assert all(lease.stream == "good-1" for lease in survivor.leases)
    attempts = [e.detail for e in told(workers, "handling", "poison-1")]
    assert attempts == ["1 None", "2 None", "3 None"]
    assert len({e.client for e in told(workers, "handling", "poison-1")}) == 3


async def test_a_frozen_owner_s_late_checkpoint_changes_nothing(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    """It freezes between an entry and its checkpoint; a peer takes over, begins, and gets on; then it wakes."""
    ids = await write(server.url, "frozen-1", 4)
    frozen = await (await start_worker(RunWorker, **FAST)).joined()
    await add(redis, service, ["frozen-1"])
    await frozen.wait_for_event(lambda event: event.event == "handed")
    ledger = Ledger()
    async with Running(server.url, service, ledger.follow, **FAST) as peer:
        await wait_until(lambda: ledger.accepted["frozen-1"] == ids, "the peer goes on where nothing was accepted")
        before = await record(redis, service, "frozen-1")
        frozen.thaw()
        failed = await frozen.wait_for_event(lambda event: event.event in ("failed", "accepted"))
        assert (failed.event, failed.detail in ("NotOwner", "CancelledError")) == ("failed", True)
        assert await record(redis, service, "frozen-1") == before
        assert before["consumer"] == peer.client.id
        await wait_until(lambda: redis.exists(Keys(service).lock(frozen.client)), "it has joined again")
        assert [event.detail for event in frozen.events if event.event == "handed"] == ids[:1]
        await peer.handles("frozen-1")


async def test_a_blocked_event_loop_is_a_frozen_owner(
    server: Server, redis: Connection, service: str, start_worker: StartWorker
) -> None:
    await write(server.url, "good-1", 1)
    blocked = await (await start_worker(RunWorker, **FAST)).joined()
    await add(redis, service, ["good-1"])
    await blocked.wait_for_event(lambda event: event.event == "accepted")
    await add(redis, service, ["blocked-1"])
    async with Running(server.url, service, **FAST) as peer:
        await peer.handles("good-1", "blocked-1")
        assert (await peer.lease("good-1")).attempts == 1
        assert (await peer.lease("blocked-1")).attempts == 2


# Replies.


async def load(redis: Connection) -> None:
    """Let the server know the scripts, so that each is one EVALSHA."""
    for name in ("begin", "checkpoint", "settle", "done", "release", "claim_many", "bury", "adopt", "share"):
        await redis.script_load(scripts.load(name).text)


@pytest.mark.parametrize(
    ("operation", "loss"),
    [
        *(
            (operation, loss)
            for operation in ("begin", "checkpoint", "settle", "done", "EXISTS")
            for loss in LOSSES
        ),
        ("XREAD", "reply, connection cut"),
        ("XREAD", "reply, silence"),  # which takes the time that a large piece on a slow line is given
    ],
)
async def test_a_lost_reply_happens_to_no_stream_twice(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, operation: str, loss: Loss
) -> None:
    await load(redis)
    ledger = Ledger()
    streams = [f"call-{i}" for i in range(5)]
    ids = {stream: await write(server.url, stream, 3, end=True) for stream in streams}
    attempts: list[int] = []

    async def handle(lease: Lease) -> None:
        attempts.append(lease.attempts)
        await ledger.follow(lease)

    word = operation + "\r\n" if operation == "XREAD" else operation
    async with Running(proxy.url, service, handle, lock_ttl=1.0) as run:
        fault = lose(proxy, word, loss)
        await add(redis, service, streams)
        await wait_until(lambda: finished(redis, service), "all are finished")
        assert fault.matched
        await wait_until(lambda: run.client.statistics().streams_done == len(streams), "that is known")
        assert run.client.statistics().lapses == 0
        assert run.client.statistics().streams_disowned == 0
    assert ledger.handed == ledger.accepted == ids
    assert attempts == [1] * len(streams)
    assert await dead_letters(redis, service) == []
    for stream in streams:
        stored = await record(redis, service, stream)
        assert (stored["checkpoint"], stored["attempts"]) == (ids[stream][-1], "0")


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_begin_counts_one_attempt(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    await load(redis)
    await write(server.url, CALL, 1)
    handed: Counter[str] = Counter()

    async def handle(lease: Lease) -> None:
        async for _ in lease.entries():
            handed[lease.stream] += 1

    async with Running(proxy.url, service, handle, lock_ttl=1.0) as run:
        fault = lose(proxy, "begin", loss)
        await add(redis, service, [CALL])
        await run.handles(CALL)
        stored = await wait_until(lambda: record(redis, service, CALL), "it has begun")
        await wait_until(lambda: handed, "it knows")
        assert fault.matched
        assert stored["attempts"] == "1"
        assert run.leases[0].attempts == 1


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_release_of_a_failed_stream_counts_one_attempt(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    await load(redis)

    async def handle(lease: Lease) -> None:
        if lease.deliveries == 1:
            raise ZeroDivisionError
        await idle(lease)

    async with Running(proxy.url, service, handle, lock_ttl=1.0) as run:
        fault = lose(proxy, "release", loss)
        await add(redis, service, [CALL])
        again = await run.lease(CALL, nth=2)
        assert fault.matched
        assert again.attempts == 2
        await run.handles(CALL)


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_take_over_is_adopted(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    await load(redis)
    streams = [f"call-{i}" for i in range(40)]
    async with Running(server.url, service, lock_ttl=1.0) as dying:
        await add(redis, service, streams)
        await dying.handles(*streams)
        async with Running(proxy.url, service, lock_ttl=1.0) as run:
            fault = lose(proxy, "claim_many", loss)
            await dying.client.aclose()
            await run.handles(*streams)
            assert fault.matched
            assert len(run.leases) == len({lease.stream for lease in run.leases}) == len(streams)
            assert set((await owners(redis, service)).values()) == {run.client.id}
            assert max(lease.attempts for lease in run.leases) <= 2


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_burial_is_repeated(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, loss: Loss
) -> None:
    await load(redis)

    async def handle(lease: Lease) -> None:
        raise ZeroDivisionError

    async with Running(proxy.url, service, handle, max_attempts=1, lock_ttl=1.0) as run:
        fault = lose(proxy, "bury", loss)
        await add(redis, service, [CALL])
        await wait_until(lambda: finished(redis, service), "it is off the load balancer stream")
        assert fault.matched
        await wait_until(lambda: not run.owned, "it is known")
        assert len(await dead_letters(redis, service)) == 1
        assert len(run.leases) == 1


# Connections.


@pytest.mark.parametrize("trouble", ["killed", "bell killed", "cut", "half open", "flushed"])
async def test_entries_have_no_gap_and_no_repetition_whatever_breaks(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, trouble: str
) -> None:
    """Thousands of entries, written and read while connections break again and again."""
    ledger = Ledger()
    streams = [f"call-{i}" for i in range(4)]
    ids: dict[str, list[str]] = {stream: [] for stream in streams}
    async with Running(proxy.url, service, ledger.follow, lock_ttl=2.0) as run:
        await add(redis, service, streams)
        await run.handles(*streams)
        for i in range(6):
            for stream in streams:
                ids[stream] += await write(server.url, stream, 200, end=i == 5)
            match trouble:
                case "killed":
                    await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                case "bell killed":
                    await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                case "cut":
                    proxy.cut()
                case "half open" if i == 2:
                    proxy.drop_replies_after(b"XREAD\r\n", connections=1)
                case "flushed":
                    await redis.execute_command("SELECT", 1)
                    await redis.flushdb()
                    await redis.execute_command("SELECT", 0)
                case _:
                    pass
            await ledger.reached({stream: len(ids[stream]) - 100 for stream in streams}, timeout=20)
        await wait_until(lambda: finished(redis, service), "all are finished", timeout=20)
        assert run.client.statistics().lapses == 0
    assert ledger.handed == ledger.accepted == ids


async def test_wake_ups_go_on_after_the_bell_was_lost(server: Server, redis: Connection, service: str) -> None:
    """What is written in the gap is found, too, and quickly."""
    ledger = Ledger()
    streams = [f"call-{i}" for i in range(50)]
    async with Running(server.url, service, ledger.follow, lock_ttl=2.0) as run:
        await add(redis, service, streams)
        await run.handles(*streams)
        for n in range(1, 4):
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            for stream in streams:
                await redis.xadd(stream, {"n": n})
            await ledger.reached(dict.fromkeys(streams, n), timeout=2)


async def test_without_the_permission_for_wake_ups_entries_arrive_and_few_commands_are_sent(
    server: Server, redis: Connection, service: str
) -> None:
    server.command(
        "ACL", "SETUSER", "worker", "reset", "on", ">secret", "~*", "&*", "+@all", "-client", "+client|id"
    )
    url = server.url.replace("redis://", "redis://worker:secret@")
    ledger = Ledger()
    streams = [f"call-{i}" for i in range(300)]
    try:
        async with Running(url, service, ledger.follow, lock_ttl=2.0) as run:
            await add(redis, service, streams)
            await run.handles(*streams)
            for stream in streams[::30]:
                await redis.xadd(stream, {"n": 1})
            await wait_until(lambda: all(ledger.accepted[s] for s in streams[::30]), "they arrive", timeout=5)
            reads = await calls(redis, "xread")
            await time_passes(2.0, run.client)
            assert await calls(redis, "xread") - reads <= 2 * 20
    finally:
        server.command("ACL", "DELUSER", "worker")


def steady_clock() -> Callable[[], float]:
    """A clock that stands still during each pass of the event loop. On a busy machine a deadline may pass between
    the library's look at it and the next line of the handler, and no library could help that."""
    looked: list[float] = []
    loop = asyncio.get_running_loop()

    def now() -> float:
        if not looked:
            looked.append(clock.now())
            loop.call_soon(looked.clear)
        return looked[0]

    return now


async def test_no_entry_is_handed_out_while_the_lock_is_in_doubt_or_after_it_was_lost(
    server: Server, proxy: TcpProxy, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although entries that were read lie ready."""
    monkeypatch.setattr(LockState.__init__, "__defaults__", (steady_clock(),))
    await write(server.url, CALL, 3000)
    wrong: list[str] = []
    handed: list[str] = []

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            handed.append(entry.id)
            if not lease.owned:
                wrong.append(entry.id)
            await asyncio.sleep(0.001)

    async with Running(proxy.url, service, handle, **FAST) as run:
        await add(redis, service, [CALL])
        await wait_until(lambda: len(handed) > 40, "it reads")
        for _ in range(3):
            lapses = run.client.statistics().lapses
            await redis.delete(Keys(service).lock(run.client.id))
            await wait_until(lambda: run.client.statistics().lapses > lapses, "it knows that its lock is gone")
            await wait_until(lambda: run.client.alive, "it is back")
        assert run.leases[0].owned
        proxy.freeze()
        await wait_until(lambda: not run.client.alive, "it has lapsed")
        at_lapse = len(handed)
        await wait_until(lambda: not run.working, "the handler was cancelled")
        assert len(handed) == at_lapse
        assert not run.leases[0].owned
        with pytest.raises(NotOwner):
            await run.leases[0].checkpoint(handed[-1])
        proxy.cut()
        proxy.thaw()
        await run.handles(CALL)
    assert wrong == []


async def test_a_cut_off_owner_comes_back_to_a_stream_that_went_on(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    """Two clients, of which each is cut off in turn while entries flow: an accepted entry is accepted once."""
    ledger = Ledger()
    ids: list[str] = []
    failures: list[BaseException] = []

    async def handle(lease: Lease) -> None:
        try:
            await ledger.follow(lease)
        except (NotOwner, RedisUnavailable) as error:
            failures.append(error)
            raise

    async with Running(server.url, service, handle, **FAST) as steady:
        async with Running(proxy.url, service, handle, **FAST) as shaky:
            await add(redis, service, [CALL])
            await wait_until(lambda: steady.working or shaky.working, "one has it")
            for _ in range(3):
                ids += await write(server.url, CALL, 20)
                proxy.freeze()
                await steady.handles(CALL)
                proxy.cut()
                proxy.thaw()
                await wait_until(lambda: shaky.client.alive, "it is back")
                ids += await write(server.url, CALL, 20)
                await wait_until(lambda: ledger.accepted[CALL][-1:] == ids[-1:], "all is accepted")
                steady.leases.clear()
                with contextlib.suppress(AssertionError):
                    await wait_until(lambda: not steady.working, "nothing takes it away", timeout=0.05)
        assert sorted(set(ledger.accepted[CALL])) == sorted(ledger.accepted[CALL])
        assert set(ledger.accepted[CALL]) == set(ids)


async def test_a_restart_of_redis_with_its_data_loses_nothing(
    own_server: Callable[..., Server], service: str
) -> None:
    server = own_server()
    ledger = Ledger()
    ids = await write(server.url, CALL, 200)
    async with Running(server.url, service, ledger.follow, lock_ttl=1.0) as run:
        await asyncio.to_thread(server.command, "XADD", f"{service}-input", "*", "lbs-input", announced(CALL))
        await wait_until(lambda: len(ledger.accepted[CALL]) == 200, "it follows")
        await asyncio.to_thread(server.restart, keep_data=True)
        ids += await write(server.url, CALL, 200, end=True)
        await wait_until(lambda: run.client.statistics().streams_done == 1, "it is finished", timeout=20)
    assert ledger.accepted[CALL] == ids


def announced(stream: str) -> str:
    return f'{{"DataStreamName": "{stream}"}}'


async def test_a_stream_that_is_idle_outlives_any_number_of_outages(
    redis: Connection, service: str, proxy: TcpProxy
) -> None:
    """Each outage costs it an owner, but none of them failed at it."""
    ledger = Ledger()
    await write(proxy.url, CALL, 2)
    async with Running(proxy.url, service, ledger.follow, max_attempts=2, **FAST) as run:
        await add(redis, service, [CALL])
        await ledger.reached({CALL: 2})
        for outage in range(2, 6):
            proxy.freeze()
            await wait_until(lambda: not run.working, "the lock lapsed, and the lease is lost")
            proxy.cut()
            proxy.thaw()
            lease = await run.lease(CALL, nth=outage)
            await wait_until(lambda: lease.attempts == 0, "it waits for entries, and nothing is held against it")
    assert not await dead_letters(redis, service)


def stand_still(seconds: float) -> None:
    time.sleep(seconds)


async def attempts(redis: Connection, service: str) -> bytes:
    """What the record of the stream says."""
    stored = await redis.hmget(Keys(service).progress(CALL), "attempts", "failures")
    assert stored[1] in (None, b"0")
    return stored[0] or b""


async def test_no_handler_is_called_while_peers_may_own_the_stream(redis: Connection, service: str) -> None:
    """The process stands still when several are about to begin."""
    owned: list[bool] = []

    async def work(lease: Lease) -> None:
        owned.append(lease.owned)
        if len(owned) == 1:
            stand_still(0.75)
        await asyncio.Event().wait()

    async with Running(redis, service, work, **FAST) as run:
        await add(redis, service, [f"call-{i}" for i in range(20)])
        await wait_until(lambda: len(run.working) == 20, "all have their handlers")
    assert owned == [True] * len(owned)


async def test_an_owner_that_is_cut_off_again_and_again_while_it_works_has_not_died(
    redis: Connection, service: str, proxy: TcpProxy
) -> None:
    async def work(lease: Lease) -> None:
        async for _ in lease.entries():
            at_work.append(lease)
            await asyncio.Event().wait()

    at_work: list[Lease] = []
    await write(proxy.url, CALL, 1)
    async with Running(proxy.url, service, work, **FAST) as run:
        await add(redis, service, [CALL])
        for outage in range(6):
            await wait_until(lambda: len(at_work) > outage, "it works on the entry")
            assert at_work[-1].attempts == 1
            assert await attempts(redis, service) == b"1"
            if outage < 5:
                proxy.freeze()
                await wait_until(lambda: not run.working, "the lock lapsed, and the lease is lost")
                proxy.cut()
                proxy.thaw()


async def test_an_owner_that_blocks_its_event_loop_is_charged_even_if_it_gets_its_stream_back(
    redis: Connection, service: str, proxy: TcpProxy
) -> None:
    blocked = False

    async def work(lease: Lease) -> None:
        nonlocal blocked
        async for _ in lease.entries():
            if not blocked:
                blocked = True
                proxy.freeze()
                stand_still(2 * FAST["lock_ttl"])
            await asyncio.Event().wait()

    await write(proxy.url, CALL, 1)
    async with Running(proxy.url, service, work, **FAST) as run:
        await add(redis, service, [CALL])
        await run.lease(CALL)
        await wait_until(lambda: blocked and not run.working, "no answer after it: the lease is lost")
        proxy.cut()
        proxy.thaw()
        lease = await run.lease(CALL, nth=2)
        await wait_until(lambda: lease.attempts == 2, "it counts")
        assert await attempts(redis, service) == b"2"


async def test_a_handler_that_is_cancelled_after_its_end_leaves_no_stream_without_a_worker(
    server: Server, redis: Connection, service: str
) -> None:
    """A watchdog of the handler's own that nobody disarmed, while the stream rests after the failure."""
    calls = 0

    async def handle(lease: Lease) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(0.02, task.cancel)
            raise ValueError("on purpose")

    async with Running(server.url, service, handle, **FAST):
        await add(redis, service, [CALL])
        await wait_until(lambda: finished(redis, service), "it was released, and handled again")
    assert calls == 2


async def test_without_wake_ups_an_idle_stream_is_heard_of_beside_busy_ones(
    server: Server, redis: Connection, service: str
) -> None:
    """Others that are wanted all the time must not keep it from being looked at."""
    server.command("ACL", "SETUSER", "deaf", "on", "nopass", "~*", "&*", "+@all", "-client", "+client|id")
    read: list[str] = []

    async def handle(lease: Lease) -> None:
        entry = await anext(lease.entries())
        read.append(lease.stream)
        await lease.checkpoint(entry.id)

    async def keep_busy() -> None:
        for number in range(10_000):
            await write(server.url, f"busy-{number}", 1)
            await add(redis, service, [f"busy-{number}"])
            await asyncio.sleep(0.02)

    async with Running(server.url.replace("//", "//deaf:x@"), service, handle) as run:
        await add(redis, service, [CALL])
        await run.handles(CALL)
        busy = asyncio.create_task(keep_busy())
        await wait_until(lambda: len(read) > 20, "the others flow")
        await write(server.url, CALL, 1)
        try:
            await wait_until(lambda: CALL in read, "it is heard of", timeout=5)
        finally:
            await stop(busy)
    assert busy.cancelled()
    server.command("ACL", "DELUSER", "deaf")
