"""`redis_stream_client.testing`: what is its own. That its leases are like a client's, `test_contract.py` says."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any, get_args

import pytest
from redis.asyncio import Redis, RedisCluster

from redis_stream_client import (
    Entry,
    Lease,
    LoadBalancerStream,
    LossReason,
    NotOwner,
    Observer,
    RedisStreamClient,
    RedisUnavailable,
    RetryPolicy,
    StreamAdded,
    StreamDisowned,
    StreamExpired,
    testing,
)
from redis_stream_client._leases.state import ENDED
from redis_stream_client._model.keys import Keys
from redis_stream_client.testing import Controller, controller, expire, run_handler, wait_until
from tests.harness.fleet import Member, announce
from tests.harness.leases import state_of
from tests.harness.loops import task_kind
from tests.harness.scenes import next_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator

    from redis_stream_client import Burial, Checkpoint, Failure, HandlerEnd, HandlerStart
    from tests.harness.cluster import Cluster
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server
    from tests.harness.workers import Worker

FOR_EVER = 60.0
LONG = 20.0
"""A lifetime of locks that ends in no test by itself."""


async def return_at_once(lease: Lease) -> None:
    pass


async def sleep(lease: Lease) -> None:
    await asyncio.sleep(FOR_EVER)


async def follow(lease: Lease) -> None:
    async for entry in lease.entries():
        await lease.checkpoint(entry.id)


async def read_all(lease: Lease) -> list[Entry]:
    """The entries that are there."""
    entries: list[Entry] = []
    following = lease.entries()

    async def read() -> None:
        while True:
            entries.append(await anext(following))

    reading = asyncio.create_task(read())
    await wait_until(lambda: state_of(lease).waiting, "it has read all")
    reading.cancel()
    await asyncio.wait((reading,))
    return entries


# Importing.


@pytest.mark.parametrize(
    ("imported", "not_loaded"),
    [("redis_stream_client.testing", "pytest"), ("redis_stream_client", "redis_stream_client.testing")],
)
def test_what_importing_does_not_import(imported: str, not_loaded: str) -> None:
    code = f"import sys, {imported}; sys.exit({not_loaded!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0


# Leases.


def test_a_lease_is_made_without_an_event_loop() -> None:
    lease = testing.lease("call-17", info={"lang": "de", "ids": (1, 2)}, attempts=3)
    assert (lease.stream, lease.info, lease.attempts) == ("call-17", {"lang": "de", "ids": [1, 2]}, 3)
    assert lease.owned
    assert lease.position is None
    assert lease.deliveries == 3
    assert controller(lease).feed({"a": "b"}) == ["1-0"]


def test_each_lease_has_a_greater_fence_than_those_before() -> None:
    leases = [testing.lease("call-17", attempts=attempts) for attempts in (1, 5, 2, 1)]
    fences = [lease.fence for lease in leases]
    assert fences == sorted(set(fences))


async def test_fields_are_encoded_as_redis_py_does(redis: Connection) -> None:
    fields: dict[str, Any] = {"str": "é", "bytes": b"\xff", "int": 17, "float": 0.1, "large": 1e300, "empty": ""}
    await redis.xadd("call-17", fields)
    [(_, stored)] = await redis.xrange("call-17")
    [entry] = await read_all(testing.lease("call-17", entries=[fields]))
    assert entry.fields == stored
    [entry] = await read_all(testing.lease("call-17", entries=[{b"name": b"value"}]))
    assert entry.text() == {"name": "value"}


async def test_ids_go_on_after_the_greatest_so_far() -> None:
    lease = testing.lease("call-17", entries=[{"a": 1}, Entry("7-5", {b"a": b"2"}), {"a": 3}])
    assert controller(lease).feed({"a": 4}, Entry("9-1", {b"a": b"5"})) == ["9-0", "9-1"]
    assert [entry.id for entry in await read_all(lease)] == ["1-0", "7-5", "8-0", "9-0", "9-1"]


@pytest.mark.parametrize(
    ("entries", "position", "fed", "seen"),
    [
        ([{"a": 1}, {"a": 2}, {"a": 3}], "2-0", "4-0", ["3-0", "4-0"]),
        ([], "2-7", "3-0", ["3-0"]),
        ([{"a": 1}], "5-0", "6-0", ["6-0"]),
    ],
)
async def test_what_is_fed_comes_after_the_position(
    entries: list[dict[str, int]], position: str, fed: str, seen: list[str]
) -> None:
    lease = testing.lease("call-17", entries=entries, position=position)
    assert controller(lease).position == position
    assert controller(lease).feed({"a": "next"}) == [fed]
    assert [entry.id for entry in await read_all(lease)] == seen


@pytest.mark.parametrize(
    ("options", "attempts"),
    [({}, 1), ({"attempts": 3}, 3), ({"failures": 2}, 3), ({"deaths": 2}, 3), ({"failures": 1, "deaths": 2}, 4)],
)
async def test_attempts_are_failures_and_deaths_and_this_one(options: dict[str, int], attempts: int) -> None:
    lease = testing.lease("call-17", **options)  # type: ignore[arg-type]  # all of these are numbers
    assert lease.attempts == attempts
    outcome = await testing.run_handler(says_no, lease)
    assert (outcome.status, outcome.attempts) == ("failed", attempts)
    assert testing.controller(lease).attempts == attempts


async def says_no(lease: Lease) -> None:
    """A handler that fails."""
    raise LookupError


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stream": ""}, ValueError, "stream must not be empty"),
        ({"stream": 17}, TypeError, "stream must be a str"),
        ({"info": [1]}, TypeError, "info must be a mapping"),
        ({"info": {"a": object()}}, TypeError, "info must be JSON"),
        ({"position": "latest"}, ValueError, "is not an entry's id"),
        ({"position": 17}, TypeError, "an entry's id must be a str"),
        ({"attempts": 0}, ValueError, "attempts must be at least 1"),
        ({"attempts": "1"}, TypeError, "attempts must be an int"),
        ({"failures": -1}, ValueError, "failures must be at least 0, not -1"),
        ({"failures": True}, TypeError, "failures must be an int"),
        ({"deaths": -1}, ValueError, "deaths must be at least 0, not -1"),
        ({"deaths": None}, TypeError, "deaths must be an int"),
        ({"attempts": 3, "failures": 1}, ValueError, r"attempts must be 1 \+ failures \+ deaths = 2, not 3"),
        ({"attempts": 2, "deaths": 2}, ValueError, r"attempts must be 1 \+ failures \+ deaths = 3, not 2"),
        ({"failing_for": 60}, ValueError, "failing_for needs failures or deaths"),
        ({"failures": 1, "failing_for": -1}, ValueError, "failing_for must be between 0 s and"),
        ({"entries": {"a": 1}}, TypeError, "an iterable of entries, not one entry"),
        ({"entries": Entry("1-0", {b"a": b""})}, TypeError, "an iterable of entries, not one entry"),
        ({"entries": ["a"]}, TypeError, "must be an Entry or a mapping of its fields, not str"),
        ({"entries": [{}]}, ValueError, "an entry must have a field"),
        ({"entries": [{"a": None}]}, TypeError, "as redis-py takes them, not NoneType"),
        ({"entries": [{"a": True}]}, TypeError, "as redis-py takes them, not bool"),
        ({"entries": [{"a": 1}, Entry("1-0", {b"a": b""})]}, ValueError, "1-0 must be greater than 1-0"),
        ({"entries": [Entry("0-0", {b"a": b""})]}, ValueError, "0-0 must be greater than 0-0"),
        ({"entries": [Entry("one", {b"a": b""})]}, ValueError, "is not an entry's id"),
    ],
)
def test_what_can_never_be_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"stream": "call-17", **arguments}
    with pytest.raises(error, match=message):
        testing.lease(**arguments)


def test_feeding_what_is_not_accepted_feeds_nothing() -> None:
    control = controller(testing.lease("call-17"))
    nothing: Any = None
    with pytest.raises(TypeError):
        control.feed({"a": 1}, {"a": nothing})
    assert control.feed({"a": 1}) == ["1-0"]


# Control.


async def test_only_leases_of_its_own_are_controlled(redis: Connection, service: str) -> None:
    with pytest.raises(TypeError, match=r"testing\.lease\(\), not str"):
        controller("call-17")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with RedisStreamClient(redis, service) as client:
        await LoadBalancerStream(redis, service).add("call-17")
        added = await next_event(client, StreamAdded)
        with pytest.raises(ValueError, match="belongs to a client"):
            controller(added.payload)
        with pytest.raises(ValueError, match="belongs to a client"):
            await run_handler(return_at_once, added.payload)
        assert added.payload.owned


def test_what_has_happened_is_known_from_the_beginning() -> None:
    control = controller(testing.lease("call-17", position="5-0", attempts=3))
    assert (control.position, control.attempts, control.checkpoints) == ("5-0", 2, ())
    assert (control.done, control.released, control.dead) == (False, False, None)
    assert "position=5-0" in repr(control)
    control = controller(testing.lease("call-17"))
    assert (control.position, control.attempts) == (None, 0)


async def test_accepted_checkpoints_are_listed_the_late_ones_too() -> None:
    lease = testing.lease("call-17")
    control = controller(lease)
    for id in ("2-0", "1-0", "3-0"):
        await lease.checkpoint(id)
    with control.unavailable(), pytest.raises(RedisUnavailable):
        await lease.checkpoint("4-0")
    control.refuse_checkpoint()
    with pytest.raises(NotOwner):
        await lease.checkpoint("5-0")
    assert control.checkpoints == ("2-0", "1-0", "3-0")
    assert control.position == "3-0"


@pytest.mark.parametrize("reason", ["expired", "claimed", "gone", "superseded", "closed"])
async def test_a_lease_may_be_lost_for_every_reason_for_which_leases_are_lost(reason: Any) -> None:
    lease = testing.lease("call-17")
    running = asyncio.create_task(run_handler(sleep, lease))
    await wait_until(lambda: state_of(lease).cancel_scope, "it works")
    controller(lease).lose(reason)
    assert (await running).status == "lost"
    assert await lease.lost() == reason


@pytest.mark.parametrize("reason", ["done", "released", "dead", "stolen", None])
def test_a_lease_is_lost_for_no_other_reason(reason: Any) -> None:
    lease = testing.lease("call-17")
    with pytest.raises(ValueError, match="one of expired, claimed, gone, superseded, closed"):
        controller(lease).lose(reason)
    assert lease.owned


async def test_a_lease_that_has_ended_cannot_be_lost() -> None:
    lease = testing.lease("call-17")
    await lease.done()
    controller(lease).lose()
    assert await lease.lost() == "done"
    assert controller(lease).done


def test_the_reasons_are_all_those_that_are_not_the_holder_s_doing() -> None:
    assert {*get_args(testing.Loss), *ENDED} == {*get_args(LossReason)}


async def test_outages_may_overlap() -> None:
    lease = testing.lease("call-17")
    control = controller(lease)
    with control.unavailable():
        with control.unavailable():
            pass
        with pytest.raises(RedisUnavailable):
            await lease.checkpoint("1-0")
    await lease.checkpoint("1-0")


async def test_an_outage_holds_back_entries_that_are_there_already() -> None:
    lease = testing.lease("call-17", entries=[{"a": 1}, {"a": 2}])
    entries = lease.entries()
    await anext(entries)
    with controller(lease).unavailable():
        step = asyncio.ensure_future(anext(entries))
        await wait_until(lambda: state_of(lease).waiting, "it waits")
        assert not step.done()
    assert (await step).id == "2-0"


async def test_a_handler_begins_after_an_outage() -> None:
    lease = testing.lease("call-17")
    with controller(lease).unavailable():
        running = asyncio.create_task(run_handler(return_at_once, lease))
        await wait_until(lambda: state_of(lease).cancel_scope, "it is about to begin")
    assert (await running).status == "done"


async def test_in_doubt_a_lease_is_not_owned_and_all_that_is_asked_waits() -> None:
    lease = testing.lease("call-17", entries=[{"a": 1}, {"a": 2}])
    with controller(lease).in_doubt():
        assert not lease.owned
        asked = [asyncio.ensure_future(asked) for asked in (lease.checkpoint("1-0"), anext(lease.entries()))]
        _, waiting = await asyncio.wait(asked, timeout=0.05)
        assert len(waiting) == 2
    await asyncio.wait(asked)
    assert lease.owned
    assert controller(lease).position == "1-0"


@pytest.mark.parametrize("end", ["done", "released"])
async def test_an_end_that_was_said_in_doubt_is_accepted_after_it_also_if_nobody_waits(end: str) -> None:
    lease = testing.lease("call-17")
    control = controller(lease)
    with control.in_doubt():
        ending = asyncio.ensure_future(lease.done() if end == "done" else lease.release())
        await asyncio.wait((ending,), timeout=0.05)
        assert not ending.done()
        ending.cancel()
        await asyncio.wait((ending,))
        assert (control.done, control.released) == (False, False)
    await wait_until(lambda: control.done or control.released, "it is accepted")
    assert await lease.lost() == end


async def test_a_lease_that_is_lost_in_doubt_says_so_at_once() -> None:
    lease = testing.lease("call-17", entries=[{"a": 1}])
    with controller(lease).in_doubt():
        asked = [asyncio.ensure_future(asked) for asked in (lease.checkpoint("1-0"), lease.done())]
        await asyncio.sleep(0)
        controller(lease).lose("expired")
        for task in asked:
            with pytest.raises(NotOwner, match="expired"):
                await task
    assert not lease.owned


# Running.


class Handler:
    async def __call__(self, lease: Lease) -> None:
        await lease.checkpoint("1-0")

    async def method(self, lease: Lease) -> None:
        await lease.checkpoint("1-0")


async def with_arguments(number: int, lease: Lease) -> None:
    await lease.checkpoint(f"{number}-0")


@pytest.mark.parametrize("handler", [Handler(), Handler().method, functools.partial(with_arguments, 1)])
async def test_a_handler_is_any_async_callable(handler: Callable[[Lease], Awaitable[object]]) -> None:
    assert (await run_handler(handler, testing.lease("call-17"))).position == "1-0"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"handler": print}, TypeError, "handler must be an async callable"),
        ({"lease": "call-17"}, TypeError, "a lease is needed"),
        ({"retry": 3}, TypeError, "retry must be a RetryPolicy, not int"),
        ({"retry": RetryPolicy(), "max_attempts": 3}, ValueError, "give retry or max_attempts, not both"),
        ({"max_attempts": 0}, ValueError, "max_attempts must be at least 1"),
        ({"progress_timeout": 0}, ValueError, "progress_timeout must be between"),
        ({"drain_timeout": -1}, ValueError, "drain_timeout must be between"),
        ({"patience": "long"}, TypeError, "patience must be a number of seconds"),
    ],
)
async def test_arguments_are_checked(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    lease = testing.lease("call-17")
    arguments = {"handler": return_at_once, "lease": lease, **arguments}
    with pytest.raises(error, match=message):
        await run_handler(**arguments)
    assert lease.owned


async def test_a_lease_is_handled_once() -> None:
    lease = testing.lease("call-17")
    await run_handler(return_at_once, lease)
    with pytest.raises(RuntimeError, match="a lease is entered once"):
        await run_handler(return_at_once, lease)


async def test_a_lease_that_was_lost_before_is_not_handled() -> None:
    lease = testing.lease("call-17")
    controller(lease).lose()
    outcome = await run_handler(sleep, lease)
    assert (outcome.status, type(outcome.error)) == ("lost", NotOwner)


async def test_failures_need_no_pauses() -> None:
    async def fail(lease: Lease) -> None:
        raise LookupError

    async with asyncio.timeout(10):  # with the pauses of a client, a minute at least
        for _ in range(30):
            lease = testing.lease("call-17", attempts=15)
            assert (await run_handler(fail, lease)).status == "failed"


async def test_a_drain_before_the_beginning_spares_the_handler() -> None:
    lease = testing.lease("call-17", attempts=3)
    controller(lease).drain()
    controller(lease).drain()
    outcome = await run_handler(sleep, lease)
    assert (outcome.status, outcome.error) == ("drained", None)
    assert controller(lease).released


async def test_a_handler_may_be_drained_from_within() -> None:
    async def handler(lease: Lease) -> None:
        async for entry in lease.entries():
            controller(lease).drain()
            await lease.checkpoint(entry.id)

    outcome = await run_handler(handler, testing.lease("call-17", entries=[{"a": 1}, {"a": 2}]))
    assert (outcome.status, outcome.position) == ("drained", "1-0")


async def test_a_handler_that_ignores_its_cancellation_is_waited_for_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lease = testing.lease("call-17")
    ignored = False

    async def handler(lease: Lease) -> None:
        nonlocal ignored
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FOR_EVER)
        await wait_until(lambda: controller(lease).released, "the stream was released without it")
        ignored = True

    running = asyncio.create_task(run_handler(handler, lease, drain_timeout=0.0, patience=0.05))
    await wait_until(lambda: state_of(lease).cancel_scope, "it works")
    with caplog.at_level(logging.WARNING, "redis_stream_client"):
        controller(lease).drain()
        assert (await running).status == "drained"
    assert ignored
    assert any("the handler of call-17 ignores its cancellation" in message for message in caplog.messages)


async def test_cancelling_does_not_wait_for_a_handler_that_ignores_it(caplog: pytest.LogCaptureFixture) -> None:
    lease = testing.lease("call-17")
    go_on = asyncio.Event()
    ended = asyncio.Event()

    async def handler(lease: Lease) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FOR_EVER)
        await go_on.wait()
        ended.set()

    running = asyncio.create_task(run_handler(handler, lease, patience=FOR_EVER))
    await wait_until(lambda: state_of(lease).cancel_scope, "it works")
    running.cancel()
    await asyncio.wait((running,))
    assert running.cancelled()
    await wait_until(lambda: controller(lease).released, "the stream was released without it")
    assert any("goes on after the end" in message for message in caplog.messages)
    go_on.set()
    await ended.wait()
    await asyncio.sleep(0)


@pytest.mark.parametrize("rounds", range(6))
async def test_cancelling_early_releases_too(rounds: int) -> None:
    lease = testing.lease("call-17")
    running = asyncio.create_task(run_handler(sleep, lease))
    for _ in range(rounds):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait((running,))
    assert running.cancelled()
    assert controller(lease).released == (rounds > 0 or task_kind() == "eager")


async def test_outcomes_of_many_leases_at_once_are_kept_apart() -> None:
    leases = [testing.lease(f"call-{i}", entries=[{"a": j} for j in range(i)]) for i in range(50)]
    running = [asyncio.create_task(run_handler(follow, lease)) for lease in leases]
    await wait_until(lambda: all(state_of(lease).waiting for lease in leases), "all have read all")
    for lease in leases:
        controller(lease).drain()
    positions = [outcome.position for outcome in await asyncio.gather(*running)]
    assert positions == [None, *(f"{i}-0" for i in range(1, 50))]


class Notes(Observer):
    """Notes what it is told of a handler."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    @contextlib.contextmanager
    def handling(self, start: HandlerStart) -> Generator[None]:
        """The handler is called and has ended."""
        self.told.append(start)
        yield

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """It is told."""
        self.told.append(checkpoint)

    def failed(self, failure: Failure) -> None:
        """It is told."""
        self.told.append(failure)

    def buried(self, burial: Burial) -> None:
        """It is told."""
        self.told.append(burial)

    def handler_ended(self, end: HandlerEnd) -> None:
        """It is told."""
        self.told.append(end)


