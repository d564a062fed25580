"""The value of a lock: what its holder says about itself.

Some scripts read it, too, with patterns and not as JSON. So its first three items keep their order and form, and
an order of an operator is its last one.
"""

import json
import os
import socket
import time
from datetime import datetime
from typing import Any, NamedTuple

from redis_stream_client._model.options import Options
from redis_stream_client._model.version import __version__
from redis_stream_client._protocol.replies import Holder

_TIME = "%Y-%m-%dT%H:%M:%S"


class Says(NamedTuple):
    """What a holder says about its work, besides what it can bear.

    Attributes:
        draining: it takes no new streams, and will leave.
        paused_ms: it takes no new streams because of the pause that began then, in ms; None: it may take some.
    """

    draining: bool = False
    paused_ms: int | None = None


NOTHING = Says()
"""It takes new streams."""


def encode(options: Options, says: Says = NOTHING, taken: float | None = None) -> str:
    """The value of the lock of a client with these options. `taken`: when it took the lock, in Unix seconds; None:
    now."""
    value = {
        "ttl": options.lock_ttl_ms,
        "weight": options.weight,
        "max_streams": options.max_streams,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime(f"{_TIME}Z", time.gmtime(taken)),
        "version": __version__,
    }
    if says.draining:
        value["draining"] = True
    if says.paused_ms is not None:
        value["paused"] = says.paused_ms
    return json.dumps(value)


class Description(NamedTuple):
    """All that a holder says about itself. None: it does not say, or that makes no sense.

    Attributes:
        holder: what it can bear.
        ttl_ms: the lifetime of its lock in milliseconds.
        host, pid, version: of its process.
        started: when it took the lock, in Unix seconds.
        says: what it says about its work.
        drain_ordered: whether an operator has ordered it to drain.
    """

    holder: Holder
    ttl_ms: int | None
    host: str | None
    pid: int | None
    version: str | None
    started: float | None
    says: Says
    drain_ordered: bool


def decode(value: bytes) -> Holder:
    """What a holder can bear. Whatever is missing, as in the locks of older versions, or makes no sense has its
    default."""
    return _holder(_said(value))


def describe(value: bytes) -> Description:
    """All that a holder says."""
    said = _said(value)
    return Description(
        holder=_holder(said),
        ttl_ms=_positive(said.get("ttl")),
        host=_text(said.get("host")),
        pid=_positive(said.get("pid")),
        version=_text(said.get("version")),
        started=_time(said.get("started")),
        says=Says(said.get("draining") is True, _positive(said.get("paused"))),
        drain_ordered="drain" in said,
    )


def _said(value: bytes) -> dict[str, Any]:
    try:
        said = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _holder(said: dict[str, Any]) -> Holder:
    weight, most = said.get("weight"), said.get("max_streams")
    return Holder(
        float(weight) if isinstance(weight, int | float) and 0 < weight < float("inf") else 1.0,
        most if isinstance(most, int) and most > 0 else None,
        _positive(said.get("ttl")),
    )


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _time(value: object) -> float | None:
    try:
        return datetime.strptime(value, f"{_TIME}%z").timestamp() if isinstance(value, str) else None
    except ValueError:
        return None
