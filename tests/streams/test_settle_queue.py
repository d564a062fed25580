"""Ring 3: the records of finished streams get their lifetime, though Redis or the line stand still for a moment.

Nobody else's checkpoint is disturbed by that.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol.progress_records import NO_OWNER, Owner, Settle
from redis_stream_client._streams import settle_queue
from redis_stream_client._streams.settle_queue import FIRST, Item, Pace, SettleQueue
from tests.harness.logs import LOG
from tests.harness.runs import Running, add, write
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from redis_stream_client import Lease
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server

COUNT = 100
SHORT = [f"short-{i}" for i in range(COUNT)]
LONG = "long"


class Scene:
    """Many streams that are about to be finished at once, and one that goes on."""

    def __init__(self, redis: Connection, proxy: TcpProxy, service: str) -> None:
        self.redis = redis
        self.proxy = proxy
        self.keys = Keys(service)
        self.run = Running(proxy.url, service, self._handle, lock_ttl=2.0)
        self.begun = 0
        self.accepted = 0
        self._go = asyncio.Event()

    async def _handle(self, lease: Lease) -> None:
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)
            if lease.stream != LONG:
                self.begun += 1
                await self._go.wait()
                return
            self.accepted += 1

    @contextlib.asynccontextmanager
    async def ready(self, service: str) -> AsyncGenerator[None]:
        for stream in (*SHORT, LONG):
            await self.redis.xadd(stream, {"n": 1})
        async with self.run:
            await add(self.redis, service, [*SHORT, LONG])
            await wait_until(lambda: self.begun == COUNT and self.accepted == 1, "all have begun")
            yield

    def finish(self) -> None:
        """Finish the short ones."""
        self._go.set()

    async def lifetimes(self) -> list[int]:
        async with self.redis.pipeline(transaction=False) as all_at_once:
            for stream in SHORT:
                all_at_once.pttl(self.keys.progress(stream))
            found: list[int] = await all_at_once.execute()
        return found

    async def settled(self) -> None:
        """Wait until all short ones are done, and their records expire."""

        async def expire() -> bool:
            return all(left > 0 for left in await self.lifetimes())

        await wait_until(lambda: self.run.client.statistics().streams_done == COUNT, "all are done", 20.0)
        await wait_until(expire, "all records have a lifetime", 20.0)


@pytest.fixture
def scene(redis: Connection, proxy: TcpProxy, service: str) -> Scene:
    return Scene(redis, proxy, service)


async def stalls(scene: Scene) -> None:
    """The line stands still for longer than an end waits for its record."""
    scene.proxy.freeze()
    scene.finish()
    await asyncio.sleep(0.5)
    scene.proxy.thaw()


async def round_trips_are_long(scene: Scene) -> None:
    """A round trip takes longer than an end waits for its record."""
    scene.proxy.delay(replies=0.25)
    scene.finish()


async def line_is_slow(scene: Scene) -> None:
    """20 kB a second."""
    scene.proxy.bandwidth(requests=20_000, replies=20_000)
    scene.finish()


@pytest.mark.parametrize("trouble", [stalls, round_trips_are_long, line_is_slow])
async def test_records_expire_and_other_checkpoints_go_on_over_the_same_connection(
    scene: Scene, service: str, server: Server, trouble: Callable[[Scene], Awaitable[None]]
) -> None:
    async with scene.ready(service):
        connections = scene.proxy.accepted
        await trouble(scene)
        await write(server.url, LONG, 1)
        await wait_until(lambda: scene.accepted == 2, "the long one goes on")
        await scene.settled()
        await wait_until(lambda: scene.run.client.statistics().records_unsettled == 0, "it knows that")
        assert scene.run.client.statistics().lapses == 0
        assert scene.proxy.accepted == connections
        scene.proxy.heal()


async def test_a_server_that_stalls_leaves_no_record_for_ever(
    scene: Scene, service: str, redis: Connection
) -> None:
    async with scene.ready(service):
        stall = asyncio.create_task(redis.execute_command("DEBUG", "SLEEP", 0.4))
        await asyncio.sleep(0.02)
        scene.finish()
        await stall
        await scene.settled()


async def test_what_is_not_answered_is_counted_and_said_again_when_the_connection_is_back(
    scene: Scene, service: str
) -> None:
    async with scene.ready(service):
        lost = scene.proxy.drop_requests_matching(b"604800000")  # the lifetime, in milliseconds
        scene.finish()
        await wait_until(lambda: scene.run.client.statistics().streams_done == COUNT, "all are done")
        assert scene.run.client.statistics().records_unsettled == COUNT
        assert lost.matched
        scene.proxy.heal()
        await scene.settled()
        await wait_until(lambda: scene.run.client.statistics().records_unsettled == 0, "it knows that")


async def test_what_is_left_is_said_when_the_client_leaves(scene: Scene, service: str) -> None:
    async with scene.ready(service):
        held = scene.proxy.hold_replies_after(b"604800000", connections=1)
        scene.finish()
        await wait_until(lambda: scene.run.client.statistics().streams_done == COUNT, "all are done")
        assert scene.run.client.statistics().records_unsettled > 0
        held.release()
    assert all(left > 0 for left in await scene.lifetimes())


# Without a server.


class Deaf:
    """Records of a server that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.said: dict[str, Settle] = {}
        self.answers = asyncio.Event()

    async def settle(self, asks: list[Settle], timeout: float) -> list[int | Exception]:
        self.asked.append([ask.record for ask in asks])
        await self.answers.wait()
        self.said.update({ask.record: ask for ask in asks})
        return [1] * len(asks)


