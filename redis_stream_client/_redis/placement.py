"""Where data streams live: on the one server there is, or on the nodes of a cluster."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from redis.asyncio import RedisCluster
from redis.crc import key_slot

from redis_stream_client._concurrency import clock
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._model.logs import log
from redis_stream_client._redis.endpoint import Endpoint, Node, Slot
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.topology import Address, Topology, View

Item = TypeVar("Item")

PAUSE = (0.1, 1.0)  # seconds between two looks: the shortest, and the longest after looks that brought nothing new


class Placement(Protocol):
    """Tells the servers of keys."""

    def endpoint(self, key: str) -> Endpoint | None:
        """The server that holds a key, as far as is known; the same object for the same server.

        None: `learn` first, and ask again.
        """
        ...

    def slot(self, key: str) -> int:
        """Keys of one slot may be used in one command."""
        ...

    async def learn(self, timeout: float) -> None:
        """Look up where the keys are, unless somebody did just now. Raises `Unanswered` or `RedisRejected`.

        What was known before goes on to hold if nobody can say better.
        """
        ...

    def forget(self) -> None:
        """What is known may be wrong: keys have moved, or a server does not answer. To be called after *any*
        request that a server of `endpoint` did not answer: a dead one says nothing, so nothing else tells that
        another one has its slots by now.

        Cheap: soon, and not more often than the look-ups may be, `endpoint` asks for `learn`.
        """
        ...

    @property
    def version(self) -> int:
        """Grows when `endpoint` may answer otherwise than before."""
        ...

    def current(self, endpoint: Endpoint) -> bool:
        """Whether this server still holds keys, as far as is known.

        Connections to one that does not, and the tasks behind them, are to be dropped.
        """
        ...


def placement_for(redis: Any, endpoint: Endpoint) -> Placement:
    """The places of a user's client, whose load balancer stream is at `endpoint`."""
    if isinstance(endpoint, Slot):
        return _Nodes(endpoint.topology)
    return _Nodes(Topology(redis)) if isinstance(redis, RedisCluster) else _OneServer(endpoint)


def by_slot(placement: Placement, items: Iterable[Item], key: Callable[[Item], str]) -> list[list[Item]]:
    """The items in groups, each of those whose keys one command may name."""
    slots: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        slots[placement.slot(key(item))].append(item)
    return list(slots.values())


class _OneServer:
    """All keys are where the load balancer stream is."""

    version = 0

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def endpoint(self, key: str) -> Endpoint | None:
        return self._endpoint

    def slot(self, key: str) -> int:
        return 0

    async def learn(self, timeout: float) -> None:
        pass

    def forget(self) -> None:
        pass

    def current(self, endpoint: Endpoint) -> bool:
        return True


class _Nodes:
    """Each slot has a primary, which changes when a slot moves or a node dies."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._view = View()
        self._nodes: dict[Address, Node] = {}
        self._asking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._pause = PAUSE[0]
        self._in_doubt = False
        self.version = 0

    def endpoint(self, key: str) -> Endpoint | None:
        if self._in_doubt and self._is_due():
            return None
        owner = self._view.owner(key_slot(key.encode()))
        return None if owner is None else self._nodes[owner]

    def slot(self, key: str) -> int:
        return key_slot(key.encode())

    async def learn(self, timeout: float) -> None:
        """One asks for all that want to know."""
        until = clock.now() + timeout
        try:
            async with asyncio.timeout(timeout):
                await self._asking.acquire()
        except TimeoutError:
            if self._view.ranges:
                return
            raise Unanswered("no node of the cluster said in time what is where", maybe_executed=False) from None
        try:
            if self._is_due():
                await self._look(until - clock.now())
        finally:
            self._asking.release()

    async def _look(self, timeout: float) -> None:
        try:
            view = await self._topology.look(None, timeout)
        except (Unanswered, RedisRejected) as error:
            if not self._view.ranges:
                raise
            log.debug("where are the data streams? %s", error)
            view = self._view
        same = view.ranges == self._view.ranges
        self._pause = min(2 * self._pause, PAUSE[1]) if same else PAUSE[0]
        self.version += not same
        self._looked_at = clock.now()
        self._in_doubt = False
        self._view = view
        self._nodes = {
            address: self._nodes.get(address) or Node(self._topology.connector, address)
            for address in view.primaries
        }

    def _is_due(self) -> bool:
        return clock.now() - self._looked_at >= self._pause

    def forget(self) -> None:
        self._in_doubt = True
        self._topology.doubt()

    def current(self, endpoint: Endpoint) -> bool:
        return not self._nodes or endpoint in self._nodes.values()
