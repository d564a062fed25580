"""This library with its sweeps taken out, and so without its promise: it shows what they cost."""

from __future__ import annotations

import random

from redis_stream_client._concurrency import clock
from redis_stream_client._consumer.heartbeat import Heartbeat
from redis_stream_client._consumer.sweeper import Sweeper


def stop_sweeping() -> None:
    """From now on no client of this process asks for a turn, or looks.

    What it then sends comes as irregularly as before: beats in step would cost the server less for each.
    """
    Sweeper._take_turn = _no_turn  # type: ignore[assignment, method-assign]
    Heartbeat._until_due = _until_due  # type: ignore[assignment, method-assign]


async def _no_turn(sweeper: Sweeper) -> None:
    sweeper._next_turn = clock.now() + 3_600


def _until_due(heartbeat: Heartbeat) -> float:
    """On the average the usual time."""
    beat_at = heartbeat._lock_state.beat_at or 0.0
    interval = heartbeat._interval * random.Random(beat_at).uniform(0.8, 1.2)
    return beat_at + interval - clock.now()
