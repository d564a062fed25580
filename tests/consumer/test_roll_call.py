"""The roll call: who lives, however many there are; and what those can bear that are new."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis_stream_client._consumer.peers import Peers
from redis_stream_client._consumer.roll_call import RollCall
from redis_stream_client._protocol.replies import Holder
from tests.harness.parts import joined
from tests.harness.runs import calls

if TYPE_CHECKING:
    from tests.harness.connection import Connection
    from tests.harness.servers import Server


async def test_all_are_looked_at_and_described_once(server: Server, redis: Connection, service: str) -> None:
    async with (
        joined(server.url, service) as parts,
        joined(server.url, service, weight=3.0, max_streams=7) as other,
    ):
        peers = Peers()
        roll_call = RollCall(options=parts.options, group=parts.group, peers=peers)
        dead = [f"redis-consumer-{i}-00c0ffee" for i in range(450)]
        everybody = [*dead[:300], other.options.consumer, *dead[300:]]
        expected = {**dict.fromkeys(dead, False), other.options.consumer: True}
        assert await roll_call.alive(everybody) == expected
        assert peers.holder(other.options.consumer) == Holder(3.0, 7)
        assert not peers.knows(dead[0])
        read = await calls(redis, "get")
        assert await roll_call.alive([other.options.consumer]) == {other.options.consumer: True}
        assert await calls(redis, "get") <= read + 2  # what other tasks of the two read meanwhile
        assert await roll_call.alive([]) == {}
