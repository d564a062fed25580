"""What observers are told of a fleet, each method by what moves it, and what a producer's observer gives."""

from __future__ import annotations

import contextlib
import contextvars
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import (
    AlreadyClaimed,
    ExpiredStream,
    Fleet,
    LoadBalancerStream,
    Observer,
    Rebalance,
    RedisStreamClient,
    RetryPolicy,
)
from redis_stream_client._model.keys import Keys
from tests.harness.fleet import Member, announce
from tests.harness.runs import Running, RunningFleet, RunWorker, fail_alone, shared_out
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping

    from redis_stream_client import HandlerStart, Lease, Pause
    from tests.harness.connection import Connection
    from tests.harness.servers import Server
    from tests.harness.workers import Worker

    StartWorker = Callable[..., Awaitable[Worker]]

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPAN: contextvars.ContextVar[str] = contextvars.ContextVar("SPAN", default="none")


class Notes(Observer):
    """Notes what it is told, by the name of the method."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def of(self, method: str, stream: str = "") -> list[Any]:
        """What this method was told, of this stream."""
        return [value for name, value in self.told if name == method and (not stream or value.stream == stream)]

    async def one(self, method: str, stream: str = "") -> Any:
        """Wait until this method was told of this stream, and return that."""
        (value,) = await wait_until(lambda: self.of(method, stream), f"{method} {stream} is told")
        return value

    @contextlib.contextmanager
    def handling(self, start: HandlerStart) -> Generator[None]:
        """Set a variable in the handler's own context."""
        token = SPAN.set(start.stream)
        try:
            yield
        finally:
            SPAN.reset(token)
            self.told.append(("handling", start))


def _noting(method: str) -> Any:
    def note(self: Notes, value: Any) -> None:
        self.told.append((method, value))

    return note


for _method in (
    "gained", "lost", "ended", "claim_lost", "lapsed", "handler_started", "handler_ended", "checkpoint", "failed",
    "buried",
):  # fmt: skip
    setattr(Notes, _method, _noting(_method))


class Tracing(Observer):
    """The observer of a producer."""

    def __init__(self, carrier: Mapping[str, str]) -> None:
        self._carrier = carrier

    def carrier(self) -> Mapping[str, str]:
        """What the announcements carry."""
        return self._carrier


async def test_the_life_of_a_stream_and_its_handler(server: Server, redis: Connection, service: str) -> None:
    spans: list[str] = []

    async def handle(lease: Lease) -> None:
        spans.append(SPAN.get())
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)
            if b"end" in entry.fields:
                return

    notes = Notes()
    async with Running(server.url, service, handle, observer=notes) as run:
        await redis.xadd("call-1", {"n": 1})
        last = await redis.xadd("call-1", {"end": ""})
        producer = LoadBalancerStream(redis, service, observer=Tracing({"traceparent": PARENT, "secret": "x"}))
        lbs_id = await producer.add("call-1", {"tenant": "a"})
        end = await notes.one("handler_ended")
    (gain,), (ending,) = notes.of("gained"), notes.of("ended")
    assert (gain.consumer, gain.stream, gain.lbs_id) == (run.client.id, "call-1", lbs_id)
    assert (gain.how, gain.previous, gain.silent_for) == ("announced", None, None)
    assert gain.carrier == {"traceparent": PARENT}
    (start,) = notes.of("handler_started")
    assert (start.gain, start.fence, start.attempts, start.info) == (gain, gain.fence, 1, {"tenant": "a"})
    assert notes.of("handling") == [start]
    assert spans == ["call-1"]
    checkpoints = notes.of("checkpoint")
    assert (checkpoints[-1].id, sum(each.entries for each in checkpoints)) == (last.decode(), 2)
    assert all(0 <= each.lag < 60 for each in checkpoints)
    assert (ending.how, ending.fence) == ("done", gain.fence)
    assert (end.start, end.outcome, end.error) == (start, "done", None)
    order = [name for name, _ in notes.told if name != "checkpoint"]
    assert order == ["gained", "handler_started", "handling", "ended", "handler_ended"]