async def test_an_observer_is_told_what_a_client_tells_it() -> None:
    async def fails(lease: Lease) -> None:
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)
            if entry.id == "2-0":
                raise LookupError(entry.id)

    notes, call = Notes(), testing.lease("call-1", entries=[{"n": 1}, {"n": 2}], info={"a": 1})
    outcome = await run_handler(fails, call, retry=RetryPolicy(max_attempts=1, patience=0), observer=notes)
    assert outcome.status == "failed", "the checkpoint has advanced, so this was the first failure"
    start, first, second, failure, end = notes.told
    assert (start.stream, start.info, start.gain) == ("call-1", {"a": 1}, None)
    assert [(each.id, each.entries) for each in (first, second)] == [("1-0", 1), ("2-0", 1)]
    assert (failure.error, failure.stalled) == ("LookupError", False)
    assert (end.start, end.outcome, end.error) == (start, outcome.status, outcome.error)


def test_each_test_framework_s_loop_will_do() -> None:
    lease = testing.lease("call-17", entries=[{"a": 1}])
    control = controller(lease)

    async def scene() -> None:
        running = asyncio.create_task(run_handler(follow, lease))
        await wait_until(lambda: control.position == "1-0", "it has read one")
        control.lose()
        assert (await running).status == "lost"

    asyncio.run(scene())
    assert isinstance(control, Controller)


