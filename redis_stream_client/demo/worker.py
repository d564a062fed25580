"""A worker of the demo, as a user would write one: ``python -m redis_stream_client.demo.worker``.

It takes its setup as one line of JSON from its standard input, and ends when that input ends. Of the library it
uses the public interface alone; the data streams are read with plain redis-py.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from typing import Any

from redis import exceptions

from redis_stream_client import (
    AlreadyClaimed,
    ExpiredStream,
    Lease,
    NotJoined,
    NotOwner,
    RedisStreamClient,
    RedisStreamClientError,
    RedisUnavailable,
    StreamAdded,
    StreamDisowned,
    StreamExpired,
    StreamGone,
)
from redis_stream_client.demo.book import LAST, NUMBER, Book, Position, Refused
from redis_stream_client.demo.connection import connect
from redis_stream_client.demo.reports import Kind, Report

READ_AT_MOST = 100
WAIT_AT_MOST = 1.0
REPORT_EVERY = 0.2


class Worker:
    """One client, and a task for each stream that it owns."""

    def __init__(self, url: str, service: str, name: str, lock_ttl: float, work: float) -> None:
        self.client = RedisStreamClient.from_url(url, service, consumer_name=name, lock_ttl=lock_ttl)
        self.redis = connect(url)
        self.book = Book(self.redis)
        self.work = work
        self.processed = 0

    async def run(self) -> None:
        """Work until cancelled."""
        async with self.redis, self.client, asyncio.TaskGroup() as tasks:
            self.report("joined")
            tasks.create_task(self.tell_progress())
            async for event in self.client.events():
                match event:
                    case StreamAdded(lease):
                        self.report("added", lease)
                        tasks.create_task(self.process(lease))
                    case StreamExpired(stream):
                        if (won := await self.claim(stream)) is not None:
                            self.report("claimed", won)
                            tasks.create_task(self.process(won))
                    case StreamDisowned(lease):  # its task sees it too, by `lease.owned`
                        self.report("disowned", lease)

    async def claim(self, stream: ExpiredStream) -> Lease | None:
        """Take a stream over, unless a peer was first or it is not the moment; it is offered again then."""
        try:
            return await self.client.claim(stream)
        except (AlreadyClaimed, StreamGone, NotJoined, RedisUnavailable):
            return None

    async def process(self, lease: Lease) -> None:
        """Process one data stream while it is ours, from wherever the last owner came to."""
        while lease.owned:
            try:
                await self.follow(lease)
            except exceptions.ConnectionError:
                # It may have been executed or not: the position in Redis says which.
                await asyncio.sleep(0.05)
            except Refused:
                self.report("refused", lease)
                return
            except (NotOwner, RedisUnavailable):
                return

    async def follow(self, lease: Lease) -> None:
        """Process its entries until the last one, or until it is lost."""
        position = await self.begin(lease)
        while lease.owned and not position.finished:
            position = await self.step(lease, position)
        if position.finished:
            await self.client.done(lease)
            self.report("done", lease)

    async def begin(self, lease: Lease) -> Position:
        """Shut out the earlier owners, and see where they came to."""
        position = await self.book.begin(lease.stream, lease.fence, self.client.id)
        self.report("begun", lease, position.number)
        return position

    async def step(self, lease: Lease, position: Position) -> Position:
        """Read what is new, work on it, and write what came of it."""
        reply: Any = await self.redis.xread(
            {lease.stream: position.id}, count=READ_AT_MOST, block=round(WAIT_AT_MOST * 1000)
        )
        entries = _entries(reply)
        if not entries:
            return position
        await asyncio.sleep(self.work)
        # A worker that was frozen meanwhile does not know yet. The fence does.
        position = await self.book.write(
            lease.stream,
            lease.fence,
            self.client.id,
            [(id, int(fields[NUMBER])) for id, fields in entries],
            last=LAST in entries[-1][1],
        )
        self.processed += len(entries)
        return position

    async def tell_progress(self) -> None:
        """Report the count of entries, now and then."""
        told = 0
        while True:
            await asyncio.sleep(REPORT_EVERY)
            if self.processed != told:
                told = self.processed
                self.report("progress", number=told)

    def report(self, kind: Kind, lease: Lease | None = None, number: int = 0) -> None:
        """Tell the demo."""
        now = time.time()
        if lease is None:
            report = Report(kind, now, self.client.id, number=number)
        else:
            report = Report(
                kind,
                now,
                self.client.id,
                lbs_id=lease.lbs_id,
                stream=lease.stream,
                fence=str(lease.fence),
                deliveries=lease.deliveries,
                number=number,
            )
        print(report.encode(), flush=True)


def _entries(reply: Any) -> list[tuple[str, dict[str, str]]]:
    """The entries of the one stream that was read, in whichever shape the protocol gives the reply."""
    if not reply:
        return []
    found: list[Any] = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]
    return found[0] if isinstance(found[0], list) else found


async def main() -> None:
    """Run until the standard input ends: its other end is the demo."""
    setup = json.loads(sys.stdin.buffer.readline())
    worker = asyncio.create_task(Worker(**setup).run())

    def at_end_of_input() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            worker.cancel()

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), at_end_of_input)
    with contextlib.suppress(asyncio.CancelledError):
        await worker


def _run() -> str | None:
    """Run to the end; return what went wrong, as far as it needs no traceback."""
    failure: str | None = None
    try:
        asyncio.run(main())
    except* (RedisStreamClientError, exceptions.RedisError) as failures:
        failure = str(failures.exceptions[0])
    return failure


if __name__ == "__main__":
    sys.exit(_run())
