"""A worker that stands still, and then acts as if no time had passed: `python -m tests.harness.sleeper <setup>`.

The setup is JSON. It stands still when it is given the stream `stop-…` (SIGSTOP, until somebody lets it go on) or
`block-…` (its event loop, for three lifetimes of the lock). What it does afterwards, before anything else, is said
by the first word of the names of the streams that it has by then: done, release, checkpoint, return, or claim, of
what it was offered. It reports as `worker.py` does, and also still, awake and late (detail: the word, and what
came of it).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.harness import run_worker, worker
from tests.harness.loops import loop_factory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from redis_stream_client import ExpiredStream, Lease

STANDING_STILL = ("stop", "block")


def first_word(stream: str) -> str:
    """What a stream's name says."""
    return stream.partition("-")[0]


def stand_still(how: str, lock_ttl: float) -> None:
    """For longer than the lock lives."""
    if how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        time.sleep(3 * lock_ttl)


class Reader(worker.Program):
    """It reads events, and claims only after it has stood still."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        super().__init__(setup)
        self._lock_ttl: float = setup["options"]["lock_ttl"]
        self._held: dict[str, Lease] = {}
        self._offered: ExpiredStream | None = None

    async def claim(self, stream: ExpiredStream) -> None:
        """Keep the offer for later."""
        self._offered = stream

    async def own(self, event: str, lease: Lease) -> None:
        """Keep the lease, and stand still if told to."""
        word = first_word(lease.stream)
        if word == "checkpoint":
            await anext(lease.entries())
        self._held[word] = lease
        self.report(event, lease)
        if word in STANDING_STILL:
            await self._sleep(word, lease)

    async def _sleep(self, how: str, lease: Lease) -> None:
        self.report("still", lease)
        stand_still(how, self._lock_ttl)
        owned = [lease.stream for lease in self._held.values() if lease.owned]
        self.report("awake", lease, " ".join(owned))
        assert self._offered is not None
        await asyncio.gather(
            self._late(self._held["done"], self._held["done"].done()),
            self._late(self._held["release"], self._held["release"].release()),
            self._late(self._held["checkpoint"], self._held["checkpoint"].checkpoint("99-0")),
            self._late(self._offered, self.client.claim(self._offered)),
        )

    async def _late(self, payload: Lease | ExpiredStream, act: Awaitable[object]) -> None:
        (outcome,) = await asyncio.gather(act, return_exceptions=True)
        self.report("late", payload, f"{first_word(payload.stream)} {type(outcome).__name__}")


class Runner(run_worker.Program):
    """It is in `run()`; its handlers wait until it has stood still."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        super().__init__(setup)
        self._lock_ttl: float = setup["options"]["lock_ttl"]
        self._awake = asyncio.Event()

    async def handle(self, lease: Lease) -> None:
        """Do what the stream's name says, too late."""
        word = first_word(lease.stream)
        if word == "checkpoint":
            await anext(lease.entries())
        self.report("handling", lease)
        if word in STANDING_STILL:
            self.report("still", lease)
            stand_still(word, self._lock_ttl)
            self._awake.set()
            self.report("awake", lease)
        else:
            await self._awake.wait()
        if word == "checkpoint":
            try:
                await lease.checkpoint("99-0")
            except BaseException as error:
                self.report("late", lease, f"checkpoint {type(error).__name__}")
                raise
            self.report("late", lease, "checkpoint accepted")
        self.report("returned", lease)


def main() -> None:
    """Read events, or run."""
    setup = json.loads(sys.argv[1])
    in_run = setup["options"].pop("in_run")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(Runner(setup).main() if in_run else Reader(setup).run())


if __name__ == "__main__":
    main()
