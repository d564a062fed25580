"""Ring 1: handler tasks wait for what becomes of their streams, whose owners have died."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

from redis_stream_client import RetryPolicy
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.trouble import Trouble
from redis_stream_client._model.announcement import Announcement
from redis_stream_client._model.statistics import Counters
from redis_stream_client._run.outcome import Rules
from redis_stream_client._run.probation import NAMED, Probation
from tests.harness.logs import LOG
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest


class CaughtUp:
    """What a stream is read with that has no more entries."""

    caught_up = True


class Client:
    """A client whose streams have nothing to do, as far as `Probation` sees it."""

    def __init__(self, policy: RetryPolicy | None = None) -> None:
        self.held: list[LeaseState] = []
        self.acquitted: list[str] = []
        self.cleared: list[str] = []
        self.counters = Counters()
        self.members = 1
        rules = Rules(policy or RetryPolicy(), None, 1.0)
        self.probation = Probation(
            rules,
            log=LOG,
            held=self.held,
            acquit=self.acquit,
            clear=self.clear,
            counters=self.counters,
            members=lambda: self.members,
            unseen=1.5,
        )

    async def acquit(self, leases: Sequence[LeaseState]) -> None:
        for lease in leases:
            self.acquitted.append(lease.stream)
            lease.acquit()

    async def clear(self, leases: Sequence[LeaseState]) -> None:
        self.cleared += [lease.stream for lease in leases]

    def own(self, stream: str, deaths: int = 0) -> LeaseState:
        lease = LeaseState(f"{len(self.held) + 1}-0", Announcement(stream, None), deaths + 1)
        if deaths:
            lease.suspected(deaths, Trouble.found(0, 0.0, "", lived=0.01))
        self.held.append(lease)
        return lease

    def wait(self, lease: LeaseState) -> asyncio.Task[str]:
        return asyncio.create_task(self.handle(lease))

    async def handle(self, lease: LeaseState) -> str:
        return await self.probation.verdict(lease)


def comes_to_rest(lease: LeaseState) -> None:
    """Its handler has begun, and waits for an entry."""
    lease.begin(None, lease.attempts, trouble=lease.trouble)
    lease.reading = CaughtUp()
    lease.start_waiting()


async def test_the_next_one_starts_when_the_first_has_nothing_left_to_do() -> None:
    client = Client()
    leases = [client.own(f"stream-{i}", 2) for i in range(2)]
    waiting = {client.wait(lease): lease for lease in leases}
    (begun,), (other,) = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert begun.result() == "start"
    assert client.counters.suspects == 1
    comes_to_rest(waiting[begun])
    assert await other == "start"
    assert client.acquitted == [waiting[begun].stream], "so that it is not charged, should the other one kill"
    assert client.counters.suspects == 0


async def test_the_next_one_starts_when_the_first_progresses_or_ends() -> None:
    client = Client()
    leases = [client.own(f"stream-{i}", 2) for i in range(3)]
    waiting = [client.wait(lease) for lease in leases]
    await waiting[0]
    client.probation.progressed(leases[0])
    await waiting[1]
    client.probation.ended(leases[1])
    await waiting[2]
    assert client.acquitted == []


async def test_whoever_is_cancelled_waits_no_more() -> None:
    client = Client()
    leases = [client.own(f"stream-{i}", deaths) for i, deaths in enumerate((2, 8, 9))]
    waiting = [client.wait(lease) for lease in leases]
    await waiting[0]
    assert client.counters.suspects == 2
    for task in waiting[1:]:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert client.counters.suspects == 0
    last = client.own("last", 2)
    client.probation.ended(leases[0])
    assert await client.probation.verdict(last) == "start"


async def test_a_stream_is_known_again_when_a_new_lease_of_it_arrives() -> None:
    """Each client passes a stream on once at the most."""
    client = Client(RetryPolicy(longest_pause=0.02, first_pause=0.01))
    client.members = 2
    passes: Counter[str] = Counter()
    for number in range(60):
        lease = LeaseState(f"{number % 10 + 1}-0", Announcement("stream", None), 3)
        lease.suspected(2, Trouble.found(0, 0.0, "", lived=0.01))
        client.held[:] = [lease]
        if await client.probation.verdict(lease) == "pass":
            passes[lease.lbs_id] += 1
        client.probation.ended(lease)
    assert set(passes.values()) == {1}


async def test_one_that_rests_is_tried_and_then_buried() -> None:
    client = Client(RetryPolicy(max_attempts=3, patience=0, longest_pause=1.0, first_pause=0.0))
    comes_to_rest(client.own("healthy"))
    poison = client.own("poison", 2)
    assert await client.probation.verdict(poison) == "trial"
    poison.suspected(3, Trouble.found(0, 0.0, "", lived=0.01, trials=1))
    assert await client.probation.verdict(poison) == "bury"


async def test_those_that_live_well_are_cleared_before_another_starts() -> None:
    """A record says when a death was seen: these owners died at once."""
    client = Client()
    comes_to_rest(client.own("healthy"))
    slow, late = client.own("slow", 2), client.own("late", 3)
    for lease in (slow, late):
        lease.suspected(lease.deaths, Trouble.found(0, 0.0, "", lived=1.4))
    waiting = client.wait(late)
    assert await client.probation.verdict(slow) == "start"
    slow.begin(None, slow.attempts, trouble=slow.trouble)
    assert await waiting == "trial"
    assert client.cleared == ["slow"]
    client.probation.ended(slow)
    assert await client.probation.verdict(client.own("next", 2)) == "start"
    assert client.cleared == ["slow"], "once"


async def test_redis_that_does_not_answer_holds_nobody_up() -> None:
    client = Client()

    async def never(leases: Sequence[LeaseState]) -> None:
        await asyncio.get_running_loop().create_future()

    probation = Probation(
        Rules(RetryPolicy(), None, 1.0),
        log=LOG,
        held=client.held,
        acquit=never,
        clear=never,
        counters=client.counters,
        members=lambda: 1,
        unseen=0.0,
    )
    comes_to_rest(client.own("healthy"))
    assert await probation.verdict(client.own("suspect", 2)) == "start"


async def test_the_log_names_some_of_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client = Client()
    tasks = [client.wait(client.own(f"stream-{i}", 7)) for i in range(NAMED + 5)]
    await wait_until(lambda: any("so have" in record.getMessage() for record in caplog.records), "it is told")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings[0].startswith("7 owners of stream-0 have died without progress: ")
    assert warnings[-1] == "so have owners of 5 streams more"
    assert len(warnings) == NAMED + 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
