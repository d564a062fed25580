"""Where the load balancer stream lives, and how to open a connection to it.

The user's client is only a source of settings. Connections are our own, one object each, with RESP2 (one
shape of reply), without decoding, and without redis-py's automatic retries, which re-send commands that may
have been executed.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Protocol

import hiredis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from redis_stream_client import faults
from redis_stream_client.errors import RedisRejected
from redis_stream_client.faults import Unanswered

# Settings that our connections keep from the user's: where, who, and how it is encrypted.
_KEPT = (
    "host",
    "port",
    "path",
    "db",
    "username",
    "password",
    "credential_provider",
    "redis_connect_func",
    "driver_info",
    "socket_keepalive",
    "socket_keepalive_options",
    "socket_type",
    "socket_read_size",
    "encoding",
    "encoding_errors",
)


class Endpoint(Protocol):
    """A server, found anew for every connection."""

    @property
    def db(self) -> int:
        """Index of the database."""
        ...

    @property
    def where(self) -> str:
        """The server's address, for messages."""
        ...

    async def open(self, timeout: float) -> AbstractConnection:
        """Connect within `timeout` seconds. Raises `Unanswered` or `RedisRejected`."""
        ...


def of(redis: Any, key: str) -> Endpoint:
    """The endpoint of `key`, from a user's client. Raises ``TypeError`` for anything but a redis-py client."""
    if isinstance(redis, RedisCluster):
        return _Slot(redis, key)
    if not isinstance(redis, Redis):
        raise TypeError(
            f"redis must be a redis.asyncio.Redis or RedisCluster, not {type(redis).__module__}."
            f"{type(redis).__qualname__}"
        )
    pool = redis.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        return _Sentinel(pool)
    return _Direct(pool.connection_class, pool.connection_kwargs)


class _Direct:
    """One server at a known address."""

    def __init__(self, connection_class: type[AbstractConnection], settings: dict[str, Any]) -> None:
        self._class = connection_class
        self._settings = _own(settings)

    @property
    def db(self) -> int:
        return int(self._settings.get("db") or 0)

    @property
    def where(self) -> str:
        return _address(self._settings)

    async def open(self, timeout: float) -> AbstractConnection:
        if self._class.__module__.partition(".")[0] == "fakeredis":
            raise RedisRejected("a fake Redis has no other members to notify; join with a real server")
        return await _connect(self._class, self._settings, timeout)


