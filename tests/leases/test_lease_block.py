"""`async with lease`: how the block ends, and what that means for the stream."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import pickle
from typing import TYPE_CHECKING

import anyio
import pytest

from redis_stream_client import (
    ClientClosed,
    Lease,
    LoadBalancerStream,
    NotOwner,
    RedisStreamClient,
    StreamAdded,
    StreamDisowned,
)
from redis_stream_client._model.keys import NOBODY, Keys
from tests.harness.parts import joined, next_event
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

LOCK_TTL = 1.0
THIEF = "redis-consumer-thief-00c0ffee"


class Scene:
    """A client with streams, and a thief who takes them away."""

    def __init__(self, redis: Connection, service: str, client: RedisStreamClient) -> None:
        self.redis = redis
        self.client = client
        self.keys = Keys(service)
        self.producer = LoadBalancerStream(redis, service)

    async def lease(self, stream: str = "call-17") -> Lease:
        """Announce a stream and receive it."""
        await self.producer.add(stream)
        event = await anext(self.client.events())
        assert isinstance(event, StreamAdded)
        return event.payload

    async def steal(self, lease: Lease) -> None:
        """A peer owns the stream, and the client is made to look."""
        await self.redis.set(self.keys.lock(THIEF), "{}")
        await self.redis.xclaim(self.keys.lbs, self.keys.group, THIEF, 0, [lease.lbs_id])
        await self.redis.delete(self.keys.lock(self.client.id))

    async def state(self, lease: Lease) -> str:
        """Whose the stream is, or 'done'."""
        async with self.redis.pipeline(transaction=True) as both:
            both.xrange(self.keys.lbs, lease.lbs_id, lease.lbs_id)
            both.xpending_range(self.keys.lbs, self.keys.group, lease.lbs_id, lease.lbs_id, 1)
            entries, pending = await both.execute()
        if not entries and not pending:
            return "done"
        assert len(entries) == len(pending) == 1
        owner: str = pending[0]["consumer"].decode()
        return {NOBODY: "released", self.client.id: "ours", THIEF: "the thief's"}.get(owner, owner)

    async def becomes(self, lease: Lease, state: str) -> None:
        async def agrees() -> bool:
            return await self.state(lease) == state

        await wait_until(agrees, f"the stream is {state}")


@pytest.fixture
async def scene(redis: Connection, service: str) -> AsyncIterator[Scene]:
    async with RedisStreamClient(redis, service, lock_ttl=LOCK_TTL) as client:
        yield Scene(redis, service, client)


@pytest.fixture
async def lease(scene: Scene) -> Lease:
    return await scene.lease()


class Block:
    """The block of a lease, in a task of its own; what happened in it, and how it ended."""

    def __init__(self, lease: Lease, body: Callable[[], Awaitable[object]] | None = None) -> None:
        self.entered = asyncio.Event()
        self.cancellations = 0
        self.caught: BaseException | None = None
        self._lease = lease
        self._body = body or asyncio.get_running_loop().create_future
        self.task = asyncio.create_task(self._run(), name="block")

    async def _run(self) -> None:
        try:
            async with self._lease:
                self.entered.set()
                try:
                    await self._body()
                except asyncio.CancelledError:
                    self.cancellations += 1
                    raise
        except BaseException as error:
            self.caught = error
            raise

    async def running(self) -> Block:
        await self.entered.wait()
        return self

    async def end(self) -> BaseException | None:
        """Wait for the task's end; returns what left the block."""
        await asyncio.wait((self.task,), timeout=10)
        assert self.task.done()
        assert self.task.cancelled() == isinstance(self.caught, asyncio.CancelledError)
        if not self.task.cancelled():
            assert self.task.exception() is self.caught
        return self.caught


# The table.


async def test_a_normal_end_says_done(scene: Scene, lease: Lease) -> None:
    async with lease as entered:
        assert entered is lease
        assert lease.owned
    assert await scene.state(lease) == "done"
    assert not lease.owned
    assert lease.lbs_id not in scene.client.leases


async def test_its_own_exception_releases_and_goes_on_its_way(scene: Scene, lease: Lease) -> None:
    error = LookupError("no such customer")
    with pytest.raises(LookupError) as caught:
        async with lease:
            raise error
    assert caught.value is error
    assert await scene.state(lease) == "released"


