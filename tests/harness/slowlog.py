"""How long commands hold up a server, as its slow log says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.servers import Server

FAST_MS = 1.0
"""What takes less is not looked at."""


TIMES = 10
"""The most runs."""


async def slowest_ms(server: Server, use: Callable[[], Awaitable[Any]], *, limit: float) -> float:
    """The milliseconds of the slowest command of `use`.

    `use` sends the same commands each time. Of each the fastest time counts, and those that are fast once count as
    fast: the server measures time on the wall, and where the machine is busy it waits for a core in the middle of
    a command. So there are more runs as long as a command has taken more than `limit` milliseconds in each.
    """
    fastest = await _slow_ones(server, use)
    for _ in range(TIMES - 1):
        run = await _slow_ones(server, use)
        fastest = {command: min(took, run[command]) for command, took in fastest.items() if command in run}
        if max(fastest.values(), default=0.0) < limit:
            break
    return max(fastest.values(), default=0.0)


async def _slow_ones(server: Server, use: Callable[[], Awaitable[Any]]) -> dict[tuple[bytes, ...], float]:
    """The commands that were slow, with the milliseconds of each."""
    server.command("CONFIG", "SET", "slowlog-log-slower-than", round(FAST_MS * 1000))
    server.command("CONFIG", "SET", "slowlog-max-len", 100_000)
    server.command("SLOWLOG", "RESET")
    await use()
    return {tuple(command): took / 1000 for _, _, took, command, *_ in server.command("SLOWLOG", "GET", 100_000)}
