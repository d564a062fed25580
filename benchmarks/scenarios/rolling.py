"""A rolling restart: four processes, one after the other by SIGTERM, while entries flow into 200 streams.

A pause of a stream is the time from its old owner's last word, that it works on it no more, to the new one's
first, that it does. What users feel is how long an entry waits; and, where two members are at work on one stream,
or a position was not stored, that it is processed twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from benchmarks.contenders import MODULES
from benchmarks.fleet import Process, Span, announce, owned, owned_twice, patiently
from benchmarks.scenario import Sample, Scenario
from tests.harness.servers import Server
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.harness.connection import Connection

PROCESSES = 4
PACE = 0.5
"""Seconds between two entries of a stream."""

SETTLING = 1.0
"""Seconds between two restarts, once all streams have an owner."""

PATIENCE = 8.0
"""Seconds that a restart waits for streams without an owner, and the end for entries that nobody has processed."""


async def rolling_restart(contender: str, streams: int) -> Sample:
    """Replace every process by a new one."""
    names = [f"call-{i}" for i in range(streams)]
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(Server())
        redis: Connection = await stack.enter_async_context(Redis.from_url(server.url))

        async def start_process() -> Process:
            return await stack.enter_async_context(Process(contender, server.url, "bench"))

        old = [await start_process() for _ in range(PROCESSES)]
        await announce(contender, server.url, "bench", names)
        await wait_until(lambda: len(owned(old)) == streams, "all are owned", 60)
        written: dict[str, float] = {}
        producing = asyncio.create_task(_produce(redis, names, written))
        await asyncio.sleep(SETTLING)
        everybody = list(old)
        for process in old:
            process.signal(signal.SIGTERM)
            await process.ended()
            everybody.append(await start_process())
            await patiently(lambda: len(owned(everybody)) == streams, PATIENCE)
            await asyncio.sleep(SETTLING)
        producing.cancel()
        await asyncio.wait([producing])
        await patiently(lambda: not written.keys() - _processed(everybody), PATIENCE)
        return _sample(everybody, written, streams)


def _sample(processes: Sequence[Process], written: dict[str, float], streams: int) -> Sample:
    spans = [span for process in processes for span in process.spans]
    pauses = sorted(_pauses(spans))
    processed = [entry for process in processes for entry in process.entries]
    first: dict[str, float] = {}
    for entry, at in processed:
        first[entry] = min(at, first.get(entry, at))
    waits = [at - written[entry] for entry, at in first.items() if entry in written]
    return {
        "moves": len(pauses),
        "lost": streams - len(owned(processes)),
        "entries": len(written),
        "entries lost": len(written.keys() - first.keys()),
        "entries twice": sum(times > 1 for times in Counter(entry for entry, _ in processed).values()),
        "owned twice": owned_twice(spans),
        **({f"pause {name}": pauses[int(part * (len(pauses) - 1))] for name, part in QUANTILES} if pauses else {}),
        **({"entry max s": max(waits)} if waits else {}),
    }


def _processed(processes: Sequence[Process]) -> set[str]:
    return {entry for process in processes for entry, _ in process.entries}


QUANTILES = (("p50 s", 0.5), ("p99 s", 0.99), ("max s", 1.0))


def _pauses(spans: Iterable[Span]) -> list[float]:
    """For each time that a stream moved, the seconds without an owner."""
    by_stream: dict[str, list[Span]] = {}
    for span in spans:
        by_stream.setdefault(span.stream, []).append(span)
    return [
        max(0.0, later.start - earlier.end)
        for of_stream in by_stream.values()
        for earlier, later in pairwise(sorted(of_stream, key=lambda span: span.start))
    ]


async def _produce(redis: Connection, streams: Sequence[str], written: dict[str, float]) -> None:
    """Write entries to all streams in turn, at an even pace, and note when; each belongs to `written` when it is
    there."""
    parts = 20
    started = time.monotonic()
    for turn in range(1_000_000):
        part = streams[turn % parts :: parts]
        await asyncio.sleep(started + turn * PACE / parts - time.monotonic())
        at = time.monotonic()
        async with redis.pipeline(transaction=False) as pipe:
            for name in part:
                pipe.xadd(name, {"at": at})
            ids = await asyncio.shield(asyncio.ensure_future(pipe.execute()))
        written.update({f"{name}@{entry_id.decode()}": at for name, entry_id in zip(part, ids, strict=True)})


SCENARIO = Scenario(
    name="rolling",
    title="four processes are restarted one after the other, 2 entries a second flow into each of N streams",
    contenders={
        name: partial(rolling_restart, MODULES[name]) for name in ("run()", "lock per stream", "XAUTOCLAIM")
    },
    cases=({"streams": 200},),
    ratio="pause p99 s",
)
