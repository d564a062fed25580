"""The resolver: looks up addresses of host names in our own threads."""

import asyncio
import contextlib
import ipaddress
import socket

from redis_stream_client._redis.lookups import Lookup, in_thread
from redis_stream_client._redis.unhelpful import Unhelpful

PATIENCE = 0.5  # seconds to wait for a look-up if an earlier answer is known


class Resolver:
    """The host names of one client, and their addresses.

    If a look-up is slow or fails, earlier addresses still work. No address of a name stays the first for ever.
    """

    def __init__(self) -> None:
        self._lookups: dict[str, Lookup[list[str]]] = {}
        self._known: dict[str, list[str]] = {}
        self._reached: dict[str, str] = {}
        self._failed = Unhelpful[str]()
        self._doubted = Unhelpful[str]()

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a name, in the order to try them. For an address, the address. Raises ``OSError``."""
        if _is_address(host):
            return [host]
        if host not in self._lookups:
            self._lookups[host] = Lookup(f"name look-up of {host}", lambda: _resolve(host))
        try:
            async with asyncio.timeout(PATIENCE if host in self._known else None):
                self._known[host] = await self._lookups[host].get()
        except OSError:  # a TimeoutError, too
            if host not in self._known:
                raise
        reached = self._reached.get(host)

        def unlikely(address: str) -> tuple[bool, float, bool]:
            return address in self._failed, self._doubted.since(address), address != reached

        return sorted(self._known[host], key=unlikely)

    def reached(self, host: str, address: str) -> None:
        """Note that this address has answered: try it first the next time, if the name still has it."""
        self._reached[host] = address
        self._failed.forgive(address)

    def failed(self, host: str, address: str) -> None:
        """Note that this address does not answer: try the others first, and look up the name again."""
        self._failed.mark(address)
        self.doubt(host)

    def doubt(self, host: str) -> None:
        """Note that the last address may be the wrong one: try the others first."""
        if host in self._lookups:
            self._lookups[host].doubt()
            if (address := self._reached.pop(host, None)) is not None:
                self._doubted.mark(address)


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


async def _resolve(host: str) -> list[str]:
    def ask() -> list[str]:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    return await in_thread(ask, "redis_stream_client resolver")
