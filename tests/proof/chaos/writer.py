"""A writer: `python -m tests.proof.chaos.writer <setup as JSON>` writes to sessions, and announces none by hand.

It has several tasks, and a line that takes its time: whenever it is killed or frozen, it is between two steps of
some `write()`. What it wrote when nobody answered, it leaves as it is; or, with an id of its own, writes it again.
Now and then it announces a session for no reason.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis_stream_client import LoadBalancerStream, RedisRejected, RedisStreamClientError, RedisUnavailable
from redis_stream_client._model.keys import Keys
from tests.harness.loops import loop_factory
from tests.proof.chaos import sessions
from tests.proof.chaos.history import Writer as History
from tests.proof.chaos.history import now
from tests.proof.chaos.link import link

if TYPE_CHECKING:
    from collections.abc import Mapping

TASKS = 4
"""Sessions that it writes to at a time."""
GAPS = (-0.02, 0.15)
"""Seconds by which an entry comes before or after the session has been idle for long enough."""
AT_ONCE = 0.2
"""How many entries come at once after the one before."""
OWN_ID = 0.3
"""How many entries have an id of the writer."""
ATTEMPTS = 3
"""How often an entry with such an id is written."""
MANY = 0.1
"""How many entries are written together with those of other sessions."""
FOR_NO_REASON = 0.03
"""How many times instead of an entry there is an announcement."""
TIMEOUT = 2.0
PAUSE = 0.1


class Writer:
    """One process."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self.history = History(Path(setup["directory"]), setup["name"])
        self.lbs = LoadBalancerStream(link(setup, timeout=TIMEOUT), setup["service"])
        self.sessions = sessions.names(Keys(setup["service"]).lbs)
        self.random = random.Random()
        self.count = 0
        self.leaving = False

    async def main(self) -> None:
        """Write until a signal."""
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), lambda: os.read(0, 1) or os._exit(1))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.leave)
        await asyncio.gather(*(self.follow() for _ in range(TASKS)))
        self.history.write("left")

    def leave(self) -> None:
        """Finish what was begun."""
        self.leaving = True

    async def follow(self) -> None:
        """Write to one session after the other, as long as each is busy."""
        while not self.leaving:
            busy = self.busy()
            if not busy:
                await asyncio.sleep(PAUSE)
                continue
            session = self.random.choice(busy)
            while sessions.is_busy(session, now()) and not self.leaving:
                await self.do_something(session)
                if self.random.random() > AT_ONCE:
                    await asyncio.sleep(max(0.0, sessions.idle(session) + self.random.uniform(*GAPS)))

    def busy(self) -> list[str]:
        """The sessions that are busy now."""
        return [session for session in self.sessions if sessions.is_busy(session, now())]

    async def do_something(self, session: str) -> None:
        """Write, nearly always."""
        if self.random.random() < FOR_NO_REASON:
            await self.announce(session)
        elif self.random.random() < OWN_ID:
            await self.write_with_id(session)
        elif self.random.random() < MANY:
            await self.write([session, *self.random.sample(self.busy() or [session], 1), session])
        else:
            await self.write([session])

    async def announce(self, session: str) -> None:
        """Wake a session for no reason, or have two owners compete."""
        try:
            await self.lbs.add(session, again=self.random.random() < 0.5)
        except RedisStreamClientError:
            await asyncio.sleep(PAUSE)

    async def write(self, streams: list[str]) -> None:
        """Write an entry to each, once."""
        numbers = [self.writing(stream, "") for stream in streams]
        entries = [(stream, {"n": number}) for stream, number in zip(streams, numbers, strict=True)]
        try:
            if len(entries) == 1:
                ids: list[str | None] = [await self.lbs.write(*entries[0])]
            else:
                ids = [*await self.lbs.write_many(entries)]
        except (RedisUnavailable, RedisRejected) as error:
            ids = list(error.written)
            await asyncio.sleep(PAUSE)
        for stream, number, id in zip(streams, numbers, ids, strict=True):
            self.history.write("written", stream, number, id or "")

    async def write_with_id(self, session: str) -> None:
        """Write an entry, and again if nobody answers: it is there once at the most."""
        id = f"{round(time.time() * 1000)}-{self.random.randrange(1_000_000)}"
        number = self.writing(session, id)
        known = ""
        for _ in range(ATTEMPTS):
            try:
                known = await self.lbs.write(session, {"n": number}, id=id)
            except RedisUnavailable:
                await asyncio.sleep(PAUSE)
                continue
            except RedisRejected:  # another one came first, with a greater id
                await asyncio.sleep(PAUSE)
            break
        self.history.write("written", session, number, known)

    def writing(self, stream: str, id: str) -> int:
        """Note that an entry is about to be written. Returns its number."""
        self.count += 1
        self.history.write("writing", stream, self.count, id)
        return self.count


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(Writer(json.loads(sys.argv[1])).main())
