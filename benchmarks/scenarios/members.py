"""What an idle fleet costs Redis, and which part of that is sweeps: consumers that hold ten streams each.

Two windows: in the first nothing disturbs the counting; in the second the slow log holds every command, and so how
long each took, which `commandstats` does not say of a script. The CPU of the first window is then shared out as
that of the second: to each kind of request the time that it took, and of all the rest (reading, answering, the
server's own work) a part by its number of requests. `XINFO` serves sweeps, and in small fleets the readers, too:
all of it counts as sweeps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.asyncio import Redis

from benchmarks.contenders import MODULES
from benchmarks.fleet import Process, announce, owned
from benchmarks.measure import Work
from benchmarks.scenario import Chart, Sample, Scenario
from redis_stream_client import scripts
from tests.servers import Server
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.connection import Connection

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
"""How long the two windows are."""

MOST_LOGGED = 1_000_000

SHOWN = ("sweeps", "beats", "reads")

INSIDE = "inside a script"
"""What no client sends: the script that calls it is what counts."""

KINDS = {
    "ours": {
        **dict.fromkeys(("SET", "XINFO", "look", "orphans", "claim_many", "census", "rescue", "forget"), "sweeps"),
        "PEXPIRE": "beats",
        **dict.fromkeys(("XREADGROUP", "share"), "reads"),
        **dict.fromkeys(("GET", "PTTL", "EXISTS", "XLEN", "XRANGE"), INSIDE),
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


async def idle_fleet(contender: str, consumers: int) -> Sample:
    """A fleet that has ten streams for each consumer, and nothing to do."""
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(Server())
        redis: Connection = await stack.enter_async_context(Redis.from_url(server.url))
        processes = [
            await stack.enter_async_context(
                Process(contender, server.url, "bench", "hold", consumers=consumers // PROCESSES)
            )
            for _ in range(PROCESSES)
        ]
        streams = STREAMS * consumers
        for start in range(0, streams, AT_ONCE):
            await announce(contender, server.url, "bench", [f"call-{start + i}" for i in range(AT_ONCE)])
            await wait_until(lambda: len(owned(processes)) == start + AT_ONCE, "all are held", 60)  # noqa: B023
        await asyncio.sleep(SETTLING)
        before, cpu = await Work.of(redis), sum(p.cpu() for p in processes)
        await asyncio.sleep(SECONDS)
        after = await Work.of(redis)
        cpu = sum(p.cpu() for p in processes) - cpu
        commands, seconds = after.commands - before.commands, after.at - before.at
        used = (after.cpu - before.cpu) / seconds
        before = await Work.of(redis)
        costs = await _logged(redis, KINDS[contender])
        after = await Work.of(redis)
        logged = (after.cpu - before.cpu) / (after.at - before.at)
        return {
            "commands/s": commands / seconds,
            "requests/s": costs["all"].calls,
            "Redis CPU %": 100 * used,
            **{f"{kind} %": 100 * used * _share(logged, costs[kind], costs["all"]) for kind in SHOWN},
            "fleet CPU %": 100 * cpu / seconds,
            "lost": streams - len(owned(processes)),
        }


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
    names = [path.name.removesuffix(".lua") for path in files("redis_stream_client").joinpath("lua").iterdir()]
    return {scripts.load(name).sha: name for name in names}


def _share(used: float, cost: Cost, total: Cost) -> float:
    """What part of the server's CPU a kind took."""
    rest = max(0.0, used - total.seconds)
    return (cost.seconds + rest * cost.calls / max(1.0, total.calls)) / max(used, total.seconds)


SCENARIO = Scenario(
    name="members",
    title="an idle fleet whose consumers hold 10 streams each: Redis CPU in % of a core, and what for",
    contenders={name: partial(idle_fleet, MODULES[name]) for name in ("run()", "lock per stream", "XAUTOCLAIM")},
    cases=({"consumers": 10}, {"consumers": 50}, {"consumers": 200}),
    ratio="Redis CPU %",
    charts=(
        Chart("Redis CPU %", "consumers"),
        Chart("sweeps %", "consumers"),
        Chart("commands/s", "consumers"),
    ),
)