async def test_a_release_that_fails_is_only_logged(
    scene: Scene, lease: Lease, caplog: pytest.LogCaptureFixture
) -> None:
    # Released behind the client's back, and taken by another: only the release itself finds out.
    await scene.redis.set(scene.keys.lock(THIEF), "{}")
    await scene.redis.xclaim(scene.keys.lbs, scene.keys.group, THIEF, 0, [lease.lbs_id], justid=True)
    with caplog.at_level(logging.WARNING, "redis_stream_client"), pytest.raises(LookupError):
        async with lease:
            raise LookupError
    assert any("could not release call-17" in message for message in caplog.messages)
    assert await scene.state(lease) == "the thief's"


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancellation_from_outside_releases(scene: Scene, lease: Lease, times: int) -> None:
    block = await Block(lease).running()
    for _ in range(times):
        block.task.cancel()
        await asyncio.sleep(0)
    assert isinstance(await block.end(), asyncio.CancelledError)
    await scene.becomes(lease, "released")
    assert not lease.owned


async def test_a_cancelled_scope_of_anyio_releases_and_only_the_scope_is_left(scene: Scene, lease: Lease) -> None:
    with anyio.CancelScope() as scope:
        async with lease:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert await scene.state(lease) == "released"
    await anyio.lowlevel.checkpoint()  # nothing is left of the cancellation


async def by_asyncio(lease: Lease) -> None:
    async with asyncio.timeout(0.01), lease:
        await asyncio.sleep(60)


async def by_anyio(lease: Lease) -> None:
    with anyio.fail_after(0.01):
        async with lease:
            await asyncio.sleep(60)


@pytest.mark.parametrize("work", [by_asyncio, by_anyio])
async def test_a_time_out_around_the_block_releases_and_stays_a_time_out(
    scene: Scene, lease: Lease, work: Callable[[Lease], Awaitable[None]]
) -> None:
    with pytest.raises(TimeoutError):
        await work(lease)
    assert await scene.state(lease) == "released"


async def test_a_loss_cancels_the_block_once_and_leaves_it_as_not_owner(scene: Scene, lease: Lease) -> None:
    block = await Block(lease).running()
    await scene.steal(lease)
    error = await block.end()
    assert isinstance(error, NotOwner)
    assert (error.reason, error.stream, error.lbs_id) == ("claimed", "call-17", lease.lbs_id)
    assert block.cancellations == 1
    assert block.task.cancelling() == 0
    assert await scene.state(lease) == "the thief's"


async def test_cleaning_up_after_a_loss_may_await(scene: Scene, lease: Lease) -> None:
    cleaned = False

    async def body() -> None:
        nonlocal cleaned
        try:
            await asyncio.sleep(60)
        finally:
            for _ in range(10):
                await asyncio.sleep(0.001)
            cleaned = True

    block = await Block(lease, body).running()
    await scene.steal(lease)
    assert isinstance(await block.end(), NotOwner)
    assert cleaned


async def test_a_loss_whose_cancellation_is_swallowed_is_still_not_owner(scene: Scene, lease: Lease) -> None:
    async def body() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    block = await Block(lease, body).running()
    await scene.steal(lease)
    assert isinstance(await block.end(), NotOwner)


async def test_the_blocks_own_exception_is_seen_even_when_it_was_lost(scene: Scene, lease: Lease) -> None:
    async def body() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise LookupError from None

    block = await Block(lease, body).running()
    await scene.steal(lease)
    assert isinstance(await block.end(), LookupError)
    assert await scene.state(lease) == "the thief's"


@pytest.mark.parametrize("first", ["loss", "cancellation"])
async def test_a_cancellation_from_outside_wins_over_a_loss(scene: Scene, lease: Lease, first: str) -> None:
    async def body() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            with contextlib.suppress(asyncio.CancelledError):  # the second one
                await both.wait()

    both = asyncio.Event()
    block = await Block(lease, body).running()
    if first == "cancellation":
        block.task.cancel()
        await asyncio.sleep(0)
    await scene.steal(lease)
    await lease.lost()
    await asyncio.sleep(0)
    if first == "loss":
        block.task.cancel()
    both.set()
    assert isinstance(await block.end(), asyncio.CancelledError)
    await scene.becomes(lease, "the thief's")


async def test_a_loss_in_the_very_step_in_which_the_block_ends_escapes_as_nothing_but_not_owner(
    server: Server, redis: Connection, service: str
) -> None:
    async with joined(server.url, service, lock_ttl=LOCK_TTL) as parts:
        await LoadBalancerStream(redis, service).add("call-17")
        event = await next_event(parts)
        assert isinstance(event, StreamAdded)

        async def body() -> None:
            # Ends without a step between the loss and the end: the cancellation is asked for, but never delivered.
            parts.losses.lose(parts.table, "claimed")

        block = Block(event.payload, body)
        assert isinstance(await block.end(), NotOwner)
        assert block.task.cancelling() == 0


@pytest.mark.parametrize("how", ["done", "release"])
@pytest.mark.parametrize("then", ["ends", "fails"])
async def test_after_done_or_release_inside_the_end_means_nothing_more(
    scene: Scene, lease: Lease, how: str, then: str
) -> None:
    async def body() -> None:
        await (lease.done() if how == "done" else lease.release())
        if then == "fails":
            raise LookupError

    block = Block(lease, body)
    assert isinstance(await block.end(), LookupError if then == "fails" else type(None))
    assert await scene.state(lease) == ("done" if how == "done" else "released")


