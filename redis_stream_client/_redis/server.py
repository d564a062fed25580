"""Which server a connection has met: its version, its role, and whether it may have lost writes since."""

import re
from collections.abc import Callable

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.wire import roundtrip

OLDEST_SERVER = (6, 2)


class ServerIdentity:
    """Learns, on each new connection, which server it is; knows when it is another one than before.

    The connections to one place share it. One that meets another server, or the same one after it has lost writes,
    says so: the others may be talking to a server that is not responsible any more.

    Args:
        on_change: called with the history when it is another one than before, and both are known.
        clustered: whether the server may be a node of a Redis Cluster. By a client that does not follow slots,
            streams that other nodes have would be owned and never read.

    Attributes:
        history: changes whenever Redis may have lost writes that it had answered: after a restart, and after
            a fail-over to a replica. None where ``INFO`` is not permitted.
    """

    def __init__(self, on_change: Callable[[str], None] | None = None, *, clustered: bool = True) -> None:
        self._on_change = on_change
        self._clustered = clustered
        self.history: str | None = None

    async def __call__(self, connection: AbstractConnection, timeout: float) -> None:
        """Raises `RedisRejected` for a server that is too old, `Unanswered` for one that is no master."""
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
        """Where ``INFO`` is not permitted, another command may tell."""
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
        hint="streams that other nodes have would be owned and never read",
    )


def check_version(version: str) -> None:
    """Raise `RedisRejected` for a server that is too old; a version that cannot be read is let pass."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < OLDEST_SERVER:
        raise RedisRejected(
            f"Redis {version} is too old",
            hint=f"Redis {OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or later is needed",
        )


def _parse_info(reply: bytes) -> dict[str, str]:
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
