"""What an idle fleet costs Redis, and what for: consumers that hold ten streams each.

What this library's sweeps cost is seen at once: the same fleet stops sweeping, and is watched again. For other
kinds of request the slow log then holds every command, and so how long each took (`commandstats` tells nothing of
a script), and the CPU is shared out: to each kind of request the time that it took, and of all the rest (reading,
answering, the server's own work) a part by its number of requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import defaultdict
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.asyncio import Redis

from benchmarks.contenders import MODULES
from benchmarks.fleet import Process, announce, owned
from benchmarks.measure import Work
from benchmarks.scenario import Chart, Sample, Scenario
from redis_stream_client._protocol import scripts
from tests.harness.servers import Server
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.harness.connection import Connection

STREAMS = 10
"""For each consumer."""

AT_ONCE = 100
"""Streams that are announced at one time; then the next when all have an owner."""

PROCESSES = 2
"""In which all consumers live: it is Redis that is measured."""

SETTLING = 4.0
"""Seconds until who joined is known to the others: two lifetimes of a lock."""

SECONDS = 4.0
LOGGED = 2.0
"""How long the windows are."""

STOPPING = 1.0
"""Seconds until the last sweep is over."""

MOST_LOGGED = 1_000_000

SHOWN = ("sweeps", "beats", "reads", "presence")

INSIDE = "inside a script"
"""What no client sends: the script that calls it is what counts."""

KINDS = {
    "ours": {
        "PEXPIRE": "beats",
        **dict.fromkeys(("XREADGROUP", "XINFO", "share"), "reads"),
        **dict.fromkeys(("watch", "present", "withdraw", "depose"), "presence"),
        **dict.fromkeys(("EXISTS", "GET", "HGET", "HGETALL", "HLEN", "PUBSUB", "SET", "XLEN", "XRANGE"), INSIDE),
    },
    "lock_per_stream": {
        "EVALSHA": "beats",
        "XREADGROUP": "reads",
        **dict.fromkeys(("GET", "PEXPIRE"), INSIDE),
    },
    "autoclaim": {
        "XAUTOCLAIM": "sweeps",
        **dict.fromkeys(("XCLAIM", "XPENDING"), "beats"),
        "XREADGROUP": "reads",
    },
}
"""What each contender's requests are for; a script of this library's goes by its name."""


class Cost(NamedTuple):
    """Of one kind of request, in a second: how many, and the seconds that they took."""

    calls: float = 0.0
    seconds: float = 0.0


async def idle_fleet(contender: str, consumers: int, **options: object) -> Sample:
    """A fleet that has ten streams for each consumer, and nothing to do."""
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(Server())
        redis: Connection = await stack.enter_async_context(Redis.from_url(server.url))
        processes = [
            await stack.enter_async_context(
                Process(contender, server.url, "bench", "hold", consumers=consumers // PROCESSES, options=options)
            )
            for _ in range(PROCESSES)
        ]
        streams = STREAMS * consumers
        for start in range(0, streams, AT_ONCE):
            await announce(contender, server.url, "bench", [f"call-{start + i}" for i in range(AT_ONCE)])
            await wait_until(lambda: len(owned(processes)) == start + AT_ONCE, "all are held", 60)  # noqa: B023
        await asyncio.sleep(SETTLING)
        cpu = sum(process.cpu() for process in processes)
        commands, used = await _watched(redis)
        cpu = sum(process.cpu() for process in processes) - cpu
        sample = {
            "commands/s": commands,
            "Redis CPU %": 100 * used,
            "fleet CPU %": 100 * cpu / SECONDS,
            "lost": streams - len(owned(processes)),
        }
        if contender == "ours":
            for process in processes:
                process.signal(signal.SIGUSR1)
            await asyncio.sleep(STOPPING)
            _, without = await _watched(redis)
            sample["sweeps %"] = 100 * (used - without)
        before = await Work.of(redis)
        costs = await _logged(redis, KINDS[contender])
        after = await Work.of(redis)
        logged = (after.cpu - before.cpu) / (after.at - before.at)
        for kind in (kind for kind in SHOWN if kind in costs):
            sample[f"{kind} %"] = 100 * logged * _share(logged, costs[kind], costs["all"])
        if "presence" in costs:
            sample["presence/s"] = costs["presence"].calls
        return {**sample, "beats/s": costs["beats"].calls}


async def _watched(redis: Connection) -> tuple[float, float]:
    """Commands in a second, and the part of a core that the server used."""
    before = await Work.of(redis)
    await asyncio.sleep(SECONDS)
    after = await Work.of(redis)
    seconds = after.at - before.at
    return (after.commands - before.commands) / seconds, (after.cpu - before.cpu) / seconds


async def _logged(redis: Connection, kinds: Mapping[str, str]) -> Mapping[str, Cost]:
    """What requests of each kind cost in a second, and all together."""
    clock = asyncio.get_running_loop().time
    await redis.config_set("slowlog-max-len", MOST_LOGGED)
    await redis.config_set("slowlog-log-slower-than", 0)
    await redis.slowlog_reset()
    started = clock()
    await asyncio.sleep(LOGGED)
    logged: Any = await redis.slowlog_get(MOST_LOGGED)
    seconds = clock() - started
    costs: dict[str, Cost] = defaultdict(Cost)
    for request in logged:
        kind = _kind(request["command"].split(b" "), kinds)
        if kind != INSIDE:
            for part in (kind, "all"):
                calls, took = costs[part]
                costs[part] = Cost(calls + 1 / seconds, took + request["duration"] / 1e6 / seconds)
    return costs


def _kind(words: list[bytes], kinds: Mapping[str, str]) -> str:
    command = words[0].decode().upper()
    if command == "XINFO" and words[1] == b"GROUPS":  # by census.lua alone
        return INSIDE
    if command == "EVALSHA":
        command = _scripts().get(words[1].decode(), command)
    return kinds.get(command, "other")


@cache
def _scripts() -> dict[str, str]:
    names = [
        path.name.removesuffix(".lua")
        for path in files("redis_stream_client").joinpath("_protocol", "lua").iterdir()
        if path.name.endswith(".lua")
    ]
    return {scripts.load(name).sha: name for name in names}


def _share(used: float, cost: Cost, total: Cost) -> float:
    """What part of the server's CPU a kind took."""
    rest = max(0.0, used - total.seconds)
    return (cost.seconds + rest * cost.calls / max(1.0, total.calls)) / max(used, total.seconds)


SCENARIO = Scenario(
    name="members",
    title="an idle fleet whose consumers hold 10 streams each: Redis CPU in % of a core, and what for",
    contenders={
        "run()": partial(idle_fleet, "ours"),
        "run(), presence=False": partial(idle_fleet, "ours", presence=False),
        **{name: partial(idle_fleet, MODULES[name]) for name in ("lock per stream", "XAUTOCLAIM")},
    },
    cases=({"consumers": 10}, {"consumers": 50}, {"consumers": 200}),
    ratio="Redis CPU %",
    charts=(
        Chart("Redis CPU %", "consumers"),
        Chart("sweeps %", "consumers"),
        Chart("commands/s", "consumers"),
    ),
)
