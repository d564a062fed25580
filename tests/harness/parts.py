"""The parts of a client, for tests of what happens between two of them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from redis_stream_client._concurrency import clock
from redis_stream_client._consumer.lifecycle import Lifecycle
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.placement import placement_for
from tests.harness.options import checked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from redis_stream_client import Event
    from redis_stream_client._consumer.parts import Parts


@contextlib.asynccontextmanager
async def joined(url: str, service: str, **given: Any) -> AsyncGenerator[Parts]:
    """Join as a client does, made with these options, and give what it is made of; leave at the end."""
    options = checked(service, **given)
    async with Redis.from_url(url) as redis:
        where = endpoint_for(redis, options.keys.lbs)
        lifecycle = Lifecycle(options, where, placement_for(redis, where))
        try:
            yield await lifecycle.join()
        finally:
            await lifecycle.close()


@contextlib.contextmanager
def in_doubt(parts: Parts) -> Generator[None]:
    """Let the lock be in doubt in this block, as if peers could have taken this client for dead.

    Only for clients without presence: others ask Redis, which ends the doubt.
    """
    parts.lock_state.declared(grace=0.1)
    parts.lock_state.unseen(clock.now() - 1.0)
    assert parts.lock_state.alive
    assert not parts.lock_state.held
    yield
    parts.lock_state.withdrawn()


async def next_event(parts: Parts) -> Event:
    """What such a client would tell its user next."""
    while (event := parts.event_queue.take(clock.now())) is None:
        await parts.event_queue.wait()
    return event