# Waiting.


async def test_waiting_returns_the_first_truthy_value() -> None:
    values: Iterator[object] = iter([None, 0, [], "found"])
    assert await wait_until(lambda: next(values), "it comes") == "found"


async def test_a_condition_may_be_awaitable() -> None:
    values = iter([None, "found"])

    async def condition() -> str | None:
        return next(values)

    assert await wait_until(condition, "it comes") == "found"


async def test_waiting_in_vain_says_for_what_and_what_was_seen_last() -> None:
    with pytest.raises(AssertionError) as caught:
        await wait_until(list, "pigs fly", timeout=0.01)
    assert str(caught.value) == "not within 0.01 s: pigs fly (last value: [])"


async def test_a_condition_is_looked_at_once_more_when_the_time_is_over() -> None:
    looks = 0

    async def slow() -> bool:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.05)
        return looks == 2

    assert await wait_until(slow, "the second look", timeout=0.01)


# Expiring.


async def test_a_client_whose_lock_expires_resumes_and_keeps_what_nobody_took(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, lock_ttl=1.0) as member:
        await announce(server.url, service, "call-17")
        await member.owns("call-17")
        lease = member.lease("call-17")
        await expire(redis, service, member.client.id)
        await wait_until(lambda: member.client.statistics().lapses, "it knows that its lock expired")
        await wait_until(lambda: member.client.alive, "it has resumed")
        assert lease.owned
        await lease.done()
        assert member.disowned == []


