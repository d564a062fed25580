"""The identity of a server: its version, its role, and whether it may have lost writes."""

import re
from collections.abc import Callable

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.wire import roundtrip

OLDEST_SERVER = (6, 2)


class ServerIdentity:
    """Checks, on each new connection, which server it is, and notices a change.

    The connections to one endpoint share it. If one of them meets another server, or the same one after a loss of
    writes, it says so, because the others may talk to a server that is no longer responsible.

    Args:
        on_change: called with the new history when the history has changed, and both are known.
        clustered: whether the server may be a node of a Redis Cluster. A client that does not follow slots would
            own streams that are on other nodes, and never read them.

    Attributes:
        history: changes whenever Redis may have lost writes that it had confirmed: after a restart, and after a
            failover to a replica. None if ``INFO`` is not permitted.
    """

    def __init__(self, on_change: Callable[[str], None] | None = None, *, clustered: bool = True) -> None:
        self._on_change = on_change
        self._clustered = clustered
        self.history: str | None = None

    async def __call__(self, connection: AbstractConnection, timeout: float) -> None:
        """Check the server. Raises `RedisRejected` if it is too old, and `Unanswered` if it is no master."""
        try:
            info = _parse_info(await roundtrip(connection, timeout, "INFO", "server"))
            info |= _parse_info(await roundtrip(connection, timeout, "INFO", "replication"))
        except RedisRejected as error:
            if not isinstance(error.__cause__, ResponseError):  # the login, not the command
                raise
            self.history = None
            await self._refuse_a_cluster(connection, timeout)
            return
        check_version(info.get("redis_version", ""))
        if not self._clustered and "cluster" in (info.get("redis_mode"), info.get("server_mode")):
            raise _cluster_needed()
        if info.get("role", "master") != "master":
            raise Unanswered("connected to a replica", maybe_executed=False, elsewhere=True)
        before, self.history = self.history, f"{info.get('run_id')}/{info.get('master_replid')}"
        if before not in (None, self.history) and self._on_change is not None:
            self._on_change(self.history)

    async def _refuse_a_cluster(self, connection: AbstractConnection, timeout: float) -> None:
        """Find out by another command whether this is a Cluster, because ``INFO`` is not permitted."""
        if self._clustered:
            return
        try:
            await roundtrip(connection, timeout, "CLUSTER", "INFO")
        except RedisRejected:  # it is none, or may not be asked that, either
            return
        raise _cluster_needed()


def _cluster_needed() -> RedisRejected:
    return RedisRejected(
        "the server is a node of a Redis Cluster: give a redis.asyncio.RedisCluster instead of a Redis",
        hint="with a Redis, this client would own streams of other nodes and never read them",
    )


def check_version(version: str) -> None:
    """Raise `RedisRejected` if the server is too old. A version that cannot be read passes."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < OLDEST_SERVER:
        raise RedisRejected(
            f"Redis {version} is too old",
            hint=f"Redis {OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or later is needed",
        )


def _parse_info(reply: bytes) -> dict[str, str]:
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