def item(record: str, lifetime: float = 0.0) -> Item[Settle]:
    return Item(record, Settle(record, NO_OWNER, lifetime))


def settling_on(deaf: Any) -> SettleQueue[Settle]:
    async def learn() -> None:
        pass

    async def say(records: Any, asks: list[Settle], timeout: float) -> list[int | Exception]:
        return await deaf.settle(asks, timeout)  # type: ignore[no-any-return]

    return SettleQueue(
        say, lambda *_: None, lambda _: deaf, learn, lambda: None, lambda work: start_task(work, "settling"), LOG
    )


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(settle_queue, "MOST", 10)
    deaf = Deaf()
    waiting = settling_on(deaf)
    await waiting.settle([item(str(i)) for i in range(25)], 0.0)
    assert len(waiting) == 10
    assert not any("15" in message for message in caplog.messages)
    assert [message.count("were not settled") for message in caplog.messages] == [1] * 4  # 1, 2, 4, 8
    deaf.answers.set()
    await wait_until(lambda: len(waiting) == 0, "they are settled")


async def test_a_newer_word_about_a_record_takes_the_older_ones_place() -> None:
    deaf = Deaf()
    waiting = settling_on(deaf)
    await waiting.settle([item("a"), item("b")], 0.0)
    await wait_until(lambda: deaf.asked == [["a", "b"]], "it was asked")
    await waiting.settle([item("a", 7.0)], 0.0)
    assert len(waiting) == 2
    deaf.answers.set()
    await wait_until(lambda: len(waiting) == 0, "they are settled")
    assert deaf.asked == [["a", "b"], ["a"]]


async def test_that_an_owner_is_idle_does_not_take_the_place_of_its_end() -> None:
    """A handler that waits for entries is idle until its stream has been put to sleep."""
    deaf = Deaf()
    waiting = settling_on(deaf)
    me, other = Owner("fence-1", "me"), Owner("fence-2", "me")
    await waiting.settle([Item("a", Settle("a", me, 7.0)), Item("b", Settle("b", me, 7.0))], 0.0)
    await waiting.settle([Item("a", Settle("a", me, 0.0, idle=True))], 0.0)
    await waiting.settle([Item("b", Settle("b", other, 0.0, idle=True))], 0.0)
    deaf.answers.set()
    await wait_until(lambda: len(waiting) == 0, "they are settled")
    assert deaf.said["a"] == Settle("a", me, 7.0)
    assert deaf.said["b"] == Settle("b", other, 0.0, idle=True)


def test_calls_grow_with_quick_answers_and_not_because_a_round_trip_is_long() -> None:
    pace = Pace(LOG)
    assert pace.size == FIRST
    pace.took(FIRST, 0.5, answered=True)
    pace.took(2 * FIRST, 0.55, answered=True)
    assert pace.size == 4 * FIRST
    pace.took(4 * FIRST, 1.5, answered=True)
    assert pace.size == 2 * FIRST
    pace.took(2 * FIRST, 10.0, answered=False)
    assert pace.size < FIRST
