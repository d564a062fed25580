"""The options of a client that was made with its defaults, but for what a test names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis_stream_client._model import options

if TYPE_CHECKING:
    from redis_stream_client._model.options import Options

DEFAULTS: dict[str, Any] = {
    "consumer_name": None,
    "lock_ttl": 2.0,
    "heartbeat_interval": None,
    "max_streams": None,
    "prefetch": 32,
    "connect_timeout": 5.0,
    "progress_ttl": options.PROGRESS_TTL,
}


def checked(service: str = "orders", **given: Any) -> Options:
    """Check them as the constructor does."""
    return options.check(service, **{**DEFAULTS, **given})
