"""Consumers of which each has an event loop, a thread and a network of its own, so that one alone may stall."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from redis_stream_client import (
    ClientClosed,
    Lease,
    RedisStreamClient,
    RedisStreamClientError,
    StreamAdded,
    StreamDisowned,
    StreamExpired,
)
from tests.harness.loops import loop_factory
from tests.harness.proxy import TcpProxy

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Coroutine

    from redis_stream_client import Event, ExpiredStream
    from tests.harness.servers import Server

T = TypeVar("T")

TIMEOUT = 20.0
"""Seconds after which an operation is taken to hang."""


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.unhandled: list[dict[str, Any]] = []
        self._loop = loop_factory()()
        self._loop.set_exception_handler(lambda _, context: self.unhandled.append(context))
        self._unblock = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run it there, and go on here."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there, and wait for it."""
        return self.start(work).result(TIMEOUT)

    def block(self) -> None:
        """Let nothing run there until `unblock`, as code that does not return would."""
        blocked = threading.Event()

        def stand_still() -> None:
            blocked.set()
            self._unblock.wait()

        self._unblock.clear()
        self._loop.call_soon_threadsafe(stand_still)
        assert blocked.wait(TIMEOUT)

    def unblock(self) -> None:
        """Go on."""
        self._unblock.set()

    def close(self) -> None:
        """End what still runs there, and the thread."""
        self.unblock()
        self.run(_end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        self._loop.close()


async def _end_all() -> None:
    """Cancel what runs; also what a connection that is just being accepted brings, and the end of its socket."""
    for _ in range(3):
        await asyncio.sleep(0.005)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Consumer:
    """A client, and what it was told and handed.

    Attributes:
        leases: every lease that it was handed, in order.
        ended: those that its user ended.
        told: those that it was told are lost.
        offers: the newest offer of each stream.
    """

    def __init__(self, name: str, network: Loop, server: Server, service: str, lock_ttl: float) -> None:
        self.name = name
        self.leases: list[Lease] = []
        self.ended: list[Lease] = []
        self.told: list[StreamDisowned] = []
        self.offers: dict[str, ExpiredStream] = {}
        self.stalled = False
        self.dead = False
        self._doubtful_until: int | None = None
        self._network = network
        self.proxy = network.run(_opened(TcpProxy(server.port)))
        self.loop = Loop(f"consumer {name}")
        self.client = RedisStreamClient.from_url(self.proxy.url, service, consumer_name=name, lock_ttl=lock_ttl)
        self.loop.run(self.client.__aenter__())

    def __repr__(self) -> str:
        return f"<{self.name} {self.client.id}>"

    @property
    def awake(self) -> bool:
        """Whether its user's code runs."""
        return not (self.dead or self.stalled)

    def read(self) -> list[Event]:
        """Read all events that wait."""
        return self.loop.run(self._read())

    async def _read(self) -> list[Event]:
        events: list[Event] = []
        while self.client.statistics().unread_events:
            try:
                async with asyncio.timeout(0.05):  # an offer may have been withdrawn meanwhile
                    events.append(await anext(self.client.events()))
            except TimeoutError:
                break
        for event in events:
            match event:
                case StreamAdded(lease):
                    self.leases.append(lease)
                case StreamExpired(orphan):
                    self.offers[orphan.stream] = orphan
                case StreamDisowned():
                    self.told.append(event)
        return events

    def lease(self, stream: str) -> Lease:
        """Its newest lease of a stream."""
        return next(lease for lease in reversed(self.leases) if lease.stream == stream)

    def newest(self) -> list[Lease]:
        """Its newest lease of each stream, lost or not, unless it ended it."""
        newest = {lease.stream: lease for lease in self.leases}
        return [lease for lease in newest.values() if lease not in self.ended]

    # What befalls it.

    def stall(self) -> None:
        """Its event loop stands still."""
        self.stalled = True
        self.loop.block()

    def wake(self) -> None:
        """It goes on."""
        self.stalled = False
        self.loop.unblock()

    def crash(self) -> None:
        """It is never heard again; its connections are closed by the system."""
        self.dead = True
        self._network.run(_unplug(self.proxy))
        self.wake()
        self.loop.start(self.client.aclose())  # which nobody hears

    def leave(self) -> None:
        """It leaves in good order."""
        self.dead = True
        self.loop.run(self.client.aclose())

    def isolate(self) -> None:
        """Nothing reaches it, and nothing that it sends arrives, until `reconnect`."""
        self._network.run(_call(self.proxy.freeze))

    def reconnect(self) -> None:
        """What was under way arrives, late."""
        self._network.run(_call(self.proxy.thaw))

    def cut(self) -> None:
        """Its connections are reset."""
        self._network.run(_call(self.proxy.cut))

    def lose(self, what: str, pattern: str) -> None:
        """Lose the next request, or the reply to it, that contains the pattern, and its connection with it."""
        lose = self.proxy.drop_replies_after if what == "reply" else self.proxy.drop_requests_matching

        def arm() -> None:
            lose(pattern.encode(), connections=1, cut=True)

        self._network.run(_call(arm))

    def heal(self) -> None:
        """All is well again with its network, and it is awake."""
        if not self.dead:
            self._network.run(_call(self.proxy.heal))
            if self.stalled:
                self.wake()

    # Whether its own belief counts.

    def lock_taken_away(self) -> None:
        """Its lock was removed before its time: until it notices, it believes what is not so."""
        self._doubtful_until = self.client.statistics().lapses + 1

    @property
    def doubtful(self) -> bool:
        """Whether it may still believe in a lock that was taken away."""
        if self._doubtful_until is not None and self.client.statistics().lapses >= self._doubtful_until:
            self._doubtful_until = None
        return self._doubtful_until is not None

    def close(self) -> list[dict[str, Any]]:
        """End it. Returns the errors that nobody saw."""
        if self.stalled:
            self.wake()
        with contextlib.suppress(RedisStreamClientError):
            self.loop.run(self.client.aclose())
        with contextlib.suppress(ClientClosed, StopAsyncIteration):
            self.loop.run(_next_of(self.client))
        self.loop.close()
        self._network.run(self.proxy.__aexit__(None, None, None))
        return self.loop.unhandled


async def _opened(proxy: TcpProxy) -> TcpProxy:
    return await proxy.__aenter__()


async def _unplug(proxy: TcpProxy) -> None:
    await proxy.refuse()
    proxy.cut()


async def _call(function: Any) -> Any:
    return function()


async def _next_of(client: RedisStreamClient) -> None:
    await anext(client.events())
