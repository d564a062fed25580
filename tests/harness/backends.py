"""Where a lease may come from: a client of a real server, or `redis_stream_client.testing`.

Both offer the same verbs, so that one contract can be tested on both. An instance is good for one stream.
"""

# ruff: noqa: D102 - `Backend` says what its methods do

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import pytest

from redis_stream_client import Fence, Lease, StreamAdded, testing
from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.state import ENDED
from redis_stream_client._model import letter_details
from redis_stream_client._model.keys import NOBODY, Keys
from redis_stream_client._protocol import scripts
from redis_stream_client._run.handler_task import HandlerTask
from redis_stream_client.testing._memory import MemoryLease
from tests.harness.leases import OpenClient, state_of
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from redis_stream_client._model.letter_details import LetterDetails
    from redis_stream_client._run.handler import Handler
    from redis_stream_client.testing import Outcome
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy

STREAM = "call-17"
LBS_ID = "1000-0"
THIEF = "redis-consumer-thief-00c0ffee"
LOCK_TTL = 1.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What is stored about the stream.

    Attributes:
        state: whose it is: "ours", "a peer's", "done", "released" or "dead".
        reason: why it is dead.
        position: the stored checkpoint.
        attempts: the stored attempts, and the failures that were taken out of them.
    """

    state: str
    reason: str | None
    position: str | None
    attempts: int


class Backend(Protocol):
    """A stream, its lease, and what may happen to it."""

    async def own(
        self,
        entries: Iterable[Mapping[str, str]] = (),
        *,
        info: Mapping[str, Any] | None = None,
        position: str | None = None,
        attempts: int = 1,
        deaths: int = 0,
        failing_for: float = 0.0,
    ) -> Lease:
        """Become the stream's owner by the event interface."""
        ...

    async def start(
        self,
        handler: Handler,
        entries: Iterable[Mapping[str, str]] = (),
        *,
        position: str | None = None,
        attempts: int = 1,
        deaths: int = 0,
        failing_for: float = 0.0,
        **rules: Any,
    ) -> None:
        """Have a handler work on the stream, by the rules of `run()`, in the background."""
        ...

    async def outcome(self) -> Outcome:
        """Wait until the handler has ended; returns how."""
        ...

    async def cancel(self) -> None:
        """Cancel what `start` started, and wait for its end."""
        ...

    async def feed(self, *entries: Mapping[str, str]) -> list[str]:
        """Add entries to the stream."""
        ...

    async def lose(self) -> None:
        """A peer takes the stream; that is learnt soon."""
        ...

    async def overtake(self) -> None:
        """A peer takes the stream and begins; nobody hears of it."""
        ...

    def drain(self) -> None:
        """Drain what `start` started."""
        ...

    def unavailable(self) -> AbstractContextManager[None]:
        """Nothing about the stream is answered."""
        ...

    def answers_late(self) -> AbstractContextManager[None]:
        """What is stored is stored, but a checkpoint's answer arrives after this, or a turn later at least."""
        ...

    def doubt(self) -> AbstractAsyncContextManager[None]:
        """The lock is in doubt, and held again soon after the end."""
        ...

    async def facts(self) -> Facts:
        """What is stored."""
        ...

    async def letter(self) -> LetterDetails:
        """What the stream's dead letter says beyond its reason."""
        ...

    async def left(self) -> list[str] | None:
        """Ids of the entries that are in the stream; None: stream and record were deleted."""
        ...


