"""The settings of a user's client: each is kept, replaced by ours on purpose, or refused.

A setting that redis-py does not know belongs to a connection class of the user, and is kept.
"""

import re
from collections.abc import Mapping
from typing import Any

KEPT = {
    "host": "where",
    "port": "where",
    "path": "where",
    "unix_socket_path": "where",
    "db": "where",
    "startup_nodes": "where: they are asked when no node that was learned since answers",
    "dynamic_startup_nodes": "whether the nodes that were learned are asked, too",
    "address_remap": "where",
    "connection_class": "how, also on Sentinel and Cluster",
    "connection_kwargs": "the settings themselves",
    "connection_pool": "only a source of settings",
    "username": "who",
    "password": "who",
    "credential_provider": "who; asked for every connection, a blocking one in a thread",
    "client_name": "with the connection's role behind it",
    "driver_info": "who",
    "lib_name": "who",
    "lib_version": "who",
    "redis_connect_func": "what is said first on a connection",
    "ssl": "how encrypted",
    "socket_keepalive": "how",
    "socket_keepalive_options": "how",
    "socket_type": "how",
    "socket_read_size": "how",
    "encoding": "of what redis-py itself sends when it connects",
    "encoding_errors": "of what redis-py itself sends when it connects",
    "encoder_class": "of what redis-py itself sends when it connects",
}
"""Settings that hold for our connections, too; so do all that begin with ``ssl_``."""

_WAITS = "every wait has a deadline of our own"
_REPEATS = "what is sent again, and when, is decided here: a command that may have been executed is not sent twice"
_POOL = "the client has a few connections of its own, and no pool"
_REPLIES = "replies are read in one shape, as bytes"
_TOPOLOGY = "the primary of a slot is always asked, and looked up whenever it may have changed"
INTERNAL = "redis-py's own affair, between its parts"

OURS = {
    "socket_timeout": _WAITS,
    "socket_connect_timeout": _WAITS,
    "health_check_interval": _WAITS,
    "retry": _REPEATS,
    "retry_on_timeout": _REPEATS,
    "retry_on_error": _REPEATS,
    "connection_error_retry_attempts": _REPEATS,
    "cluster_error_retry_attempts": _REPEATS,
    "max_connections": _POOL,
    "timeout": _POOL,
    "queue_class": _POOL,
    "single_connection_client": _POOL,
    "auto_close_connection_pool": _POOL,
    "decode_responses": _REPLIES,
    "protocol": _REPLIES,
    "legacy_responses": _REPLIES,
    "parser_class": _REPLIES,
    "response_callbacks": _REPLIES,
    "require_full_coverage": _TOPOLOGY,
    "reinitialize_steps": _TOPOLOGY,
    "read_from_replicas": _TOPOLOGY,
    "load_balancing_strategy": _TOPOLOGY,
    "policy_resolver": _TOPOLOGY,
    "server_type": _TOPOLOGY,
    "maint_notifications_config": "needs RESP3; a connection that is cut is opened anew",
    "maint_notifications_pool_handler": INTERNAL,
    "maintenance_state": INTERNAL,
    "maintenance_notification_hash": INTERNAL,
    "oss_cluster_maint_notifications_handler": INTERNAL,
    "orig_host_address": INTERNAL,
    "orig_socket_timeout": INTERNAL,
    "orig_socket_connect_timeout": INTERNAL,
    "event_dispatcher": INTERNAL,
    "himport_registry": INTERNAL,
}
"""Settings that our connections do not use, and why."""

REFUSED = {
    "is_master": "a client of replicas, made by slave_for() or replica_for(): use master_for()",
    "make_connection": "a pool with a make_connection() of its own: give connection_class instead",
}
"""Settings that the constructor refuses, and what to do instead."""

DEFAULT_NAME = "redis_stream_client"


def own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of our connections, made from those of the user."""
    kept = {name: value for name, value in settings.items() if name not in OURS and name not in REPLACED}
    return {
        **kept,
        "protocol": 2,
        "decode_responses": False,
        "retry_on_error": [],
        # No timeouts of redis-py: with one it writes through asyncio.wait_for(), which on Python 3.11 swallows a
        # cancellation that arrives when the write is just done (measured: 6 of 13 points in connecting).
        "socket_timeout": None,
        "socket_connect_timeout": None,
    }


REPLACED = {
    "client_name",  # is told to Redis when the connection's role is known
    "connection_class",
    "connection_pool",  # what a connection of Sentinel's asks for the master
}


def client_name(given: object, role: str) -> str | None:
    """The name for ``CLIENT LIST``: the user's name and our role, without spaces and the like, which Redis
    refuses."""
    if not role and not given:
        return None
    name = f"{given or DEFAULT_NAME}:{role}" if role else str(given)
    return re.sub(r"[^!-~]", "-", name)