async def test_a_client_whose_lock_expires_learns_what_a_peer_took(
    server: Server, proxy: TcpProxy, redis: Connection, service: str
) -> None:
    async with RedisStreamClient.from_url(proxy.url, service, lock_ttl=LONG) as victim:
        await announce(server.url, service, "call-17")
        added = await next_event(victim, StreamAdded)
        async with RedisStreamClient(redis, service, lock_ttl=LONG) as peer:
            proxy.freeze()  # so that the peer is first
            await expire(redis, service, victim.id)
            offer = await next_event(peer, StreamExpired)
            assert offer.payload.previous_owner == victim.id
            lease = await peer.claim(offer.payload)
            proxy.thaw()
            disowned = await next_event(victim, StreamDisowned)
            assert (disowned.payload, disowned.reason) == (added.payload, "claimed")
            await lease.done()


async def test_the_streams_of_a_frozen_consumer_are_offered_at_once(
    server: Server, redis: Connection, service: str, start_worker: Callable[..., Awaitable[Worker]]
) -> None:
    worker = await (await start_worker(lock_ttl=LONG)).joined()
    await announce(server.url, service, "call-17")
    await worker.wait_for_event(lambda event: event.event == "added")
    worker.freeze()
    async with RedisStreamClient(redis, service, lock_ttl=LONG) as peer:
        await expire(redis, service, worker.client)
        offer = await next_event(peer, StreamExpired)
        assert (offer.payload.stream, offer.payload.previous_owner) == ("call-17", worker.client)
        lease = await peer.claim(offer.payload)
        worker.thaw()
        disowned = await worker.wait_for_event(lambda event: event.event == "disowned")
        assert disowned.stream == "call-17"
        await lease.done()


