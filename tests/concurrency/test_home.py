"""The process and the event loop that something belongs to."""

from __future__ import annotations

import asyncio

import pytest

from redis_stream_client._concurrency.home import Home


async def test_it_is_at_home_in_its_own_process_and_loop() -> None:
    home = Home(forked="forked from {process}", other_loop="another loop")
    home.require_here()
    assert home.in_this_process


async def test_another_loop_is_not_its_home() -> None:
    home = Home(forked="forked from {process}", other_loop="another loop")

    async def elsewhere() -> None:
        home.require_here()

    with pytest.raises(RuntimeError, match="another loop"):
        await asyncio.to_thread(asyncio.run, elsewhere())
