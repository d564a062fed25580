"""How the processes of a run reach its servers: through proxies of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import RedisClusterException, RedisError

if TYPE_CHECKING:
    from collections.abc import Mapping

ERRORS = (RedisError, RedisClusterException)
"""What redis-py raises."""


def link(setup: Mapping[str, Any], *, timeout: float) -> Any:
    """A client of redis-py that repeats nothing."""
    return Redis.from_url(setup["url"], socket_timeout=timeout, socket_connect_timeout=timeout)
