"""This library with its sweeps taken out, and so without its promise: it shows what they cost."""

from __future__ import annotations

import asyncio

from redis_stream_client._consumer.heartbeat import LockRenewal

_beat = LockRenewal.beat


def stop_sweeping() -> None:
    """From now on no client of this process asks for a turn, or looks."""
    LockRenewal.beat = _beat_without_turns  # type: ignore[method-assign, assignment]


async def _beat_without_turns(renewal: LockRenewal, turn: float | None = None) -> bool:
    """A beat; whoever asks for a turn with it waits for ever."""
    if turn is not None:
        await asyncio.get_running_loop().create_future()
    return await _beat(renewal)
