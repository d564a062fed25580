"""The value of a lock: what its holder says about itself.

Some scripts read it, too, with patterns and not as JSON. So its first three items keep their order and form.
"""

import json
import os
import socket
import time

from redis_stream_client._model.options import Options
from redis_stream_client._model.version import __version__
from redis_stream_client._protocol.replies import Holder


def encode(options: Options) -> str:
    """The value of the lock of a client with these options."""
    return json.dumps(
        {
            "ttl": options.lock_ttl_ms,
            "weight": options.weight,
            "max_streams": options.max_streams,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "version": __version__,
        }
    )


def decode(value: bytes) -> Holder:
    """What a holder says. Whatever is missing, as in the locks of older versions, or makes no sense has its
    default."""
    try:
        said = json.loads(value)
    except ValueError:
        return Holder()
    if not isinstance(said, dict):
        return Holder()
    weight, most = said.get("weight"), said.get("max_streams")
    return Holder(
        float(weight) if isinstance(weight, int | float) and 0 < weight < float("inf") else 1.0,
        most if isinstance(most, int) and most > 0 else None,
    )