async def test_streams_that_fail_or_sleep_or_are_lost(server: Server, redis: Connection, service: str) -> None:
    async def handle(lease: Lease) -> None:
        if lease.stream == "poor":
            raise LookupError(lease.stream)
        if lease.stream == "sleepy":
            assert await lease.done_if_idle()
        if lease.stream == "lost":
            async for _ in lease.entries():
                pass

    keys, notes = Keys(service), Notes()
    retry = RetryPolicy(max_attempts=1, patience=0.0)
    async with Running(server.url, service, handle, observer=notes, retry=retry) as run:
        await fail_alone(run, redis, service, ["poor"])
        failure, burial = await notes.one("failed"), await notes.one("buried")
        assert (failure.stream, failure.stalled, failure.error, failure.failures) == (
            "poor",
            False,
            "LookupError",
            1,
        )
        assert (burial.stream, burial.why, burial.error) == ("poor", "failures", "LookupError")
        assert (await notes.one("ended", "poor")).how == "buried"
        end = notes.of("handler_ended")[0]
        assert (end.outcome, type(end.error)) == ("dead", LookupError)

        await announce(server.url, service, "sleepy")
        assert (await notes.one("ended", "sleepy")).how == "slept"

        malformed = await redis.xadd(keys.lbs, {"lbs-input": "{"})
        await wait_until(lambda: len(notes.of("buried")) == 2, "the malformed announcement is told")
        burial = notes.of("buried")[1]
        assert (burial.lbs_id, burial.stream, burial.why) == (malformed.decode(), None, "malformed")

        (lbs_id,) = await announce(server.url, service, "lost")
        await run.lease("lost")
        await redis.set(keys.lock("peer"), '{"ttl": 60000}', px=60_000)
        await redis.xclaim(keys.lbs, keys.group, "peer", 0, [lbs_id])
        await redis.delete(keys.lock(run.client.id))
        loss = await notes.one("lost")
        assert (loss.stream, loss.reason, loss.to) == ("lost", "claimed", "peer")
        assert [lapse.cause for lapse in notes.of("lapsed")] == ["missing"]


async def test_streams_of_the_dead_and_of_those_that_gave_them_back(
    server: Server, redis: Connection, service: str
) -> None:
    keys, notes = Keys(service), Notes()
    await redis.xgroup_create(keys.lbs, keys.group, "0", mkstream=True)
    await announce(server.url, service, "of-the-dead", "given-back")
    for consumer in ("redis-consumer-dead-00000000", "nobody"):
        await redis.xreadgroup(keys.group, consumer, {keys.lbs: ">"}, count=1)
    async with Running(server.url, service, observer=notes, lock_ttl=0.4):
        gain = await notes.one("gained", "of-the-dead")
        assert (gain.how, gain.previous) == ("claimed", "redis-consumer-dead-00000000")
        assert gain.silent_for >= 0.4
        gain = await notes.one("gained", "given-back")
        assert (gain.how, gain.previous) == ("claimed", None)
        assert 0 <= gain.silent_for < 30
        start = await wait_until(lambda: notes.of("handler_started", "given-back"), "its handler has begun")
        assert start[0].gain == gain
        assert start[0].waited >= 0


@pytest.mark.parametrize("presence", [True, False])
async def test_a_process_that_was_killed_was_silent_since_then(
    server: Server, redis: Connection, service: str, start_worker: StartWorker, presence: bool
) -> None:
    notes = Notes()
    worker = await (await start_worker(RunWorker, lock_ttl=0.8, presence=presence)).joined()
    await announce(server.url, service, "call-1")
    await worker.wait_for_event(lambda event: event.event == "handling")
    async with Running(server.url, service, observer=notes, lock_ttl=0.8):
        worker.kill()
        gain = await notes.one("gained")
    assert (gain.how, gain.previous) == ("claimed", worker.client)
    assert gain.silent_for > 0.1  # by presence, soon; by the lock, after its lifetime
    assert presence or gain.silent_for >= 0.8


