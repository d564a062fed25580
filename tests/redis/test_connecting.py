"""Connecting shares nothing with user work, waits for what is slow, and survives whatever user code raises."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis as sync
from redis.asyncio import Connection, Redis

from redis_stream_client import Lease, LoadBalancerStream, RedisRejected, RedisStreamClient, RedisUnavailable
from redis_stream_client._redis import wire
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import Unanswered
from tests.harness.outside import NAME, BlockingCredentials, Credentials, resolver
from tests.harness.ports import HOST, free_port
from tests.harness.scenes import live_through_it, time_passes
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.connection import Connection as Client
    from tests.harness.outside import Resolver
    from tests.harness.servers import Server

SLOW = 0.7
"""Seconds that something takes; longer than the shortest of our own attempts with `LOCK_TTL`."""

LOCK_TTL = 0.6


@pytest.fixture
def names() -> Iterator[Resolver]:
    with resolver() as names:
        yield names


@pytest.fixture
def secret(own_server: Callable[..., Server]) -> Server:
    """A server that wants the password ``secret``."""
    server = own_server()
    server.command("ACL", "SETUSER", "member", "on", ">secret", "allkeys", "allchannels", "+@all")
    return server


def cut(server: Server) -> None:
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    server.command("CLIENT", "KILL", "TYPE", "pubsub")


async def cut_until(cut: Callable[[], object], done: Callable[[], bool]) -> None:
    """Cut connections until something has happened: those that were just being opened notice nothing."""
    async with asyncio.timeout(10):
        while not done():
            cut()
            await asyncio.sleep(0.3)


async def busy_threads(stop: threading.Event) -> list[asyncio.Task[None]]:
    """Fill the event loop's default executor."""
    started = threading.Semaphore(0)

    def block() -> None:
        started.release()
        stop.wait(30)

    tasks = [asyncio.create_task(asyncio.to_thread(block)) for _ in range(64)]
    await asyncio.sleep(0)
    started.acquire()
    return tasks


# Names.


async def test_a_connection_that_is_cut_while_all_threads_of_the_loop_are_busy(
    server: Server, redis: Client, names: Resolver, service: str
) -> None:
    client = RedisStreamClient.from_url(f"redis://{NAME}:{server.port}", service, lock_ttl=LOCK_TTL)
    stop = threading.Event()
    async with client:
        tasks = await busy_threads(stop)
        try:
            asked = names.asked
            cut(server)
            await wait_until(lambda: names.asked > asked, "it connects anew")
            await time_passes(2 * LOCK_TTL, client)
            await live_through_it(client, redis, service)
            assert client.statistics().lapses == 0
        finally:
            stop.set()
            await asyncio.gather(*tasks)
    assert all(name.startswith("redis_stream_client") for name in names.threads)


async def test_a_resolver_that_takes_longer_than_an_attempt(
    server: Server, redis: Client, names: Resolver, service: str
) -> None:
    names.delay = SLOW
    where = endpoint_for(Redis(host=NAME, port=server.port), "key")
    with pytest.raises(Unanswered, match=rf"{NAME}.* within 0\.2 s"):
        await where.open(0.2)
    # The next attempts wait for the same answer, and one that took its time is not asked for anew at once.
    async with asyncio.timeout(SLOW + 1):
        while True:
            try:
                connection = await where.open(0.2)
                break
            except Unanswered:
                continue
    wire.abort(connection)
    wire.abort(await where.open(0.2))
    assert names.asked == 1
    client = RedisStreamClient.from_url(f"redis://{NAME}:{server.port}", service, connect_timeout=20)
    async with client:
        await live_through_it(client, redis, service)


async def test_a_quick_resolver_is_asked_for_each_connection(server: Server, names: Resolver) -> None:
    where = endpoint_for(Redis(host=NAME, port=server.port), "key")

    async def asked(times: int) -> bool:
        wire.abort(await where.open(5.0))
        return names.asked >= times

    for times in (1, 2, 3):
        await wait_until(lambda: asked(times), "it is asked anew", timeout=2)


async def test_a_resolver_that_fails_is_asked_again(server: Server, names: Resolver, service: str) -> None:
    names.failures = 2
    async with RedisStreamClient.from_url(f"redis://{NAME}:{server.port}", service) as client:
        assert client.alive


