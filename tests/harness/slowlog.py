"""How long commands hold up a server, as its slow log says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.servers import Server

FAST_MS = 1.0
"""What takes less is not looked at."""


async def slowest_ms(server: Server, use: Callable[[], Awaitable[Any]], *, times: int = 3) -> float:
    """The milliseconds of the slowest command of `use`.

    `use` sends the same commands each time. Of each the fastest time counts, since the machine may be busy with
    something else; and so those that are fast once count as fast.
    """
    runs = [await _slow_ones(server, use) for _ in range(times)]
    always = set.intersection(*(set(run) for run in runs))
    return max((min(run[command] for run in runs) for command in always), default=0.0)


async def _slow_ones(server: Server, use: Callable[[], Awaitable[Any]]) -> dict[tuple[bytes, ...], float]:
    """The commands that were slow, with the milliseconds of each."""
    server.command("CONFIG", "SET", "slowlog-log-slower-than", round(FAST_MS * 1000))
    server.command("CONFIG", "SET", "slowlog-max-len", 100_000)
    server.command("SLOWLOG", "RESET")
    await use()
    return {tuple(command): took / 1000 for _, _, took, command, *_ in server.command("SLOWLOG", "GET", 100_000)}
