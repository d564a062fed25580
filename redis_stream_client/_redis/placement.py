"""Placement: which server holds which key. Either one server holds all, or the nodes of a cluster do."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from redis.asyncio import RedisCluster
from redis.crc import key_slot

from redis_stream_client._concurrency import clock
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._redis.endpoint import Endpoint, Node, Slot
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.outage import OutageLog
from redis_stream_client._redis.topology import Address, Topology, View

Item = TypeVar("Item")

PAUSE = (0.1, 1.0)  # shortest and longest pause between look-ups, in seconds; it grows if they find nothing new


class Placement(Protocol):
    """Knows which server holds which key."""

    def endpoint(self, key: str) -> Endpoint | None:
        """The server that holds a key, as far as is known. The same server is always the same object.

        None means: call `learn` first, then ask again.
        """
        ...

    def slot(self, key: str) -> int:
        """The slot of a key. One command may use keys of one slot only."""
        ...

    async def learn(self, timeout: float) -> Exception | None:
        """Look up where the keys are, unless somebody has just done so. Raises `Unanswered` or `RedisRejected`.

        If the look-up fails and there is former knowledge, that stays, and the failure is returned; also to who
        asks after it, until the next one.
        """
        ...

    def forget(self) -> None:
        """Note that the knowledge may be wrong: keys have moved, or a server does not answer.

        Call it after *every* request that a server of `endpoint` has not answered. A dead server cannot say that
        another one has its slots now. It is cheap: `endpoint` asks for `learn` soon, but not too often.
        """
        ...

    @property
    def version(self) -> int:
        """A number that grows when the answers of `endpoint` may have changed."""
        ...

    def current(self, endpoint: Endpoint) -> bool:
        """Whether this server still holds keys, as far as is known.

        If not, drop the connections to it and the tasks behind them.
        """
        ...


def placement_for(redis: Any, endpoint: Endpoint) -> Placement:
    """The placement for a user's client, whose load balancer stream is at `endpoint`."""
    if isinstance(endpoint, Slot):
        return _Nodes(endpoint.topology)
    return _Nodes(Topology(redis)) if isinstance(redis, RedisCluster) else _OneServer(endpoint)


async def learn(placement: Placement, timeout: float, lookups: OutageLog) -> None:
    """`Placement.learn`, and tell the log how it went."""
    try:
        failure = await placement.learn(timeout)
    except (Unanswered, RedisRejected) as error:
        lookups.failed(error)
        raise
    if failure is not None:
        lookups.failed(failure)
    else:
        lookups.answered()


def by_slot(placement: Placement, items: Iterable[Item], key: Callable[[Item], str]) -> list[list[Item]]:
    """The items in groups of one slot each, so that one command may use the keys of a group."""
    slots: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        slots[placement.slot(key(item))].append(item)
    return list(slots.values())


class _OneServer:
    """One server holds all keys: the server of the load balancer stream."""

    version = 0

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def endpoint(self, key: str) -> Endpoint | None:
        return self._endpoint

    def slot(self, key: str) -> int:
        return 0

    async def learn(self, timeout: float) -> Exception | None:
        return None

    def forget(self) -> None:
        pass

    def current(self, endpoint: Endpoint) -> bool:
        return True


class _Nodes:
    """The nodes of a cluster: each slot has a primary, which changes when the slot moves or a node dies."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._view = View()
        self._nodes: dict[Address, Node] = {}
        self._asking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._pause = PAUSE[0]
        self._in_doubt = False
        self._failure: Exception | None = None  # of the last look-up
        self.version = 0

    def endpoint(self, key: str) -> Endpoint | None:
        if self._in_doubt and self._is_due():
            return None
        owner = self._view.owner(key_slot(key.encode()))
        return None if owner is None else self._nodes[owner]

    def slot(self, key: str) -> int:
        return key_slot(key.encode())

    async def learn(self, timeout: float) -> Exception | None:
        """As `Placement`. One look-up serves all who call at the same time."""
        until = clock.now() + timeout
        try:
            async with asyncio.timeout(timeout):
                await self._asking.acquire()
        except TimeoutError:
            if self._view.ranges:
                return self._failure
            raise Unanswered("no node of the cluster named its slots in time", maybe_executed=False) from None
        try:
            if self._is_due():
                await self._look(until - clock.now())
            return self._failure
        finally:
            self._asking.release()

    async def _look(self, timeout: float) -> None:
        self._failure = None
        try:
            view = await self._topology.look(None, timeout)
        except (Unanswered, RedisRejected) as error:
            if not self._view.ranges:
                raise
            self._failure, view = error, self._view
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