# Entering.


async def test_a_block_is_entered_once(lease: Lease) -> None:
    async with lease:
        with pytest.raises(RuntimeError, match="a lease is entered once"):
            async with lease:
                pytest.fail("entered twice")
    with pytest.raises(RuntimeError, match="a lease is entered once"):
        await lease.__aenter__()


async def test_a_lost_lease_cannot_be_entered(scene: Scene, lease: Lease) -> None:
    await scene.steal(lease)
    await lease.lost()
    with pytest.raises(NotOwner):
        async with lease:
            pytest.fail("entered")


# The lease by itself.


async def test_done_is_refused_after_a_loss_and_changes_nothing(scene: Scene, lease: Lease) -> None:
    await scene.steal(lease)
    assert await lease.lost() == "claimed"
    for end in (lease.done, lease.release, lambda: scene.client.done(lease)):
        with pytest.raises(NotOwner) as caught:
            await end()
        assert caught.value.reason == "claimed"
    assert await scene.state(lease) == "the thief's"
    event = await anext(scene.client.events())
    assert isinstance(event, StreamDisowned)
    assert (event.payload, event.reason) == (lease, "claimed")


@pytest.mark.parametrize("how", ["done", "released", "closed"])
async def test_lost_returns_the_reason_to_everybody_who_waits_and_later(
    scene: Scene, lease: Lease, how: str
) -> None:
    waiting = [asyncio.create_task(lease.lost()) for _ in range(3)]
    await asyncio.sleep(0)
    match how:
        case "done":
            await lease.done()
        case "released":
            await lease.release()
        case _:
            await scene.client.aclose()
    assert await asyncio.gather(*waiting) == [how] * 3
    assert await lease.lost() == how


async def test_cancelling_a_wait_for_the_loss_changes_nothing(lease: Lease) -> None:
    first, second = (asyncio.create_task(lease.lost()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait((first,))
    assert lease.owned
    await lease.done()
    assert await second == "done"


async def test_cancelling_done_does_not_take_it_back(scene: Scene, lease: Lease) -> None:
    task = asyncio.create_task(lease.done())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    await scene.becomes(lease, "done")
    assert await lease.lost() == "done"


@pytest.mark.parametrize(
    "make_copy",
    [pickle.dumps, lambda lease: pickle.dumps(lease, 0), copy.copy, copy.deepcopy],
    ids=["pickle", "pickle protocol 0", "copy", "deepcopy"],
)
async def test_a_lease_cannot_be_pickled_or_copied_but_its_fence_can(
    lease: Lease, make_copy: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError, match="fence"):
        make_copy(lease)
    assert make_copy(lease.fence)


async def test_a_stream_that_comes_back_is_another_lease_with_a_greater_fence(scene: Scene, lease: Lease) -> None:
    await scene.steal(lease)
    await lease.lost()
    assert isinstance(await anext(scene.client.events()), StreamDisowned)
    await scene.redis.xclaim(scene.keys.lbs, scene.keys.group, scene.client.id, 0, [lease.lbs_id])
    await scene.redis.delete(scene.keys.lock(scene.client.id))  # makes the client look again
    event = await anext(scene.client.events())
    assert isinstance(event, StreamAdded)
    again = event.payload
    assert again.lbs_id == lease.lbs_id
    assert again != lease
    assert len({again, lease}) == 2
    assert again.fence > lease.fence
    assert again.owned
    assert not lease.owned


async def test_owned_may_be_asked_from_a_thread(scene: Scene, lease: Lease) -> None:
    assert await asyncio.to_thread(lambda: lease.owned)
    await scene.steal(lease)
    await lease.lost()
    assert not await asyncio.to_thread(lambda: lease.owned)


async def test_a_lease_knows_what_was_announced(scene: Scene) -> None:
    lbs_id = await scene.producer.add("call-18", {"lang": "de"})
    event = await anext(scene.client.events())
    assert isinstance(event, StreamAdded)
    lease = event.payload
    assert (lease.stream, lease.lbs_id, lease.info, lease.deliveries) == ("call-18", lbs_id, {"lang": "de"}, 1)
    assert "call-18" in repr(lease)
    assert "owned" in repr(lease)
    await lease.done()
    assert "done" in repr(lease)


async def test_closing_the_client_in_a_block_cancels_it_as_lost(scene: Scene, lease: Lease) -> None:
    block = await Block(lease).running()
    await scene.client.aclose()
    error = await block.end()
    assert isinstance(error, NotOwner)
    assert error.reason == "closed"
    with pytest.raises(ClientClosed):
        await scene.client.done(lease)
