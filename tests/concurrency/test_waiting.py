"""Waiting ends with the event, or with the time; and a cancellation is no end of the time."""

from __future__ import annotations

import asyncio

import pytest

from redis_stream_client._concurrency.waiting import wait_for


@pytest.mark.parametrize("seconds", [None, float("inf"), 10.0])
async def test_an_event_ends_the_wait(seconds: float | None) -> None:
    event = asyncio.Event()
    waiting = asyncio.ensure_future(wait_for(event, seconds))
    await asyncio.sleep(0)
    event.set()
    assert await waiting


@pytest.mark.parametrize("seconds", [0.01, 0.0, -1.0])
async def test_the_time_ends_the_wait(seconds: float) -> None:
    assert not await wait_for(asyncio.Event(), seconds)


async def test_what_has_happened_already_needs_no_time() -> None:
    event = asyncio.Event()
    event.set()
    assert await wait_for(event, 0.0)


async def test_a_cancellation_goes_on_to_the_caller() -> None:
    event = asyncio.Event()
    waiting = asyncio.ensure_future(wait_for(event, 10.0))
    await asyncio.sleep(0)
    event.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
