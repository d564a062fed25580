"""From a URL to a client of redis-py: one server, Sentinel, Cluster, TLS, a socket."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit, urlunsplit

from redis.asyncio import ConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, NoPermissionError, RedisError

from redis_stream_client import DeadLetters, Fleet, RedisRejected, RedisStreamClientError
from redis_stream_client.cli.failure import Unusable
from redis_stream_client.cli.target import Target, Url

AnyRedis = Redis | RedisCluster

PORTS = {"": 6379, "cluster": 6379, "sentinel": 26379}
SECRETS = ("password", "sentinel_password")
"""Options that must not be typed."""

LOOK_TIMEOUT = 5.0
"""Seconds that a server has to say whether it is a node of a cluster."""

_URL = re.compile(
    r"(?P<base>rediss?)(?:\+(?P<kind>sentinel|cluster))?://"
    r"(?:(?P<user>[^/?#@]*)@)?(?P<hosts>[^/?#@]*)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?",
    re.IGNORECASE,
)

_NOT_USABLE = (
    "--redis: not a usable URL; it must begin with redis://, rediss://, redis+sentinel://, redis+cluster:// or "
    "unix://, and special characters in user name and password must be percent-encoded"
)
_TYPED = (
    "--redis: a password on the command line can be read by everybody on this machine, in the list of processes; "
    "put the URL into REDIS_URL, or the password into REDIS_PASSWORD or a file (--password-file)"
)


@dataclass(frozen=True, slots=True, repr=False)
class Place:
    """Where Redis is, as the URL says it.

    Attributes:
        kind: "sentinel", "cluster", or empty for one server.
        hosts: addresses, of servers or sentinels.
        master: what the sentinels call it.
        options: settings for redis-py.
    """

    kind: str
    hosts: tuple[tuple[str, int], ...]
    master: str
    options: dict[str, Any]


def parse(url: Url, password: str | None = None, *, prefer: bool = False) -> Place:
    """What a URL says. What is wrong with it is not repeated: any part of it may be a part of a password.

    Args:
        url: the URL.
        password: the one to use where the URL has none.
        prefer: use it even if the URL has one.

    Raises:
        Unusable: it is no URL of Redis, or one that shows a password.
    """
    try:
        place = _parse(url.text)
        options = {name: value for name, value in place.options.items() if not name.startswith("sentinel_")}
        ConnectionPool(**options).make_connection()  # type: ignore[no-untyped-call]  # not opened: a check
    except (ValueError, TypeError, AttributeError, RedisError):
        raise Unusable(_NOT_USABLE) from None
    if url.typed and any(place.options.get(secret) for secret in SECRETS):
        raise Unusable(_TYPED)
    if password is not None and (prefer or not place.options.get("password")):
        place.options["password"] = password
    if place.kind == "sentinel" and (theirs := os.environ.get("REDIS_SENTINEL_PASSWORD")):
        place.options.setdefault("sentinel_password", theirs)
    return place


def full_url(url: Url, password: str | None, *, prefer: bool) -> str:
    """The URL of one server, with the password in it. Arguments and errors as of `parse`."""
    place = parse(url, password, prefer=prefer)
    if place.kind:
        raise Unusable(f"--redis: one server is needed here, not redis+{place.kind}://")
    parts = urlsplit(url.text)
    user, secret = (quote(place.options.get(name) or "", safe="") for name in ("username", "password"))
    address = parts.netloc.rpartition("@")[2]
    who = f"{user}:{secret}@" if secret else f"{user}@" if user else ""
    return urlunsplit(parts._replace(netloc=who + address))


def _parse(text: str) -> Place:
    if text.startswith("unix://"):
        return Place("", (), "", dict(parse_url(text)))
    found = _URL.fullmatch(text)
    if found is None or not found["hosts"]:
        raise ValueError(text)
    kind, query = (found["kind"] or "").lower(), found["query"] or ""
    names = [part for part in (found["path"] or "").split("/") if part]
    if kind == "sentinel" and not names:
        raise ValueError("sentinels know masters by name")
    master = unquote(names.pop(0)) if kind == "sentinel" else ""
    most = 0 if kind == "cluster" else 1
    if len(names) > most or not all(name.isdecimal() for name in names):
        raise ValueError("the path is not the number of a database")
    if not kind and "," in found["hosts"]:
        raise ValueError("one server has one address")
    if query:
        parse_qs(query, strict_parsing=True)
    hosts = tuple(_address(host, PORTS[kind]) for host in found["hosts"].split(","))
    user = "" if found["user"] is None else f"{found['user']}@"
    options = dict(parse_url(f"{found['base'].lower()}://{user}host/{''.join(names)}?{query}"))
    if not kind:
        options |= dict(zip(("host", "port"), hosts[0], strict=True))
    return Place(kind, hosts, master, options)


def _address(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(text)
    return parts.hostname, parts.port or default


@contextlib.asynccontextmanager
async def connected(target: Target) -> AsyncGenerator[AnyRedis]:
    """A client for the target. Raises `Unusable`."""
    password = target.password()
    place = parse(target.redis, password, prefer=target.password_file is not None)
    async with contextlib.AsyncExitStack() as stack:
        if place.kind == "sentinel":
            yield await _behind_sentinel(place, stack)
        elif place.kind == "cluster":
            yield await _cluster(place, stack)
        else:
            redis = await _server(place, stack)
            yield await _cluster(place, stack) if await _is_node(redis, target.service) else redis


async def _server(place: Place, stack: contextlib.AsyncExitStack) -> Redis:
    options = {"retry": Retry(NoBackoff(), 0), **place.options}
    return await stack.enter_async_context(Redis.from_pool(ConnectionPool(**options)))


async def _cluster(place: Place, stack: contextlib.AsyncExitStack) -> RedisCluster:
    hosts = place.hosts
    options = {name: value for name, value in place.options.items() if name not in ("host", "port", "db")}
    options |= _tls(options)
    nodes = [ClusterNode(host, port) for host, port in hosts]
    cluster = RedisCluster(startup_nodes=nodes, **options)
    stack.push_async_callback(cluster.aclose)
    return cluster


async def _behind_sentinel(place: Place, stack: contextlib.AsyncExitStack) -> Redis:
    options = {"retry": Retry(NoBackoff(), 0), **place.options}
    options |= _tls(options)
    shared = {name: value for name, value in options.items() if name.startswith(("retry", "ssl", "socket_"))}
    own = {
        name.removeprefix("sentinel_"): options.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in options
    }
    sentinel = Sentinel(place.hosts, sentinel_kwargs=shared | own, **options)  # type: ignore[no-untyped-call]
    for client in sentinel.sentinels:
        stack.push_async_callback(client.aclose)
    master: Redis = sentinel.master_for(place.master)
    return await stack.enter_async_context(master)


def _tls(options: dict[str, Any]) -> dict[str, Any]:
    return {"ssl": True} if options.pop("connection_class", None) is SSLConnection else {}


async def _is_node(redis: Redis, service: str) -> bool:
    """Whether this is a node of a cluster. If it does not answer, what is asked of it next will say why."""
    try:
        async with asyncio.timeout(LOOK_TIMEOUT):
            info: dict[str, Any] = await redis.info("server")
    except NoPermissionError:
        return await _is_elsewhere(redis, service)
    except (RedisError, OSError, TimeoutError):
        return False
    return "cluster" in (info.get("redis_mode"), info.get("server_mode"))  # Redis, Valkey


async def _is_elsewhere(redis: Redis, service: str) -> bool:
    """Whether another node of a cluster has the service."""
    try:
        await DeadLetters(redis, service).count()
    except RedisRejected as error:
        reply = error.__cause__
        return isinstance(reply, AskError) or str(reply).startswith(("MOVED ", "ASK "))  # so before redis-py 8
    except (RedisStreamClientError, RedisError, OSError):
        pass
    return False


def run(target: Target, action: Callable[[AnyRedis], Awaitable[int]]) -> int:
    """Do something with a client for the target; return the exit status. Raises `Unusable`."""
    return asyncio.run(_run(target, action))


async def _run(target: Target, action: Callable[[AnyRedis], Awaitable[int]]) -> int:
    try:
        Fleet(Redis(), target.service)  # not connected: a check of the name
    except ValueError as error:
        raise Unusable(str(error)) from None
    try:
        async with connected(target) as redis:
            return await action(redis)
    except (RedisStreamClientError, RedisError) as error:
        raise Unusable(str(error)) from None
