"""The contenders: this library, and what it is held against, each written as its users would write it."""

from __future__ import annotations

MODULES = {
    "run()": "ours",
    "events()": "events",
    "lock per stream": "lock_per_stream",
    "XAUTOCLAIM": "autoclaim",
    "streaq": "streaq_queue",
}
"""The module that holds each contender's program."""
