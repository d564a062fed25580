"""The addresses of a name: in which order they are tried, while the resolver is slow or fails."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from redis_stream_client._redis import resolver
from redis_stream_client._redis.resolver import Resolver
from tests.harness.waiting import wait_until


class Names:
    """What names mean, in place of the system's resolver."""

    def __init__(self) -> None:
        self.known = {"db": ["10.0.0.1", "10.0.0.2", "10.0.0.3"]}
        self.asked = 0
        self.fails = False

    def __call__(self, host: str, port: object, **_: Any) -> list[Any]:
        self.asked += 1
        if self.fails:
            raise socket.gaierror("no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in self.known[host]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


@pytest.mark.parametrize("address", ["10.1.2.3", "::1"])
async def test_an_address_needs_no_look_up(names: Names, address: str) -> None:
    assert await Resolver().addresses(address) == [address]
    assert names.asked == 0


async def test_the_address_that_was_reached_comes_first(names: Names) -> None:
    resolver = Resolver()
    resolver.reached("db", "10.0.0.2")
    assert await resolver.addresses("db") == ["10.0.0.2", "10.0.0.1", "10.0.0.3"]


async def test_the_addresses_that_failed_or_are_in_doubt_come_last(names: Names) -> None:
    resolver = Resolver()
    assert (await resolver.addresses("db"))[0] == "10.0.0.1"
    resolver.failed("db", "10.0.0.1")
    assert await resolver.addresses("db") == ["10.0.0.2", "10.0.0.3", "10.0.0.1"]
    resolver.reached("db", "10.0.0.2")
    resolver.doubt("db")
    assert await resolver.addresses("db") == ["10.0.0.3", "10.0.0.2", "10.0.0.1"]
    resolver.reached("db", "10.0.0.1")
    assert await resolver.addresses("db") == ["10.0.0.1", "10.0.0.3", "10.0.0.2"]


async def test_a_resolver_that_fails_keeps_nobody_from_what_was_known(names: Names) -> None:
    resolver = Resolver()
    names.fails = True
    with pytest.raises(OSError, match="no such name"):
        await resolver.addresses("db")
    names.fails = False
    known = await resolver.addresses("db")
    names.fails = True
    resolver.failed("db", known[0])
    assert sorted(await resolver.addresses("db")) == sorted(known)


async def test_a_name_that_moves_is_followed_once_its_address_fails(names: Names) -> None:
    resolver = Resolver()
    await resolver.addresses("db")
    names.known["db"] = ["10.0.0.9"]
    resolver.failed("db", "10.0.0.1")
    assert await resolver.addresses("db") == ["10.0.0.9"]


async def test_a_slow_look_up_holds_nobody_up_who_knows_an_address(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver_ = Resolver()
    known = await resolver_.addresses("db")
    monkeypatch.setattr(resolver, "PATIENCE", 0.01)
    may = asyncio.Event()

    async def slow(ask: object, name: str) -> list[str]:
        await may.wait()
        return ["10.0.0.9"]

    monkeypatch.setattr(resolver, "in_thread", slow)
    resolver_.doubt("db")
    assert await resolver_.addresses("db") == known
    may.set()

    async def moved() -> bool:
        return await resolver_.addresses("db") == ["10.0.0.9"]

    await wait_until(moved, "the late answer counts the next time")
