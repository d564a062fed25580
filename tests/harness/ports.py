"""Free TCP ports that stay free while a server restarts."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"

# Below every usual ephemeral range: no outgoing connection takes one while its server is down.
PORTS = range(11_000, 32_000)

# Not the `random` module's own generator: pytest-randomly seeds that alike in all workers.
_random = random.SystemRandom()


def free_port() -> int:
    """Choose a random port that nobody listens on now.

    Somebody may be quicker to bind it: who listens on it must try again with another one when that fails.
    """
    for _ in range(100):
        port = _random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {PORTS.start} and {PORTS.stop}")