async def test_streams_that_go_to_a_peer_with_fewer(server: Server, redis: Connection, service: str) -> None:
    notes = Notes()
    async with RunningFleet(server, service, rebalance=Rebalance(settle=0.2), observer=notes) as fleet:
        (first,) = await fleet.join()
        await shared_out(redis, service, fleet.now, [f"call-{n}" for n in range(6)])
        (second,) = await fleet.join()
        await fleet.even(6)
        given = {ending.stream for ending in notes.of("ended") if ending.how == "given"}
        received = [gain for gain in notes.of("gained") if gain.how == "rebalanced"]
        assert {gain.stream for gain in received} == given == set(second.owned)
        assert {gain.consumer for gain in received} == {second.client.id}
        assert {ending.consumer for ending in notes.of("ended")} == {first.client.id}
        await fleet.leave(first)  # just after the second has asked
        await second.handles(*(f"call-{n}" for n in range(6)))
        released = [ending for ending in notes.of("ended") if ending.how == "released"]
        claimed = [gain for gain in notes.of("gained") if gain.how == "claimed"]
        assert {gain.stream for gain in claimed} == {ending.stream for ending in released}
        assert len(claimed) == 3
    assert all(gain.silent_for is not None for gain in received)


async def test_claims_of_the_user(server: Server, redis: Connection, service: str) -> None:
    notes = Notes()
    async with Member(server.url, service, observer=notes) as member:
        (lbs_id,) = await announce(server.url, service, "call-1")
        await member.owns("call-1")
        with pytest.raises(AlreadyClaimed):
            await member.client.claim(ExpiredStream("call-1", lbs_id, None, "somebody", 1))
        (refused,) = notes.of("claim_lost")
        assert (refused.stream, refused.lbs_id, refused.owner) == ("call-1", lbs_id, member.client.id)
        await member.lease("call-1").release()
        await member.owns("call-1")  # after a while it takes the stream back
    assert [ending.how for ending in notes.of("ended")] == ["released"]
    assert [(gain.how, gain.previous) for gain in notes.of("gained")] == [("announced", None), ("claimed", None)]
    assert notes.of("gained")[1].silent_for is not None
    assert [(loss.reason, loss.to) for loss in notes.of("lost")] == [("closed", None)]


async def test_a_pause_of_the_fleet(server: Server, redis: Connection, service: str) -> None:
    told: list[tuple[str, str, str]] = []

    class Pauses(Observer):
        def paused(self, consumer: str, pause: Pause) -> None:
            told.append(("paused", consumer, pause.reason))

        def resumed(self, consumer: str, pause: Pause) -> None:
            told.append(("resumed", consumer, pause.reason))

    fleet = Fleet(redis, service)
    async with Running(server.url, service, observer=Pauses()) as run:
        await fleet.pause("a bad deploy")
        await wait_until(lambda: len(told) == 1, "the pause is told")
        await fleet.resume()
        await wait_until(lambda: len(told) == 2, "its end is told")
        assert told == [(what, run.client.id, "a bad deploy") for what in ("paused", "resumed")]


async def test_write_carries_what_add_carries(server: Server, redis: Connection, service: str) -> None:
    notes = Notes()
    producer = LoadBalancerStream(redis, service, observer=Tracing({"traceparent": PARENT, "tracestate": "a=b"}))
    await producer.write("call-1", {"n": 1})
    await producer.write_many([("call-2", {"n": 1})])
    await producer.add_many(["call-3"])
    await producer.add("call-4", again=True)
    async with RedisStreamClient(redis, service, observer=notes):
        await wait_until(lambda: len(notes.of("gained")) == 4, "all have come")
    assert [gain.carrier for gain in notes.of("gained")] == 4 * [{"traceparent": PARENT, "tracestate": "a=b"}]


async def test_a_broken_observer_breaks_nothing(server: Server, redis: Connection, service: str) -> None:
    class Broken(Observer):
        pass

    def fail(*_: object) -> None:
        raise RuntimeError("the observer's")

    for name in vars(Observer):
        if not name.startswith("_"):
            setattr(Broken, name, fail)
    done: list[str] = []

    async def handle(lease: Lease) -> None:
        async for entry in lease.entries():
            await lease.checkpoint(entry.id)
            done.append(lease.stream)
            return

    async with Running(server.url, service, handle, observer=Broken()) as run:
        await LoadBalancerStream(redis, service, observer=Broken()).write("call-1", {"n": 1})
        await wait_until(lambda: run.client.statistics().streams_done, "it is done")
    assert done == ["call-1"]
