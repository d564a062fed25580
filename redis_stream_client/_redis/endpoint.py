"""Endpoints: finding the server that holds a key, and opening connections to it.

The user's client is only a source of settings. Our connections are our own. They use RESP2, which has one shape of
reply, decode nothing, and do not retry, because a retry by redis-py may send a command again that was executed.
"""

from typing import Any, Protocol

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.crc import key_slot

from redis_stream_client._concurrency import clock
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._redis import settings
from redis_stream_client._redis.connecting import Connector, address_of
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.sentinels import KnownMaster, Masters
from redis_stream_client._redis.topology import Topology


class Endpoint(Protocol):
    """A server that is looked up again for every connection."""

    @property
    def db(self) -> int:
        """Index of the database."""
        ...

    @property
    def where(self) -> str:
        """The address of the server, for messages."""
        ...

    @property
    def clustered(self) -> bool:
        """Whether the server may be a node of a Redis Cluster, because this endpoint follows the slots."""
        ...

    async def open(self, timeout: float, role: str = "") -> AbstractConnection:
        """Connect within `timeout` seconds. Raises `Unanswered` or `RedisRejected`.

        ``CLIENT LIST`` shows the `role`, such as ``beats``, behind the user's `client_name`.

        If an attempt fails while a host name or credentials are looked up, the next attempt uses the same answer.
        """
        ...

    def doubt(self) -> None:
        """Note that the server does not answer or is not responsible: look elsewhere first the next time."""
        ...


def check(redis: Any) -> None:
    """Raise ``TypeError`` for anything but an asyncio client of redis-py."""
    if isinstance(redis, Redis | RedisCluster):
        return
    given = f"{type(redis).__module__}.{type(redis).__qualname__}"
    hint = ""
    if any(base.__module__.partition(".")[0] == "valkey" for base in type(redis).__mro__):
        hint = "; redis-py speaks to Valkey just as well: pip install redis"
    raise TypeError(f"redis must be a redis.asyncio.Redis or RedisCluster, not {given}{hint}")


def endpoint_for(redis: Any, key: str, *, pooled: bool = False) -> Endpoint:
    """The endpoint of `key`, by the settings of a user's client. `pooled`: connections come from the client's own
    pool.

    Raises ``TypeError`` for anything but a redis-py client, and ``ValueError`` for a setting that cannot be kept.
    """
    check(redis)
    if isinstance(redis, RedisCluster):
        return Slot(Topology(redis), key)
    pool = redis.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        if not pool.is_master:
            raise ValueError(f"is_master is False: {settings.REFUSED['is_master']}")
        return _Sentinel(pool)
    makes = type(pool).make_connection
    if not pooled and makes is not ConnectionPool.make_connection and not _is_fake(pool.connection_class):
        raise ValueError(f"connection_pool is a {type(pool).__qualname__}: {settings.REFUSED['make_connection']}")
    return Node(Connector(pool.connection_class, pool.connection_kwargs))


class Node:
    """One server at a known address: the user's only one, or a node of a cluster."""

    def __init__(self, connector: Connector, address: tuple[str, int] | None = None) -> None:
        self._connector = connector
        self._aim: dict[str, Any] = {} if address is None else {"host": address[0], "port": address[1]}

    def __repr__(self) -> str:
        return f"<Node {self.where}>"

    @property
    def db(self) -> int:
        """As `Endpoint`."""
        return self._connector.db

    @property
    def where(self) -> str:
        """As `Endpoint`."""
        return address_of({**self._connector.settings, **self._aim})

    @property
    def clustered(self) -> bool:
        """As `Endpoint`."""
        return bool(self._aim)

    async def open(self, timeout: float, role: str = "") -> AbstractConnection:
        """As `Endpoint`."""
        if _is_fake(self._connector.connection_class):
            raise RedisRejected("a fake Redis has no other members to notify; join with a real server")
        return await self._connector.open(timeout, role, **self._aim)

    def doubt(self) -> None:
        """As `Endpoint`."""
        self._connector.doubt(self._aim.get("host"))


class _Sentinel:
    """The master, as the sentinels name it."""

    clustered = False

    def __init__(self, pool: SentinelConnectionPool) -> None:
        self._masters = Masters(pool)
        self._connector = Connector(pool.connection_class, pool.connection_kwargs)

    @property
    def db(self) -> int:
        return self._connector.db

    @property
    def where(self) -> str:
        return f"the master of {self._masters.service!r}"

    async def open(self, timeout: float, role: str = "") -> AbstractConnection:
        until = clock.now() + timeout
        address, pool = await self._masters.find(timeout * 0.75)
        host, port = address
        known = KnownMaster(pool, address)
        left = max(0.0, until - clock.now())
        try:
            return await self._connector.open(left, role, host=host, port=port, connection_pool=known)
        except Unanswered:
            self._masters.doubt()
            raise

    def doubt(self) -> None:
        self._masters.doubt()


class Slot:
    """The primary that has the slot of a key, also after the slot has moved.

    Attributes:
        topology: the topology of the cluster.
    """

    db = 0
    clustered = True

    def __init__(self, topology: Topology, key: str) -> None:
        self.topology = topology
        self._slot = key_slot(key.encode())

    @property
    def where(self) -> str:
        """As `Endpoint`."""
        return self.topology.where

    async def open(self, timeout: float, role: str = "") -> AbstractConnection:
        """As `Endpoint`. Looks up the topology for each connection."""
        until = clock.now() + timeout
        view = await self.topology.look(self._slot, timeout * 0.75)
        owner = view.owner(self._slot)
        assert owner is not None
        host, port = owner
        left = max(0.0, until - clock.now())
        try:
            return await self.topology.connector.open(left, role, host=host, port=port)
        except Unanswered:
            self.topology.doubt(owner)
            raise

    def doubt(self) -> None:
        """As `Endpoint`."""
        self.topology.doubt()


def _is_fake(connection_class: type[AbstractConnection]) -> bool:
    return connection_class.__module__.partition(".")[0] == "fakeredis"
