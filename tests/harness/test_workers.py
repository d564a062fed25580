"""The worker processes of the suite: they join, report, hang, die and leave as asked."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.connection import Connection
    from tests.harness.workers import Worker

ANNOUNCEMENT = '{"DataStreamName": "call-17", "Info": null}'


async def test_it_joins_reports_and_leaves(
    start_worker: Callable[..., Awaitable[Worker]], redis: Connection, service: str
) -> None:
    worker = await (await start_worker()).joined()
    id = await redis.xadd(f"{service}-input", {"lbs-input": ANNOUNCEMENT})
    added = await worker.wait_for_event(lambda event: event.event == "added")
    assert (added.client, added.stream, added.lbs_id) == (worker.client, "call-17", id.decode())
    worker.terminate()
    assert await worker.exit_code() == 0
    assert worker.events[-1].event == "left"
    assert not worker.errors


async def test_a_killed_one_says_nothing_more(start_worker: Callable[..., Awaitable[Worker]]) -> None:
    worker = await (await start_worker()).joined()
    worker.kill()
    assert await worker.exit_code() == -signal.SIGKILL
    assert [event.event for event in worker.events] == ["joined"]
    with pytest.raises(AssertionError, match="the worker has ended"):
        await worker.wait_for_event(lambda event: event.event == "left")


async def test_a_frozen_one_does_nothing_until_it_is_thawed(
    start_worker: Callable[..., Awaitable[Worker]], redis: Connection, service: str
) -> None:
    worker = await (await start_worker(lock_ttl=60)).joined()

    async def reads() -> bool:
        return bool((await redis.info("clients"))["blocked_clients"])

    await wait_until(reads, "it waits for announcements")
    worker.freeze()
    await redis.xadd(f"{service}-input", {"lbs-input": ANNOUNCEMENT})

    async def executed() -> bool:
        groups = await redis.xinfo_groups(f"{service}-input")
        return bool(groups and groups[0]["pending"] == 1)

    await wait_until(executed, "its blocked read was served all the same")
    assert len(worker.events) == 1
    worker.thaw()
    await worker.wait_for_event(lambda event: event.event == "added")


async def test_one_that_cannot_join_ends_with_its_error(
    start_worker: Callable[..., Awaitable[Worker]],
) -> None:
    worker = await start_worker(url="redis://127.0.0.1:1", connect_timeout=0.2)
    assert await worker.exit_code() != 0
    assert "RedisUnavailable" in worker.errors