async def test_peers_are_notified_of_an_expiry(redis: Connection, service: str) -> None:
    keys = Keys(service)
    async with RedisStreamClient(redis, service, lock_ttl=LONG), redis.pubsub() as ears:
        await redis.set(keys.lock("redis-consumer-other-00000000"), "{}", ex=60)
        await ears.psubscribe(keys.lock_events(0))
        await ears.get_message(timeout=5)
        await expire(redis, service, "redis-consumer-other-00000000")
        heard = await ears.get_message(timeout=5)
        assert keys.consumer_of(heard["channel"], 0) == "redis-consumer-other-00000000"
        assert heard["data"] == b"expired"
    assert not await redis.exists(keys.lock("redis-consumer-other-00000000"))


@pytest.mark.parametrize("settings", [{"decode_responses": True}, {"protocol": 2}, {"protocol": 3}])
async def test_the_settings_of_the_connection_do_not_matter(
    server: Server, service: str, settings: dict[str, Any]
) -> None:
    async with Redis.from_url(server.url, **settings) as redis:
        await redis.set(Keys(service).lock("consumer"), "{}")
        await expire(redis, service, "consumer")
        assert not await redis.exists(Keys(service).lock("consumer"))


async def test_a_lock_in_a_cluster_expires_too(cluster: Cluster, service: str) -> None:
    redis = RedisCluster.from_url(cluster.url)
    async with redis, RedisStreamClient(redis, service, lock_ttl=LONG) as client:
        await expire(redis, service, client.id)
        await wait_until(lambda: client.statistics().lapses, "it knows that its lock expired")


@pytest.mark.parametrize("consumer", ["redis-consumer-nobody-00000000", "", "*"])
async def test_who_has_no_lock_is_named(redis: Connection, service: str, consumer: str) -> None:
    with pytest.raises(LookupError, match="holds no lock"):
        await expire(redis, service, consumer)


async def test_arguments_of_expire_are_checked(redis: Connection, service: str) -> None:
    anything: Any = object()
    with pytest.raises(TypeError, match="redis must be"):
        await expire(anything, service, "consumer")
    with pytest.raises(ValueError, match="service must not be empty"):
        await expire(redis, "", "consumer")
    with pytest.raises(TypeError, match=r"pass client\.id"):
        await expire(redis, service, anything)


async def test_expire_says_when_there_is_no_answer(service: str) -> None:
    async with Redis.from_url("redis://127.0.0.1:1") as redis:
        with pytest.raises(RedisUnavailable, match="could not expire a lock"):
            await expire(redis, service, "consumer")