@pytest.mark.parametrize("trouble", ["slow", "away"])
async def test_a_resolver_in_trouble_keeps_nobody_from_an_address_that_was_known(
    server: Server, names: Resolver, service: str, trouble: str
) -> None:
    client = RedisStreamClient.from_url(f"redis://{NAME}:{server.port}", service, lock_ttl=2.0)
    async with client:
        asked = names.asked
        if trouble == "slow":
            names.delay = 3.0
        else:
            names.failures = 1000
        cut(server)
        await wait_until(lambda: names.asked > asked, "it connects anew")
        beats = client.statistics().beats
        await wait_until(lambda: client.statistics().beats > beats, "it beats", timeout=2)
        assert client.statistics().lapses == 0
    await wait_until(lambda: names.waiting == 0, "no thread asks any more")
    await asyncio.sleep(0.05)


async def test_a_name_of_several_servers_leads_to_the_master_at_last(
    server: Server, names: Resolver, service: str
) -> None:
    async def replica(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                words = [(await reader.readline(), await reader.readline())[1] for _ in range(int(line[1:]))]
                said = b"redis_version:8.0.0\r\nrole:slave\r\nrun_id:a\r\nmaster_replid:b\r\n"
                is_info = words[0].strip().upper() == b"INFO"
                writer.write(b"$%d\r\n%s\r\n" % (len(said), said) if is_info else b"+OK\r\n")
        writer.close()

    async with await asyncio.start_server(replica, "127.0.0.4", server.port):
        for names.addresses in (["127.0.0.4", HOST], [HOST, "127.0.0.4"]):
            async with RedisStreamClient.from_url(f"redis://{NAME}:{server.port}", service) as client:
                assert client.alive


async def test_a_name_that_nobody_knows_is_said(names: Resolver, service: str) -> None:
    names.failures = 1000
    with pytest.raises(RedisUnavailable, match=rf"{NAME}:1: Temporary failure in name resolution"):
        async with RedisStreamClient.from_url(f"redis://{NAME}:1", service, connect_timeout=0.3):
            pass


async def test_all_addresses_of_a_name_are_tried(server: Server, names: Resolver, service: str) -> None:
    names.addresses = ["::1", "127.0.0.2", HOST]  # nobody listens on the first two
    async with RedisStreamClient.from_url(f"redis://{NAME}:{server.port}", service) as client:
        assert client.alive


async def test_an_address_that_swallows_packets_costs_a_part_of_one_attempt_and_then_nothing(
    server: Server, names: Resolver
) -> None:
    with socket.socket() as hole:  # accepts nothing: its queue is full
        hole.bind(("127.0.0.3", server.port))
        hole.listen(0)
        queue = [socket.socket() for _ in range(4)]
        for waiting in queue:
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.3", server.port))
        names.addresses = ["127.0.0.3", HOST]
        where = endpoint_for(Redis(host=NAME, port=server.port), "key")
        started = time.monotonic()
        wire.abort(await where.open(1.0))
        assert time.monotonic() - started < 0.9
        started = time.monotonic()
        wire.abort(await where.open(1.0))
        assert time.monotonic() - started < 0.3
        for waiting in queue:
            waiting.close()


async def test_a_server_that_hangs_is_given_up_in_time(secret: Server) -> None:
    where = endpoint_for(Redis(host=HOST, port=secret.port, username="member", password="secret"), "key")
    secret.freeze()
    started = time.monotonic()
    with pytest.raises(Unanswered, match=rf"no connection to {HOST}:{secret.port} within 0\.3 s"):
        await where.open(0.3)
    assert time.monotonic() - started < 0.6
    secret.thaw()


# Credentials.


async def test_a_token_that_takes_longer_than_an_attempt(secret: Server, service: str) -> None:
    tokens = Credentials("member", "secret")
    tokens.delay = SLOW
    redis: Client = Redis(host=HOST, port=secret.port, credential_provider=tokens)
    async with RedisStreamClient(redis, service, lock_ttl=LOCK_TTL, connect_timeout=20) as client:
        assert client.alive
    assert tokens.asked <= 2  # shared by all connections


async def test_a_token_that_takes_long_is_not_asked_for_anew_by_each_attempt(secret: Server) -> None:
    tokens = Credentials("member", "secret")
    tokens.delay = SLOW
    where = endpoint_for(Redis(host=HOST, port=secret.port, credential_provider=tokens), "key")
    async with asyncio.timeout(SLOW + 1):
        while True:
            try:
                connection = await where.open(0.1)
                break
            except Unanswered:
                continue
    wire.abort(connection)
    assert tokens.asked == 1


@pytest.mark.long
async def test_a_token_that_nobody_waits_for_any_more_is_given_up(secret: Server) -> None:
    tokens = Credentials("member", "secret")
    tokens.delay = 60.0
    where = endpoint_for(Redis(host=HOST, port=secret.port, credential_provider=tokens), "key")
    with pytest.raises(Unanswered):
        await where.open(0.05)
    assert tokens.waiting == 1
    await wait_until(lambda: tokens.waiting == 0, "it is cancelled", timeout=8)


async def test_a_provider_that_knows_nothing_of_asyncio_blocks_a_thread_and_not_the_loop(
    secret: Server, service: str
) -> None:
    tokens = BlockingCredentials("member", "secret")
    tokens.delay = SLOW
    redis: Client = Redis(host=HOST, port=secret.port, credential_provider=tokens)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    watching = asyncio.create_task(watch())
    async with RedisStreamClient(redis, service, connect_timeout=20):
        pass
    watching.cancel()
    assert longest < SLOW / 2
    assert threading.main_thread().name not in tokens.threads


async def test_a_token_service_that_is_away_for_a_moment_closes_nothing(secret: Server, service: str) -> None:
    tokens = Credentials("member", "secret")
    redis: Client = Redis(host=HOST, port=secret.port, credential_provider=tokens)
    async with RedisStreamClient(redis, service, lock_ttl=2.0) as client:
        tokens.failures = 3
        await cut_until(lambda: cut(secret), lambda: tokens.failures == 0)
        beats = client.statistics().beats
        await wait_until(lambda: client.statistics().beats > beats, "it is back")
        assert client.statistics().lapses == 0


async def test_a_token_service_that_is_away_is_the_cause_when_joining(secret: Server, service: str) -> None:
    tokens = Credentials("member", "secret")
    tokens.failures = 1000
    redis: Client = Redis(host=HOST, port=secret.port, credential_provider=tokens)
    with pytest.raises(RedisUnavailable, match="LookupError: token service: 503") as caught:
        async with RedisStreamClient(redis, service, connect_timeout=0.3):
            pass
    assert caught.value.__cause__ is not None


async def test_a_token_that_has_expired_is_replaced_by_the_next_one(secret: Server, service: str) -> None:
    tokens = Credentials("member", "secret")
    redis: Client = Redis(host=HOST, port=secret.port, credential_provider=tokens)
    async with RedisStreamClient(redis, service, lock_ttl=2.0) as client:
        asked, tokens.answer = tokens.asked, ("member", "expired")
        await cut_until(lambda: cut(secret), lambda: tokens.asked > asked + 3)
        tokens.answer = ("member", "secret")
        await wait_until(lambda: client.alive, "it is back")
        await time_passes(0.5, client)
        assert client.alive


async def test_a_provider_that_says_nothing_once_closes_nothing(secret: Server, service: str) -> None:
    secret.command("ACL", "SETUSER", "default", "resetpass", ">other")
    tokens = Credentials("member", "secret")
    redis: Client = Redis(host=HOST, port=secret.port, credential_provider=tokens)
    async with RedisStreamClient(redis, service, lock_ttl=2.0) as client:
        asked, tokens.answer = tokens.asked, ()
        with sync.Redis(host=HOST, port=secret.port, password="other") as admin:
            await cut_until(
                lambda: admin.client_kill_filter(_type="normal", skipme=True), lambda: tokens.asked > asked + 2
            )
        tokens.answer = ("member", "secret")
        before = client.statistics().beats
        await wait_until(lambda: client.alive and client.statistics().beats > before, "it is back")


async def test_a_fixed_password_that_is_wrong_is_refused_at_once(secret: Server, service: str) -> None:
    redis: Client = Redis(host=HOST, port=secret.port, username="member", password="wrong")
    with pytest.raises(RedisRejected, match="refuses the login"):
        async with RedisStreamClient(redis, service, connect_timeout=10):
            pass


# User code that raises.


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Odd(BaseException):
    """What no `except Exception` catches."""


RAISED = [ValueError("from user code"), Unspeakable(), Odd("from user code"), asyncio.CancelledError()]


def raises(error: BaseException) -> Any:
    async def connect(connection: Any) -> None:
        raise error

    return connect


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_what_user_code_raises_in_connecting_is_retried_and_named(
    server: Server, service: str, error: BaseException
) -> None:
    redis: Client = Redis(host=HOST, port=server.port, redis_connect_func=raises(error))
    with pytest.raises(Unanswered) as caught:
        await endpoint_for(redis, "key").open(1.0)
    assert not caught.value.maybe_executed
    assert caught.value.__cause__ is error
    with pytest.raises(RedisUnavailable) as given_up:
        async with RedisStreamClient(redis, service, connect_timeout=0.2):
            pass
    assert given_up.value.__cause__ is not None


class Awkward(Connection):
    """A connection class of a user's: with a setting of its own, and a bad day."""

    bad_days = 0
    made: list[str]

    def __init__(self, *, tunnel: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.tunnel = tunnel

    async def _connect(self) -> None:
        type(self).made.append(self.tunnel)
        if type(self).bad_days:
            type(self).bad_days -= 1
            raise ZeroDivisionError("a bad day")
        await super()._connect()  # type: ignore[no-untyped-call]


async def test_a_connection_class_of_the_user_s_with_a_setting_of_its_own(server: Server, service: str) -> None:
    class Mine(Awkward):
        made: list[str] = []  # noqa: RUF012 - one list for each test

    pool: Any = Redis(host=HOST, port=server.port).connection_pool
    redis: Client = Redis(
        connection_pool=type(pool)(connection_class=Mine, host=HOST, port=server.port, tunnel="t1")
    )
    Mine.bad_days = 1
    async with RedisStreamClient(redis, service, lock_ttl=2.0) as client:
        assert len(Mine.made) >= 4
        Mine.bad_days = 2
        cut(server)
        await wait_until(lambda: Mine.bad_days == 0, "it connects anew")
        await wait_until(lambda: client.alive, "it is back")
        assert client.statistics().lapses == 0
    assert set(Mine.made) == {"t1"}


async def test_a_tls_context_that_cannot_be_made_is_named(server: Server, service: str) -> None:
    url = f"rediss://{HOST}:{server.port}?ssl_ca_certs=/nowhere/ca.pem"
    with pytest.raises(RedisUnavailable, match="No such file or directory"):
        async with RedisStreamClient.from_url(url, service, connect_timeout=0.2):
            pass


# A line on which connecting takes long.


# Messages, and names.


async def test_a_refused_connection_is_one_line_with_its_cause(service: str) -> None:
    port = free_port()
    with pytest.raises(RedisUnavailable) as caught:
        async with RedisStreamClient.from_url(f"redis://{HOST}:{port}", service, connect_timeout=0.2):
            pass
    assert f"cannot connect to {HOST}:{port}: Connection refused" in str(caught.value)
    assert "\n" not in str(caught.value)
    causes: list[BaseException] = []
    error: BaseException | None = caught.value
    while error is not None:
        causes.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert len(causes) <= 3
    assert isinstance(causes[-1], ConnectionRefusedError)


def client_names(server: Server) -> set[str]:
    return set(re.findall(r" name=(\S+)", server.command("CLIENT", "LIST").decode()))


@pytest.mark.parametrize(
    ("given", "shown"),
    [(None, "redis_stream_client"), ("billing", "billing"), ("billing west", "billing-west")],
    ids=["no name", "a name", "a name that Redis refuses"],
)
async def test_client_list_shows_the_name_and_the_role(
    server: Server, redis: Client, service: str, given: str | None, shown: str
) -> None:
    named: Client = Redis(host=HOST, port=server.port, client_name=given)
    roles = ("beats", "commands", "reads", "listener", "entries", "wake-ups", "records")

    async def follow(lease: Lease) -> None:
        async for _ in lease.entries():
            pass

    async with RedisStreamClient(named, service).running(follow):
        await LoadBalancerStream(redis, service).add(f"{service}-call")
        expected = {f"{shown}:{role}" for role in roles}
        await wait_until(lambda: expected <= client_names(server), "all are named")


async def test_where_names_are_not_permitted_it_goes_on_without(secret: Server, service: str) -> None:
    if secret.binary.version < (7, 0):
        pytest.skip("its ACL knows no subcommands")
    secret.command("ACL", "SETUSER", "member", "-client|setname")
    redis: Client = Redis(host=HOST, port=secret.port, username="member", password="secret", client_name="billing")
    async with RedisStreamClient(redis, service) as client:
        assert client.alive
        assert not client_names(secret)


async def test_a_client_of_another_library_is_refused_with_a_hint(service: str) -> None:
    class Valkey:
        __module__ = "valkey.asyncio.client"

    for make in (RedisStreamClient, LoadBalancerStream):
        with pytest.raises(TypeError, match=r"not valkey\.asyncio\.client.*redis-py speaks to Valkey"):
            make(Valkey(), service)  # type: ignore[arg-type]
