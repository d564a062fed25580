"""Wait for a described condition: what tests do instead of sleeping."""

from __future__ import annotations

from redis_stream_client.testing import wait_until

__all__ = ["wait_until"]
