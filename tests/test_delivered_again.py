"""Ring 3: an announcement is delivered a second time, since the consumer group was destroyed and made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redis_stream_client import Lease, LoadBalancerStream, NotOwner, RedisStreamClient, StreamAdded
from redis_stream_client.keys import Keys
from tests.scenes import next_event

if TYPE_CHECKING:
    from tests.connection import Connection
    from tests.servers import Server


@pytest.mark.parametrize("streams", [1, 3])
async def test_the_same_consumer_gets_a_new_fence(
    server: Server, redis: Connection, service: str, streams: int
) -> None:
    """A peer that has seen less makes the group anew, from where it stood: this client reads its streams again."""
    keys = Keys(service)
    names = {f"s{i}" for i in range(streams)}
    async with RedisStreamClient.from_url(server.url, service, lock_ttl=1.0) as client:
        await LoadBalancerStream(redis, service).add_many(sorted(names))
        old: dict[str, Lease] = {}
        while old.keys() != names:
            lease = (await next_event(client, StreamAdded)).payload
            old[lease.stream] = lease
        for _ in range(2):  # a second time, what was delivered again is delivered again
            async with redis.pipeline(transaction=True) as pipe:
                pipe.xgroup_destroy(keys.lbs, keys.group)
                pipe.xgroup_create(keys.lbs, keys.group, "0")
                await pipe.execute()
            new: dict[str, Lease] = {}
            while new.keys() != names:
                lease = (await next_event(client, StreamAdded)).payload
                new[lease.stream] = lease
            for name in names:
                assert new[name].fence > old[name].fence
                with pytest.raises(NotOwner):
                    await old[name].done()
            old = new
        for lease in old.values():
            await lease.done()
        assert await redis.xlen(keys.lbs) == 0
