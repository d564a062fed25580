"""Addresses of host names, looked up in threads of our own."""

import contextlib
import ipaddress
import socket

from redis_stream_client.lookups import Lookup, in_thread


class Resolver:
    """The names that one client connects to."""

    def __init__(self) -> None:
        self._lookups: dict[str, Lookup[list[str]]] = {}
        self._reached: dict[str, str] = {}

    async def addresses(self, host: str) -> list[str]:
        """All addresses of a name, in the order to try them; of an address, itself. Raises ``OSError``."""
        if _is_address(host):
            return [host]
        if host not in self._lookups:
            self._lookups[host] = Lookup(f"name look-up of {host}", lambda: _resolve(host))
        found = await self._lookups[host].get()
        reached = self._reached.get(host)
        return sorted(found, key=lambda address: address != reached)

    def reached(self, host: str, address: str) -> None:
        """This address of the name has answered: try it first the next time, if it is still one."""
        self._reached[host] = address

    def doubt(self, host: str) -> None:
        """None of the name's addresses has answered."""
        self._reached.pop(host, None)
        if host in self._lookups:
            self._lookups[host].doubt()


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
