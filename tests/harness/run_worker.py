"""A worker program as a user of `run()` would write one: `python -m tests.harness.run_worker <setup as JSON>`.

What it does with a stream is said by the first word of the stream's name. It reports as `worker.py` does.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from redis_stream_client import Lease, NotOwner, Rebalance, RedisStreamClient, RetryPolicy
from tests.harness.loops import loop_factory
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

RULES = ("drain_timeout", "retry", "max_attempts", "progress_timeout", "handle_signals", "rebalance")


class Program:
    """One client in `run()`, and the reports about it."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        options = dict(setup["options"])
        self.rules = {name: options.pop(name) for name in RULES if name in options}
        if "retry" in self.rules:  # JSON's word for it
            self.rules["retry"] = RetryPolicy(**self.rules["retry"])
        if "rebalance" in self.rules:
            self.rules["rebalance"] = Rebalance(**self.rules["rebalance"])
        self.client = RedisStreamClient.from_url(setup["url"], setup["service"], **options)

    async def main(self) -> None:
        """Run until a signal."""
        joined = asyncio.create_task(self.joined())
        await self.client.run(self.handle, handle_signals=True, **self.rules)
        await joined
        self.report("left")

    async def joined(self) -> None:
        """Report when the client has joined."""
        await wait_until(lambda: self.client.alive, "it has joined", timeout=20.0)
        self.report("joined")

    async def handle(self, lease: Lease) -> None:
        """Follow a stream, but for those whose name says otherwise."""
        self.report("handling", lease, f"{lease.attempts} {lease.position}")
        match lease.stream.partition("-")[0]:
            case "poison":
                os.kill(os.getpid(), signal.SIGKILL)
            case "deaf":  # it reads nothing, and ends when it is cancelled
                await asyncio.get_running_loop().create_future()
            case "dying":  # of the cancellation, before its stream is released
                try:
                    await self.follow(lease, frozen=False)
                except asyncio.CancelledError:
                    os.kill(os.getpid(), signal.SIGKILL)
            case "failing":
                raise LookupError("no such customer")
            case "blocked":
                time.sleep(3600)  # noqa: ASYNC251
            case first:
                try:
                    await self.follow(lease, frozen=first == "frozen")
                except BaseException as error:
                    self.report("failed", lease, type(error).__name__)
                    raise

    async def follow(self, lease: Lease, *, frozen: bool) -> None:
        """Checkpoint every entry; if `frozen`, the process stops itself after the first one was handed over."""
        async for entry in lease.entries():
            self.report("handed", lease, entry.id)
            if frozen and lease.deliveries == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
            try:
                await lease.checkpoint(entry.id)
            except NotOwner:
                self.report("refused", lease, entry.id)
                raise
            self.report("accepted", lease, entry.id)
            if b"end" in entry.fields:
                self.report("returned", lease)
                return

    def report(self, event: str, lease: Lease | None = None, detail: str = "") -> None:
        """Write one line of JSON."""
        line = {"event": event, "time": time.time(), "client": self.client.id, "detail": detail}
        if lease is not None:
            line |= {"stream": lease.stream, "lbs_id": lease.lbs_id, "fence": str(lease.fence)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(Program(json.loads(sys.argv[1])).main())
