"""What connecting depends on besides Redis, slow or failing on demand: a resolver, and credential providers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from redis.credentials import CredentialProvider

from tests.harness.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Generator

NAME = "redis.test"
"""A name that only `Resolver` knows."""


class Resolver:
    """Knows `NAME`, and answers when it likes to.

    Attributes:
        addresses: what it answers, in this order.
        delay: seconds that each answer takes; it blocks its thread, as a resolver does.
        failures: how many of the next questions fail.
        asked: how often it was asked.
        waiting: how many wait for an answer now.
        threads: names of the threads that asked.
    """

    def __init__(self) -> None:
        self.addresses = [HOST]
        self.delay = 0.0
        self.failures = 0
        self.asked = 0
        self.waiting = 0
        self.threads: set[str] = set()
        self.real = socket.getaddrinfo

    def getaddrinfo(self, host: Any, port: Any, *arguments: Any, **more: Any) -> Any:
        """As `socket.getaddrinfo`."""
        if host != NAME:
            return self.real(host, port, *arguments, **more)
        self.asked += 1
        self.threads.add(threading.current_thread().name)
        self.waiting += 1
        time.sleep(self.delay)
        self.waiting -= 1
        if self.failures:
            self.failures -= 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [found for address in self.addresses for found in self.real(address, port, *arguments, **more)]


@contextlib.contextmanager
def resolver() -> Generator[Resolver]:
    """Have all of this process's names resolved by a `Resolver`."""
    resolver = Resolver()
    socket.getaddrinfo = resolver.getaddrinfo
    try:
        yield resolver
    finally:
        socket.getaddrinfo = resolver.real


class Credentials(CredentialProvider):
    """A token service.

    Attributes:
        answer: user and password.
        delay: seconds that it takes.
        failures: how many of the next questions fail.
        asked: how often it was asked.
        waiting: how many wait for an answer now.
    """

    def __init__(self, *answer: str) -> None:
        self.answer = answer
        self.delay = 0.0
        self.failures = 0
        self.asked = 0
        self.waiting = 0

    def _ask(self) -> tuple[str, ...]:
        if self.failures:
            self.failures -= 1
            raise LookupError("token service: 503")
        return self.answer

    def get_credentials(self) -> Any:
        """Never called: it would block the loop."""
        raise NotImplementedError

    async def get_credentials_async(self) -> Any:
        """Answer after the delay."""
        self.asked += 1
        self.waiting += 1
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.waiting -= 1
        return self._ask()


class BlockingCredentials(CredentialProvider):
    """One that knows nothing of asyncio; attributes as `Credentials`, and the names of the threads that asked."""

    def __init__(self, *answer: str) -> None:
        self.answer = answer
        self.delay = 0.0
        self.asked = 0
        self.threads: set[str] = set()

    def get_credentials(self) -> Any:
        """Answer after the delay, which blocks."""
        self.asked += 1
        self.threads.add(threading.current_thread().name)
        time.sleep(self.delay)
        return self.answer
