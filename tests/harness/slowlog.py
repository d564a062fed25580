"""How long commands hold up a server, as its slow log says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.servers import Server


async def slowest_ms(server: Server, use: Callable[[], Awaitable[Any]], *, times: int = 3) -> float:
    """The milliseconds of the slowest command of `use`: the best of several times, since the machine may be busy
    with something else."""
    return min([await _slowest_ms(server, use) for _ in range(times)])


async def _slowest_ms(server: Server, use: Callable[[], Awaitable[Any]]) -> float:
    server.command("CONFIG", "SET", "slowlog-log-slower-than", 500, "slowlog-max-len", 100_000)
    server.command("SLOWLOG", "RESET")
    await use()
    found = server.command("SLOWLOG", "GET", -1)
    return max((one[2] for one in found), default=0) / 1000
