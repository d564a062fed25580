"""A process of a fleet, as one of the contenders would write it.

`python -m benchmarks.member CONTENDER URL SERVICE PROGRAM CONSUMERS OPTIONS`, where PROGRAM is `consume`, to
follow every stream to its end, or `hold`, to own streams and nothing else, and OPTIONS are what the contender
takes besides, as JSON. It says on its standard output, in lines of `<what> <stream> <time> <member>`, what it
owns, lost and finished, and which entries it processed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import random
import sys
import time
from typing import Any, Literal, Protocol, cast

Programs = Literal["consume", "hold"]

FLUSH = 0.02
"""Seconds between two writes of what was reported: a write for each stream would be measured, too."""

BETWEEN = 0.02
"""Seconds between two members that begin in one process, on the average: they must not go on in step, for a server
that finds many requests at one time does each for less."""


class Report:
    """What a member says of its streams. The times are `time.monotonic()`, the same clock in all processes.

    The members of one process share the `lines` that are to be written.
    """

    def __init__(self, member: int, lines: list[str]) -> None:
        self._member = member
        self._lines = lines

    def ready(self) -> None:
        """A consumer takes part from now on."""
        self._say("ready", "-")

    def own(self, stream: str) -> None:
        """It begins to work on a stream."""
        self._say("own", stream)

    def entry(self, stream: str, entry_id: str) -> None:
        """It has processed an entry of a stream."""
        self._say("entry", f"{stream}@{entry_id}")

    def lose(self, stream: str) -> None:
        """It has stopped working on a stream, which it did not finish."""
        self._say("lose", stream)

    def finish(self, stream: str) -> None:
        """It has finished a stream."""
        self._say("finish", stream)

    def _say(self, what: str, stream: str) -> None:
        self._lines.append(f"{what} {stream} {time.monotonic():.6f} {self._member}\n")


async def write(lines: list[str]) -> None:
    """Write what was reported, for ever."""
    while True:
        await asyncio.sleep(FLUSH)
        flush(lines)


def flush(lines: list[str]) -> None:
    """Write what was reported."""
    if lines:
        sys.stdout.write("".join(lines))
        sys.stdout.flush()
        lines.clear()


class Contender(Protocol):
    """What a module in `contenders` offers to be run as a process."""

    async def consume(self, url: str, service: str, report: Report, **options: Any) -> None:
        """Take part until SIGTERM: follow every stream to its end, remembering how far it got."""

    async def hold(self, url: str, service: str, report: Report, **options: Any) -> None:
        """Take part until killed: own streams, and leave them unread."""


async def main(contender: str, url: str, service: str, program: Programs, consumers: str, options: str) -> None:
    """Run so many members in this process."""
    module = cast("Contender", importlib.import_module(f"benchmarks.contenders.{contender}"))
    take_part = module.consume if program == "consume" else module.hold
    logging.getLogger("redis_stream_client").setLevel(
        logging.CRITICAL
    )  # killed holders are told of, and that often
    logging.getLogger("streaq").setLevel(logging.CRITICAL)
    lines: list[str] = []
    writing = asyncio.create_task(write(lines))
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(int(consumers)):
                group.create_task(take_part(url, service, Report(number, lines), **json.loads(options)))
                await asyncio.sleep(random.uniform(0, 2 * BETWEEN))
    finally:
        writing.cancel()
        flush(lines)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))  # type: ignore[arg-type]
