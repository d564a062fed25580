"""Finding the master by Sentinel.

The user's own ``Sentinel`` decides, with its `discover_master()`, `force_master_ip` and `min_other_sentinels`, and
so does the user's own pool, with its `get_master_address()`. Both are copies that ask the sentinels on our
connections.
"""

import asyncio
import copy
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from redis_stream_client._concurrency import clock
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._redis import redis_py
from redis_stream_client._redis.connecting import Connector, describe
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.unhelpful import Unhelpful

SHORTEST = 0.1  # the least number of seconds to wait for one sentinel


class Masters:
    """Finds the master for one pool of the user."""

    def __init__(self, pool: SentinelConnectionPool) -> None:
        self._pool = pool
        self.service = str(pool.service_name)
        self._sentinels: list[Any] = list(pool.sentinel_manager.sentinels)
        self._connectors = {
            id(sentinel): Connector(
                sentinel.connection_pool.connection_class, sentinel.connection_pool.connection_kwargs
            )
            for sentinel in self._sentinels
            if isinstance(sentinel, Redis)
        }
        self._silent = Unhelpful[int]()
        self._answered: int | None = None
        self._turn = -1

    async def find(self, timeout: float) -> tuple[tuple[str, int], Any]:
        """The address of the master, and the pool that named it. Raises `Unanswered` or `RedisRejected`."""
        self._turn += 1  # ask another one first each time, since one may know an old master
        turn = self._turn % len(self._sentinels) if self._sentinels else 0
        order = self._sentinels[turn:] + self._sentinels[:turn]
        order.sort(key=lambda sentinel: self._silent.since(id(sentinel)))
        patience = max(SHORTEST, timeout / (len(order) + 1))
        rejections: list[RedisRejected] = []
        clients = [self._asked(sentinel, patience, rejections) for sentinel in order]
        manager = copy.copy(self._pool.sentinel_manager)
        manager.sentinels = clients
        pool = redis_py.empty_copy(self._pool, sentinel_manager=manager)
        pool.master_address = None
        task = asyncio.current_task()
        assert task is not None
        deadline = asyncio.timeout(timeout)
        try:
            async with deadline:
                host, port = await pool.get_master_address()
                return (_text(host), int(port)), pool
        except Unanswered:
            raise
        except asyncio.CancelledError as error:
            if task.cancelling():
                raise
            raise Unanswered("discover_master() was cancelled by itself", maybe_executed=False) from error
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # discover_master() may be the user's
            if deadline.expired():
                what = f"no sentinel named the master of {self.service!r} in time"
                raise Unanswered(what, maybe_executed=False) from None
            if rejections and len(rejections) == len(order):
                raise rejections[0] from rejections[0].__cause__
            what = str(error) if isinstance(error, RedisError) else describe(error)
            if not rejections and isinstance(error, RedisError) and "No master found" in what:
                what = f"no sentinel knows a master of {self.service!r}: {what}"
            raise Unanswered(what, maybe_executed=False) from error
        finally:
            for client in clients:
                if isinstance(client, Redis):
                    await client.connection_pool.disconnect()

    def doubt(self) -> None:
        """Note that the last master is none, or does not answer: ask other sentinels first."""
        if self._answered is not None:
            self._silent.mark(self._answered)

    def _asked(self, sentinel: Any, patience: float, rejections: list[RedisRejected]) -> Any:
        """A copy of the user's client for a sentinel, which opens one of our connections for each command."""
        connector = self._connectors.get(id(sentinel))
        if connector is None:  # no client of redis-py's: the user's own affair
            return sentinel
        pool: Any = ConnectionPool(connection_class=connector.connection_class, **connector.settings)
        client: Any = type(sentinel).from_pool(pool)

        async def execute_command(*args: Any, **options: Any) -> Any:
            asked_at = clock.now()
            try:
                connection = await connector.open(patience)
                try:
                    async with asyncio.timeout(patience):
                        await connection.send_command(*args)
                        reply = await client.parse_response(connection, args[0], **options)
                        self._answered = id(sentinel)
                        return reply
                finally:
                    await connection.disconnect(nowait=True)
            except (Unanswered, TimeoutError) as error:
                self._silent.mark(id(sentinel), asked_at)  # ask it last the next time
                raise RedisTimeoutError(str(error) or "no answer in time") from error
            except RedisRejected as error:
                self._silent.mark(id(sentinel), asked_at)
                rejections.append(error)
                raise RedisTimeoutError(str(error)) from error

        client.execute_command = execute_command
        return client


class KnownMaster:
    """Stands in for the pool that a Sentinel connection asks for its master, and knows the answer already."""

    def __init__(self, pool: Any, address: tuple[str, int]) -> None:
        self._pool = pool
        self._address = address

    async def get_master_address(self) -> tuple[str, int]:
        """The address of the master."""
        return self._address

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def _text(host: str | bytes) -> str:
    return host.decode() if isinstance(host, bytes) else str(host)