class InMemory:
    """A lease of `redis_stream_client.testing`."""

    def __init__(self) -> None:
        self._lease: Lease | None = None
        self._running: asyncio.Task[Outcome] | None = None
        self._overtaken = False

    @property
    def _controller(self) -> testing.Controller:
        assert self._lease is not None
        return testing.controller(self._lease)

    async def own(self, entries: Iterable[Mapping[str, str]] = (), **options: Any) -> Lease:
        self._lease = testing.lease(STREAM, entries=entries, **options)
        return self._lease

    async def start(
        self,
        handler: Handler,
        entries: Iterable[Mapping[str, str]] = (),
        *,
        position: str | None = None,
        attempts: int = 1,
        deaths: int = 0,
        failing_for: float = 0.0,
        **rules: Any,
    ) -> None:
        options = {"failing_for": failing_for} if failing_for else {}
        lease = await self.own(entries, position=position, attempts=attempts, deaths=deaths, **options)
        self._running = asyncio.create_task(testing.run_handler(handler, lease, **rules))

    async def outcome(self) -> Outcome:
        assert self._running is not None
        return await self._running

    async def cancel(self) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait((self._running,))
        assert self._running.cancelled()

    async def feed(self, *entries: Mapping[str, str]) -> list[str]:
        return self._controller.feed(*entries)

    async def lose(self) -> None:
        self._controller.lose()

    async def overtake(self) -> None:
        self._controller.refuse_checkpoint()
        self._overtaken = True

    def drain(self) -> None:
        self._controller.drain()

    def unavailable(self) -> AbstractContextManager[None]:
        return self._controller.unavailable()

    def answers_late(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    @contextlib.asynccontextmanager
    async def doubt(self) -> AsyncGenerator[None]:
        with self._controller.in_doubt():
            yield

    async def facts(self) -> Facts:
        controller = self._controller
        assert self._lease is not None
        state = "ours"
        if controller.done:
            state = "done"
        elif controller.released:
            state = "released"
        elif controller.dead is not None:
            state = "dead"
        elif self._overtaken or state_of(self._lease).lost not in (None, *ENDED):
            state = "a peer's"
        return Facts(state, controller.dead, controller.position, controller.attempts)

    async def letter(self) -> LetterDetails:
        assert isinstance(self._lease, MemoryLease)
        details = self._lease.memory.details
        assert details is not None
        return details

    async def left(self) -> list[str] | None:
        controller = self._controller
        if controller.deleted:
            assert not controller.entries
            assert controller.position is None
            return None
        return [entry.id for entry in controller.entries]


class OnServer:
    """A lease of a client, whose connections lead through a proxy; `async with` closes the client.

    With `start`, the client takes nothing after the one stream, and leaves when its handler has ended: what is
    stored then is what the handler left behind.
    """

    def __init__(self, redis: Connection, proxy: TcpProxy, service: str) -> None:
        self._redis = redis
        self._proxy = proxy
        self._keys = Keys(service)
        self._client = OpenClient.from_url(proxy.url, service, lock_ttl=LOCK_TTL)
        self._running: asyncio.Task[None] | None = None
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._written = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()
        if self._running is not None:
            await asyncio.wait((self._running,))

    async def own(
        self,
        entries: Iterable[Mapping[str, str]] = (),
        *,
        info: Mapping[str, Any] | None = None,
        position: str | None = None,
        attempts: int = 1,
        deaths: int = 0,
        failing_for: float = 0.0,
    ) -> Lease:
        await self._announce(entries, info, position, attempts - 1 - deaths, deaths, failing_for)
        await self._client.__aenter__()
        event = await anext(self._client.events())
        assert isinstance(event, StreamAdded)
        return event.payload

    async def start(
        self,
        handler: Handler,
        entries: Iterable[Mapping[str, str]] = (),
        *,
        position: str | None = None,
        attempts: int = 1,
        deaths: int = 0,
        failing_for: float = 0.0,
        **rules: Any,
    ) -> None:
        await self._announce(entries, None, position, attempts - 1 - deaths, deaths, failing_for)
        self._running = asyncio.create_task(self._run(handler, rules))

    async def _announce(
        self,
        entries: Iterable[Mapping[str, str]],
        info: Any,
        position: str | None,
        failures: int,
        deaths: int,
        failing_for: float,
    ) -> None:
        await self.feed(*entries)
        if position is not None or failures or deaths:
            fence = str(Fence.of(LBS_ID, 0))
            before = {"fence": fence, "consumer": THIEF, "attempts": deaths}
            if position is not None:
                before["checkpoint"] = position
            if failures or deaths:
                seconds, microseconds = await self._redis.time()
                since = seconds * 1000 + microseconds // 1000 - round(failing_for * 1000)
                mark = f"{fence} {position or ''}"
                before |= {"failures": failures, "failing": since, "failed": mark, "error": "before"}
            await self._redis.hset(self._keys.progress(STREAM), mapping=before)
        announcement = json.dumps({"DataStreamName": STREAM, "Info": info})
        await self._redis.xadd(self._keys.lbs, {"lbs-input": announcement}, LBS_ID)

    async def _run(self, handler: Handler, rules: Mapping[str, Any]) -> None:
        work = HandlerTask.run

        async def run(handler_task: HandlerTask) -> Outcome:
            patch.setattr(Capacity, "free", 0)  # nothing more is taken, no stream taken back
            outcome = await work(handler_task)
            self._outcome.set_result(outcome)
            self._client.drain()
            return outcome

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HandlerTask, "run", run)
            await self._client.run(handler, **rules)

    async def outcome(self) -> Outcome:
        assert self._running is not None
        await asyncio.wait((self._outcome,))
        await self._running
        return self._outcome.result()

    async def cancel(self) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait((self._running,))
        assert self._running.cancelled()

    async def feed(self, *entries: Mapping[str, str]) -> list[str]:
        ids: list[str] = []
        for entry in entries:
            self._written += 1
            written: bytes = await self._redis.xadd(STREAM, entry, f"{self._written}-0")
            ids.append(written.decode())
        return ids

    async def _steal(self) -> None:
        await self._redis.set(self._keys.lock(THIEF), "{}")
        await self._redis.xclaim(self._keys.lbs, self._keys.group, THIEF, 0, [LBS_ID])

    async def lose(self) -> None:
        await self._steal()
        await self._redis.delete(self._keys.lock(self._client.id))

    async def overtake(self) -> None:
        await self._steal()
        newer = {"fence": str(Fence.of(LBS_ID, 2)), "consumer": THIEF}
        await self._redis.hset(self._keys.progress(STREAM), mapping=newer)

    def drain(self) -> None:
        self._client.drain()

    @contextlib.contextmanager
    def unavailable(self) -> Generator[None]:
        for script in (
            "begin", "checkpoint", "fail", "settle", "done", "release", "bury", "withhold", "doze",
        ):  # fmt: skip
            self._proxy.drop_requests_matching(scripts.load(script).sha.encode())
        self._proxy.drop_requests_matching(b"XREAD\r\n")
        yield
        self._proxy.heal()

    @contextlib.contextmanager
    def answers_late(self) -> Generator[None]:
        held = self._proxy.hold_replies_after(scripts.load("checkpoint").sha.encode(), connections=1)
        yield
        held.release()

    @contextlib.asynccontextmanager
    async def doubt(self) -> AsyncGenerator[None]:
        before = self._client.statistics().lapses
        await self._redis.delete(self._keys.lock(self._client.id))
        await wait_until(lambda: self._client.statistics().lapses > before, "it knows that its lock is gone")
        yield
        await wait_until(lambda: self._client.alive, "it has resumed")

    async def facts(self) -> Facts:
        keys = self._keys
        async with self._redis.pipeline(transaction=True) as all_at_once:
            all_at_once.xrange(keys.lbs)
            all_at_once.xpending_range(keys.lbs, keys.group, "-", "+", 2)
            all_at_once.xrange(keys.dead)
            all_at_once.hgetall(keys.progress(STREAM))
            announced, pending, dead, record = await all_at_once.execute()
        assert len(announced) == len(pending) <= 1 - len(dead)
        if dead:
            state = "dead"
        elif not announced:
            state = "done"
        else:
            owner = pending[0]["consumer"].decode()
            state = {NOBODY: "released", self._client.id: "ours", THIEF: "a peer's"}[owner]
        reason = dead[0][1][b"reason"].decode() if dead else None
        position = record[b"checkpoint"].decode() if b"checkpoint" in record else None
        tried = int(record.get(b"attempts", 0)) + int(record.get(b"failures", 0))
        return Facts(state, reason, position, tried)

    async def letter(self) -> LetterDetails:
        [(_, words)] = await self._redis.xrange(self._keys.dead)
        return letter_details.decode(words[b"letter-details"])

    async def left(self) -> list[str] | None:
        if not await self._redis.exists(STREAM):
            left = await self._redis.hkeys(self._keys.progress(STREAM))  # who was put to sleep is remembered
            assert not left or set(left) == {b"fence", b"consumer", b"asleep", b"added"}
            return None
        return [id.decode() for id, _ in await self._redis.xrange(STREAM)]
