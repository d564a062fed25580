"""Running the demo: the server, the workers and the display around a scenario, and a clean end to all of them."""

import asyncio
import contextlib
import signal
import sys
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_stream_client import RedisStreamClientError
from redis_stream_client.demo import display as displays
from redis_stream_client.demo.connection import connect
from redis_stream_client.demo.display import Display
from redis_stream_client.demo.fleet import Fleet
from redis_stream_client.demo.ledger import Ledger
from redis_stream_client.demo.scenario import Failed, Scenario
from redis_stream_client.demo.server import EmbeddedServer
from redis_stream_client.demo.settings import CannotRun, Settings
from redis_stream_client.demo.truth import Truth
from redis_stream_client.demo.verdict import Facts, conclusion, problems, summary

OLDEST = (6, 2)
CONNECT_TIMEOUT = 5.0
CLEANING_TIMEOUT = 2.0


def run(settings: Settings) -> int:
    """Run the demo; return the exit status. Raises `CannotRun`."""
    if not hasattr(signal, "SIGSTOP"):
        raise CannotRun("it freezes a process with SIGSTOP, which this system does not have")
    return asyncio.run(_run_until_signal(settings))


async def _run_until_signal(settings: Settings) -> int:
    """Run; the first signal that says so ends it, and further ones do not disturb the cleaning up."""
    demo = asyncio.create_task(_run(settings))
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not received:
            received.append(number)
            demo.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        return await demo
    except asyncio.CancelledError:
        if not received:
            raise
        print(f"ended by {received[0].name}; all processes of the demo are gone", file=sys.stderr)
        return 128 + received[0]


async def _run(settings: Settings) -> int:
    display = displays.choose(sys.stdout)
    failure: BaseException | None = None
    facts: Facts | None = None
    try:
        async with asyncio.timeout(settings.time_limit):
            facts = await _play(settings, display)
    except* (Failed, RedisError, RedisStreamClientError, OSError) as failures:
        failure = failures
    if facts is None:
        assert failure is not None
        display.summary((), f"FAIL: {_reason(failure, settings)}", passed=False)
        return 1
    found = problems(facts)
    display.summary(summary(facts), conclusion(facts, found), passed=not found)
    return 1 if found else 0


async def _play(settings: Settings, display: Display) -> Facts:
    """Run the scenario with all that it needs, and put all of that away again, whatever happens."""
    async with contextlib.AsyncExitStack() as stack:
        url = settings.redis
        if url is None:
            url = (await stack.enter_async_context(EmbeddedServer())).url
        redis = await stack.enter_async_context(_connect(url))
        server = await _describe(redis, url)
        ledger = Ledger(redis, settings.service)
        truth = Truth(redis, settings.service, len(settings.all_streams))
        fleet = Fleet(url, settings)
        if settings.redis is not None:
            stack.push_async_callback(_erase, truth, ledger, settings)
        await stack.enter_async_context(fleet)
        stack.enter_context(display)
        display.news(f"{server}, {settings.workers} worker processes, lock_ttl {settings.lock_ttl:g} s")
        return await Scenario(redis, settings, fleet, ledger, truth, display).run()


def _connect(url: str) -> Redis:
    try:
        return connect(url)
    except (ValueError, TypeError) as error:
        raise CannotRun(f"--redis: {error}") from error


async def _describe(redis: Redis, url: str) -> str:
    """Say what answers there. Raises `CannotRun` when nothing does, or nothing that will do."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            info: dict[str, Any] = await redis.info("server")
    except TimeoutError:
        raise CannotRun(f"no answer from {_public(url)} within {CONNECT_TIMEOUT:g} s") from None
    except (RedisError, OSError, ValueError, TypeError) as error:
        raise CannotRun(f"cannot use {_public(url)}: {str(error).rstrip('.')}") from error
    name = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    version = str(info.get("valkey_version" if name == "Valkey" else "redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise CannotRun(f"{_public(url)} is {name} {version}; at least 6.2 is needed")
    if info.get("redis_mode") == "cluster":
        raise CannotRun(f"{_public(url)} is a Redis Cluster; the demo needs a single server")
    return f"{name} {version} at {_public(url)}"


async def _erase(truth: Truth, ledger: Ledger, settings: Settings) -> None:
    """Leave a Redis that is not the demo's own as it was."""
    streams = settings.all_streams
    try:
        async with asyncio.timeout(CLEANING_TIMEOUT):
            await truth.erase(streams, ledger.keys(streams))
    except (RedisError, OSError) as error:
        print(f"the keys of {settings.service} could not be deleted: {error!r}", file=sys.stderr)


def _reason(failure: BaseException, settings: Settings) -> str:
    """The first thing that went wrong, in words."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    if isinstance(failure, TimeoutError):
        return f"it was not over after {settings.time_limit:g} s"
    if isinstance(failure, Failed):
        return str(failure)
    return f"Redis went away: {failure}"


def _public(url: str) -> str:
    """A URL without what may be secret in it."""
    try:
        parts = urlsplit(url)
        address = parts.hostname or ""
        return f"{parts.scheme}://{address}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        return "URL"
