"""The end of an event loop: what is kept open is closed before, without a task."""

from __future__ import annotations

import asyncio
import gc

from redis_stream_client._concurrency.loop_end import AtLoopEnd
from tests.harness.loops import loop_factory


def run(main: object) -> None:
    """Run a coroutine function in a loop of its own, of the kind under test."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())  # type: ignore[operator]


def test_the_call_is_made_when_the_loop_ends_and_in_the_loop() -> None:
    calls: list[bool] = []
    kept: list[AtLoopEnd] = []

    async def main() -> None:
        kept.append(AtLoopEnd(lambda: calls.append(asyncio.get_running_loop().is_running())))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await asyncio.sleep(0)
        assert not calls

    run(main)
    assert calls == [True]


def test_what_is_forgotten_is_called_at_once_and_not_again() -> None:
    calls: list[int] = []

    async def main() -> None:
        at_end = AtLoopEnd(lambda: calls.append(1))
        at_end.forget()
        assert calls == [1]
        del at_end
        gc.collect()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)
    assert calls == [1]
