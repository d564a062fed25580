"""A worker program, as a user would write one: `python -m tests.harness.worker <setup as JSON>`.

It uses the public interface alone and reports what happens as JSON lines; see `workers.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from redis_stream_client import (
    AlreadyClaimed,
    ExpiredStream,
    Lease,
    NotJoined,
    NotOwner,
    RedisStreamClient,
    RedisUnavailable,
    StreamAdded,
    StreamDisowned,
    StreamExpired,
    StreamGone,
)
from tests.harness.loops import loop_factory

if TYPE_CHECKING:
    from collections.abc import Mapping


class Program:
    """The worker: one client, and the reports about it."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self.client = RedisStreamClient.from_url(setup["url"], setup["service"], **setup["options"])
        self.claims: bool = setup["claim"]
        self.finishes: bool = setup["finish"]

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with self.client:
                self.report("joined")
                async for event in self.client.events():
                    match event:
                        case StreamAdded(lease):
                            await self.own("added", lease)
                        case StreamExpired(stream):
                            self.report("expired", stream)
                            if self.claims:
                                await self.claim(stream)
                        case StreamDisowned(lease):
                            self.report("disowned", lease, str(event.reason))
        finally:
            self.report("left")

    async def claim(self, stream: ExpiredStream) -> None:
        """Try to take over a stream."""
        try:
            lease = await self.client.claim(stream)
        except AlreadyClaimed as error:
            self.report("already_claimed", stream, str(error.owner))
        except StreamGone:
            self.report("gone", stream)
        except (NotJoined, RedisUnavailable) as error:
            self.report("not_claimed", stream, repr(error))
        else:
            await self.own("claimed", lease)

    async def own(self, event: str, lease: Lease) -> None:
        """Report a stream that is ours now, and finish it if asked to."""
        self.report(event, lease)
        if self.finishes:
            with contextlib.suppress(NotOwner):
                await lease.done()
                self.report("done", lease)

    def report(self, event: str, payload: Lease | ExpiredStream | None = None, detail: str = "") -> None:
        """Write one line of JSON."""
        line = {"event": event, "time": time.time(), "client": self.client.id, "detail": detail}
        if payload is not None:
            line |= {"stream": payload.stream, "lbs_id": payload.lbs_id}
        if isinstance(payload, Lease):
            line["fence"] = str(payload.fence)
        print(json.dumps(line), flush=True)


async def main() -> None:
    """Run until SIGTERM."""
    program = asyncio.create_task(Program(json.loads(sys.argv[1])).run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, program.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await program


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
