"""Where data streams live: on the one server there is, or on the nodes of a cluster."""

import asyncio
from typing import Any, Protocol

from redis.asyncio import RedisCluster
from redis.crc import key_slot

from redis_stream_client import clock
from redis_stream_client import endpoint as endpoints
from redis_stream_client.endpoint import Endpoint
from redis_stream_client.faults import Unanswered

FRESH = 0.1  # seconds that an answer is good for all who ask


class Places(Protocol):
    """Tells the servers of keys."""

    def of(self, key: str) -> Endpoint | None:
        """The server that holds a key, as far as is known; the same object for the same server."""
        ...

    def slot(self, key: str) -> int:
        """Keys of one slot may be used in one command."""
        ...

    async def learn(self, timeout: float) -> None:
        """Look up where the keys are. Raises `Unanswered` or `RedisRejected`."""
        ...

    def forget(self) -> None:
        """What is known may be wrong: keys have moved."""
        ...


def of(redis: Any, endpoint: Endpoint) -> Places:
    """The places of a user's client, whose load balancer stream is at `endpoint`."""
    return _Nodes(redis) if isinstance(redis, RedisCluster) else _OneServer(endpoint)


class _OneServer:
    """All keys are where the load balancer stream is."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def of(self, key: str) -> Endpoint | None:
        return self._endpoint

    def slot(self, key: str) -> int:
        return 0

    async def learn(self, timeout: float) -> None:
        pass

    def forget(self) -> None:
        pass


class _Nodes:
    """Each slot has a primary, which changes when a slot moves."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = endpoints.Cluster(cluster)
        self._ranges: list[tuple[int, int, Endpoint]] = []
        self._nodes: dict[tuple[str, int], Endpoint] = {}
        self._asking = asyncio.Lock()
        self._learned_at = 0.0

    def of(self, key: str) -> Endpoint | None:
        slot = key_slot(key.encode())
        return next((node for first, last, node in self._ranges if first <= slot <= last), None)

    def slot(self, key: str) -> int:
        return key_slot(key.encode())

    async def learn(self, timeout: float) -> None:
        """One asks for all that want to know."""
        try:
            async with asyncio.timeout(timeout), self._asking:
                if self._ranges and clock.now() - self._learned_at < FRESH:
                    return
                slots = await self._cluster.slots(timeout)
        except TimeoutError:
            raise Unanswered("no node of the cluster said in time what is where", maybe_executed=False) from None
        self._ranges = [(first, last, self._node(address)) for first, last, address in slots]
        self._learned_at = clock.now()

    def _node(self, address: tuple[str, int]) -> Endpoint:
        if address not in self._nodes:
            self._nodes[address] = self._cluster.node(address)
        return self._nodes[address]

    def forget(self) -> None:
        if self._ranges:
            self._ranges = []
            self._cluster.doubt()