class _Sentinel:
    """The master that the sentinels name."""

    def __init__(self, pool: SentinelConnectionPool) -> None:
        ssl = issubclass(pool.connection_class, SSLConnection)
        self._class: type[AbstractConnection] = SSLConnection if ssl else Connection
        self._settings = _own(pool.connection_kwargs)
        self._service = pool.service_name
        sentinels: list[Redis] = pool.sentinel_manager.sentinels
        self._sentinels = [
            _Direct(s.connection_pool.connection_class, s.connection_pool.connection_kwargs) for s in sentinels
        ]

    @property
    def db(self) -> int:
        return int(self._settings.get("db") or 0)

    @property
    def where(self) -> str:
        return f"the master of {self._service!r}"

    async def open(self, timeout: float) -> AbstractConnection:
        failure: Exception = Unanswered("no sentinel is known", maybe_executed=False)
        for sentinel in list(self._sentinels):
            try:
                address = await _ask(sentinel, timeout / 2, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
                if not address:
                    raise Unanswered(f"no sentinel knows {self._service!r}", maybe_executed=False)
                settings = {**self._settings, "host": address[0].decode(), "port": int(address[1])}
                return await _connect(self._class, settings, timeout)
            except Unanswered as error:
                failure = error
                self._sentinels.remove(sentinel)  # ask it last the next time
                self._sentinels.append(sentinel)
        raise failure


class Cluster:
    """The nodes of a cluster."""

    def __init__(self, cluster: Any) -> None:
        nodes = list(cluster.nodes_manager.startup_nodes.values())
        self._class: type[AbstractConnection] = nodes[0].connection_class
        self._settings = _own(nodes[0].connection_kwargs)
        self._known: list[tuple[str, int]] = [(node.host, node.port) for node in nodes]

    @property
    def where(self) -> str:
        """The address of one of its nodes, for messages."""
        return f"the cluster of {self._known[0][0]}:{self._known[0][1]}"

    def node(self, address: tuple[str, int]) -> "_Direct":
        """One node."""
        return _Direct(self._class, {**self._settings, "host": address[0], "port": address[1]})

    async def slots(self, timeout: float) -> list[tuple[int, int, tuple[str, int]]]:
        """First slot, last slot and primary of each range. Raises `Unanswered` or `RedisRejected`."""
        failure: Exception = Unanswered("no node of the cluster is known", maybe_executed=False)
        for host, port in list(self._known):
            try:
                reply = await _ask(self.node((host, port)), timeout / 2, "CLUSTER", "SLOTS")
            except Unanswered as error:
                failure = error
                self.doubt()
                continue
            slots = [
                (first, last, (primary[0].decode() or host, int(primary[1]))) for first, last, primary, *_ in reply
            ]
            self._known += sorted({address for _, _, address in slots} - set(self._known))
            return slots
        raise failure

    def doubt(self) -> None:
        """The node that is asked first may be out of date: ask it last the next time."""
        self._known.append(self._known.pop(0))


class _Slot:
    """The primary that owns the key's slot; followed when the slot moves."""

    def __init__(self, cluster: Any, key: str) -> None:
        self._cluster = Cluster(cluster)
        self._slot = key_slot(key.encode())
        self._key = key

    db = 0

    @property
    def where(self) -> str:
        return self._cluster.where

    async def open(self, timeout: float) -> AbstractConnection:
        for first, last, address in await self._cluster.slots(timeout):
            if first <= self._slot <= last:
                try:
                    return await self._cluster.node(address).open(timeout)
                except Unanswered:
                    self._cluster.doubt()
                    raise
        raise Unanswered(f"no node serves slot {self._slot} of {self._key!r}", maybe_executed=False)


def _own(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of our own connections, from those of a user's."""
    kept = {k: v for k, v in settings.items() if k in _KEPT or k.startswith("ssl_")}
    return {**kept, "protocol": 2, "decode_responses": False, "retry_on_error": []}


def _address(settings: dict[str, Any]) -> str:
    return str(settings.get("path") or f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}")


async def _connect(
    connection_class: type[AbstractConnection], settings: dict[str, Any], timeout: float
) -> AbstractConnection:
    where = _address(settings)
    # No time-outs of redis-py's: with one it writes through asyncio.wait_for(), which on Python 3.11 swallows a
    # cancellation that arrives when the write is just done (measured: 6 of 13 points in connecting).
    connection = connection_class(**settings, socket_timeout=None, socket_connect_timeout=None)
    try:
        async with asyncio.timeout(timeout):
            await connection.connect()  # type: ignore[no-untyped-call]
    except (RedisError, OSError, TimeoutError, AttributeError) as error:  # the last: see `send`
        await close(connection)
        fault = faults.of(error, where)
        if isinstance(fault, Unanswered):
            fault.maybe_executed = False
        raise fault from error
    except BaseException:
        await close(connection)
        raise
    return connection


async def send(connection: AbstractConnection, *commands: tuple[Any, ...]) -> None:
    """Write commands to a connection. Everything is handed to the transport before the first suspension.

    hiredis packs a command of 250 words in a tenth of the time that redis-py takes.

    A transport that the peer has closed is refused here: on Python 3.12 and 3.13 ``writelines()`` on it raises an
    ``AttributeError``.
    """
    writer = connection._writer
    if writer is None or writer.is_closing():
        raise RedisConnectionError("the connection was closed")
    await connection.send_packed_command(list(map(hiredis.pack_command, commands)), check_health=False)


async def close(connection: AbstractConnection) -> None:
    """Close a connection without waiting for the peer."""
    with contextlib.suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)


def abort(connection: AbstractConnection) -> None:
    """Close a connection at once: nothing that is still buffered is sent, nothing that arrives is read.

    redis-py closes only in a coroutine, and lets the buffer drain first. Early releases of Python 3.11 raise an
    ``AttributeError`` for a TLS transport that has been closed twice, by the peer and by us.
    """
    writer = connection._writer
    if writer is not None:
        with contextlib.suppress(AttributeError):
            writer.transport.abort()
    connection._close()  # type: ignore[no-untyped-call]


@contextlib.asynccontextmanager
async def _opened(endpoint: _Direct, timeout: float) -> AsyncGenerator[AbstractConnection]:
    connection = await endpoint.open(timeout)
    try:
        yield connection
    finally:
        await close(connection)


async def _ask(endpoint: _Direct, timeout: float, *command: str) -> Any:
    """One command on a connection of its own."""
    async with _opened(endpoint, timeout) as connection:
        return await roundtrip(connection, timeout, *command)


async def next_message(connection: AbstractConnection, quiet: float) -> list[Any]:
    """The next message of a subscription; empty for one that means nothing.

    A connection that is silent for `quiet` seconds is asked whether it lives: a half-open one never says anything,
    and raises nothing. Raises redis-py's errors, ``OSError`` and ``TimeoutError``.
    """
    message = await connection.read_response(disable_decoding=True, timeout=quiet, disconnect_on_error=False)
    if message is None:
        async with asyncio.timeout(quiet / 2):
            await send(connection, ("PING", "still there?"))
            message = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
    return message if isinstance(message, list) else []


async def roundtrip(connection: AbstractConnection, timeout: float, *command: Any) -> Any:
    """One command on a connection that nobody else uses now.

    Raises `Unanswered`, `GroupMissing` or `RedisRejected`; the connection is to be closed then.
    """
    try:
        async with asyncio.timeout(timeout):
            await send(connection, command)
            return await connection.read_response(disable_decoding=True)
    except (RedisError, OSError, TimeoutError) as error:
        raise faults.of(error) from error
