"""Clients in this process, and what they were told: what most tests on a real server need."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self

from redis.asyncio import Redis

from redis_stream_client import (
    AlreadyClaimed,
    ClientClosed,
    Lease,
    LoadBalancerStream,
    NotJoined,
    RedisUnavailable,
    StreamAdded,
    StreamDisowned,
    StreamExpired,
    StreamGone,
)
from tests.harness.leases import OpenClient
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from types import TracebackType

    from redis_stream_client import Event, ExpiredStream
    from tests.harness.connection import Connection


class Member:
    """A client that reads its events all the time, and claims what expires unless `claim` is false.

    It connects to a URL, or as a client of redis-py does. `async with` joins and leaves. Further `options` are
    arguments of `RedisStreamClient`.
    """

    def __init__(self, redis: str | Connection, service: str, *, claim: bool = True, **options: Any) -> None:
        self.client = (
            OpenClient.from_url(redis, service, **options)
            if isinstance(redis, str)
            else OpenClient(redis, service, **options)
        )
        self.events: list[Event] = []
        self.leases: list[Lease] = []
        """Every lease it ever got, in order."""
        self._claim = claim
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        self._reading = asyncio.create_task(self._read(), name=f"member {self.client.id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.aclose()
        assert self._reading is not None
        with contextlib.suppress(Exception if kind else RedisUnavailable):
            await self._reading

    async def _read(self) -> None:
        async for event in self.client.events():
            self.events.append(event)
            match event:
                case StreamAdded(lease):
                    self.leases.append(lease)
                case StreamExpired(stream) if self._claim:
                    await self._take(stream)
                case _:
                    pass

    async def _take(self, stream: ExpiredStream) -> None:
        with contextlib.suppress(AlreadyClaimed, StreamGone, NotJoined, RedisUnavailable, ClientClosed):
            self.leases.append(await self.client.claim(stream))

    def claims_now(self) -> None:
        """Claim what expires from now on."""
        self._claim = True

    @property
    def owned(self) -> list[str]:
        """The names of the streams that it was handed and owns now, sorted."""
        return sorted({lease.stream for lease in self.leases if lease.owned})

    @property
    def disowned(self) -> list[Lease]:
        """The leases that it was told are lost, in order."""
        return [event.payload for event in self.events if isinstance(event, StreamDisowned)]

    @property
    def expired(self) -> list[ExpiredStream]:
        """The orphans that it was offered, in order."""
        return [event.payload for event in self.events if isinstance(event, StreamExpired)]

    def lease(self, stream: str) -> Lease:
        """Its newest lease of a stream."""
        return next(lease for lease in reversed(self.leases) if lease.stream == stream)

    async def owns(self, *streams: str, timeout: float = 10.0) -> Self:
        """Wait until it owns exactly these streams, and was handed each."""

        def agrees() -> bool:
            held = sorted(lease.stream for lease in self.client.leases.values())
            return self.owned == held == sorted(streams)

        try:
            await wait_until(agrees, f"{self.client.id} owns {sorted(streams)}", timeout)
        except AssertionError as error:
            error.add_note(f"it owns {self.owned}; it was told {self.events}")
            raise
        return self


async def announce(url: str, service: str, *streams: str, again: bool = False) -> list[str]:
    """Announce data streams as a producer would; returns the announcements' ids."""
    async with Redis.from_url(url) as redis:
        return await LoadBalancerStream(redis, service).add_many(streams, again=again)
