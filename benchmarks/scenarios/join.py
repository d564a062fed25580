"""A fifth member joins four that share N streams, in real processes: what moves, how soon, what it disturbs.

Entries flow meanwhile. A pause of a stream is the time from its old owner's last word, that it works on it no
more, to the new one's first, that it does. What users feel is how long an entry waits. What rebalancing costs is
seen before anybody joins: the fleet is even and has nothing to do, and its commands are counted, with rebalancing
and without.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from benchmarks.fleet import Process, Span, announce, owned, owned_twice, patiently
from benchmarks.measure import Work
from benchmarks.scenario import Contender, Sample, Scenario
from benchmarks.scenarios.takeover import quantile
from tests.harness.servers import Server
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from benchmarks.scenario import Case
    from tests.harness.connection import Connection

MEMBERS = 4
"""Before one more joins."""

STREAMS_PER_SECOND = 500
"""That get an entry, all streams in turn; but each at least every `PACE` seconds."""

PACE = 1.0
PART = 0.05
"""Seconds between two pipelines of entries."""

SHORT = 3.0
"""`settle` where the default would only take longer."""

SETTLING = 8.0
"""Seconds until the fleet does nothing but what it does for ever: by then it has noted which streams are idle."""

WATCHED = 4.0
"""Seconds in which the commands of the even fleet are counted."""

PATIENCE = 30.0
"""Seconds, after `settle`, until the fleet should be even, and for entries that nobody has processed."""


async def even_fleet(streams: int, settle: float, *, rebalance: bool) -> Sample:
    """Watch four members that have nothing to do; then have one more join, unless they do not rebalance."""
    names = [f"call-{i}" for i in range(streams)]
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(Server())
        redis: Connection = await stack.enter_async_context(Redis.from_url(server.url))

        async def start() -> Process:
            options = {"settle": settle if rebalance else None}
            return await stack.enter_async_context(Process("ours", server.url, "bench", options=options))

        members = await asyncio.gather(*(start() for _ in range(MEMBERS)))
        await announce("ours", server.url, "bench", names)
        await wait_until(lambda: len(owned(members)) == streams, "all are owned", 60)
        await asyncio.sleep(max(SETTLING, settle))
        sample = await _cost(redis)
        if not rebalance:
            return sample
        written: dict[str, float] = {}
        producing = asyncio.create_task(_produce(redis, names, written))
        await asyncio.sleep(PACE)
        moving_from = time.monotonic()
        joined = await start()
        share = streams // (MEMBERS + 1)
        await patiently(lambda: len(joined.owned) >= share, settle + PATIENCE)
        await asyncio.sleep(PACE)
        producing.cancel()
        await asyncio.wait([producing])
        everybody = [*members, joined]
        await patiently(lambda: not written.keys() - _processed(everybody), PATIENCE)
        return {
            **_moves(everybody, moving_from, joined.ready_at + settle, share),
            **_entries(everybody, moving_from, written),
            **sample,
        }


async def _cost(redis: Connection) -> Sample:
    before = await Work.of(redis)
    await asyncio.sleep(WATCHED)
    after = await Work.of(redis)
    seconds = after.at - before.at
    return {
        "commands/s": (after.commands - before.commands) / seconds,
        "Redis CPU %": 100 * (after.cpu - before.cpu) / seconds,
    }


def _moves(processes: Sequence[Process], moving_from: float, settled_at: float, share: int) -> Sample:
    spans = [span for process in processes for span in process.spans]
    moved = [span.start for span in spans if span.start > moving_from]
    heights = [len(process.owned) for process in processes]
    pauses = sorted(_pauses(spans, moving_from))
    return {
        "moved": len(moved),
        "moved / least": len(moved) / share,
        "most - least": max(heights) - min(heights),
        "even after s": max(moved, default=float("nan")) - settled_at,
        **{f"pause {name} ms": 1000 * quantile(pauses, part) for name, part in QUANTILES if pauses},
        "owned twice": owned_twice(spans),
    }


QUANTILES = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


def _pauses(spans: Iterable[Span], since: float) -> list[float]:
    """For each time that a stream moved, the seconds without an owner."""
    by_stream: dict[str, list[Span]] = {}
    for span in spans:
        by_stream.setdefault(span.stream, []).append(span)
    return [
        max(0.0, later.start - earlier.end)
        for of_stream in by_stream.values()
        for earlier, later in pairwise(sorted(of_stream, key=lambda span: span.start))
        if later.start > since
    ]


def _entries(processes: Sequence[Process], since: float, written: dict[str, float]) -> Sample:
    processed = [entry for process in processes for entry in process.entries]
    first: dict[str, float] = {}
    for entry, at in processed:
        first[entry] = min(at, first.get(entry, at))
    waits = sorted(at - written[entry] for entry, at in first.items() if written.get(entry, 0.0) > since)
    return {
        "entries": len(written),
        "entries lost": len(written.keys() - first.keys()),
        "entries twice": sum(times > 1 for times in Counter(entry for entry, _ in processed).values()),
        "out of order": sum(map(_out_of_order, processes)),
        **{f"entry {name} ms": 1000 * quantile(waits, part) for name, part in QUANTILES if waits},
    }


def _out_of_order(process: Process) -> int:
    """Entries that a member was handed after later ones of the same stream."""
    newest: dict[str, tuple[int, ...]] = {}
    late = 0
    for entry, _ in process.entries:
        stream, _, entry_id = entry.rpartition("@")
        number = tuple(map(int, entry_id.split("-")))
        late += number <= newest.get(stream, (0, 0))
        newest[stream] = number
    return late


def _processed(processes: Sequence[Process]) -> Collection[str]:
    return {entry for process in processes for entry, _ in process.entries}


async def _produce(redis: Connection, streams: Sequence[str], written: dict[str, float]) -> None:
    """Write entries to all streams in turn, at an even pace, and note when; each belongs to `written` when it is
    there."""
    at_once = max(1, round(PART * min(STREAMS_PER_SECOND, len(streams) / PACE)))
    started = time.monotonic()
    for turn in range(1_000_000):
        part = [streams[(turn * at_once + i) % len(streams)] for i in range(at_once)]
        await asyncio.sleep(started + turn * PART - time.monotonic())
        at = time.monotonic()
        async with redis.pipeline(transaction=False) as pipe:
            for name in part:
                pipe.xadd(name, {"at": at})
            ids = await asyncio.shield(asyncio.ensure_future(pipe.execute()))
        written.update({f"{name}@{entry_id.decode()}": at for name, entry_id in zip(part, ids, strict=True)})


def _left_out(contender: str, case: Case) -> str | None:
    if contender != "run()" and case["settle"] > SHORT:
        return "it does not depend on settle: see above"
    return None


CONTENDERS: dict[str, Contender] = {
    "run()": partial(even_fleet, rebalance=True),
    "rebalance=None": partial(even_fleet, rebalance=False),
}

SCENARIO = Scenario(
    name="join",
    title="a fifth member joins four that share N streams, while entries flow",
    contenders=CONTENDERS,
    cases=(
        {"streams": 100, "settle": SHORT},
        {"streams": 10_000, "settle": SHORT},
        {"streams": 10_000, "settle": 10.0},
    ),
    ratio="commands/s",
    left_out=_left_out,
)
