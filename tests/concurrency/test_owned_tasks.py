"""Tasks that belong to an owner, and not to whoever waits for them."""

from __future__ import annotations

import asyncio

import pytest

from redis_stream_client._concurrency.home import Home
from redis_stream_client._concurrency.owned_tasks import OwnedTasks


class Closed(Exception):
    """The owner is gone."""


def owned_tasks() -> OwnedTasks[Closed]:
    home = Home(forked="forked from {process}", other_loop="another loop")
    return OwnedTasks(home, closed=Closed, expected=lambda error: isinstance(error, LookupError))


async def test_work_goes_on_when_whoever_waits_for_it_is_cancelled() -> None:
    tasks, go_on = owned_tasks(), asyncio.Event()

    async def wait() -> None:
        await asyncio.wait((work,))

    work = tasks.spawn(go_on.wait())
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert tasks.running == [work]
    go_on.set()
    assert await work is True
    assert tasks.running == []


async def test_after_the_end_nothing_starts() -> None:
    tasks, go_on = owned_tasks(), asyncio.Event()
    before = tasks.spawn(go_on.wait())
    tasks.end()
    assert tasks.ending.is_set()
    with pytest.raises(Closed):
        tasks.spawn(go_on.wait())
    go_on.set()
    assert await before is True, "what runs already goes on"


async def test_an_unexpected_error_ends_all_and_is_the_cause_of_what_later_calls_are_told() -> None:
    tasks = owned_tasks()

    async def fail(error: Exception) -> None:
        raise error

    await asyncio.wait((tasks.spawn(fail(KeyError("mine alone"))),))
    assert not tasks.ended
    why = OSError("for all")
    await asyncio.wait((tasks.spawn(fail(why)),))
    assert tasks.ended
    assert tasks.gone().__cause__ is tasks.failure is why
    tasks.fail(OSError("later"))
    assert tasks.failure is why


async def test_a_cancelled_task_is_no_failure() -> None:
    tasks = owned_tasks()
    work = tasks.spawn(asyncio.Event().wait())
    work.cancel()
    await asyncio.wait((work,))
    assert not tasks.ended


async def test_on_another_loop_nothing_starts() -> None:
    tasks = owned_tasks()

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="another loop"):
            tasks.spawn(asyncio.sleep(0))

    await asyncio.to_thread(asyncio.run, elsewhere())
