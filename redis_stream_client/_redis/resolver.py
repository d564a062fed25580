"""Addresses of host names, looked up in threads of our own."""

import asyncio
import contextlib
import ipaddress
import socket

from redis_stream_client._redis.lookups import Lookup, in_thread
from redis_stream_client._redis.unhelpful import Unhelpful

PATIENCE = 0.5  # seconds that a look-up may take when an earlier answer is known


class Resolver:
    """The names that one client connects to.

    A resolver that is slow or fails keeps nobody from an address that was known before. No address of a name is
    tried first for ever.
    """

    def __init__(self) -> None:
        self._lookups: dict[str, Lookup[list[str]]] = {}
        self._known: dict[str, list[str]] = {}
        self._reached: dict[str, str] = {}
        self._failed = Unhelpful[str]()
        self._doubted = Unhelpful[str]()

    async def addresses(self, host: str) -> list[str]:
        """All addresses of a name, in the order to try them; of an address, itself. Raises ``OSError``."""
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
        """This address of the name has answered: try it first the next time, if it is still one."""
        self._reached[host] = address
        self._failed.forgive(address)

    def failed(self, host: str, address: str) -> None:
        """This address does not answer: try the others first, and ask anew what the name means."""
        self._failed.mark(address)
        self.doubt(host)

    def doubt(self, host: str) -> None:
        """The address that was reached last is perhaps the wrong one: try the others first."""
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
