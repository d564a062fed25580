"""Presence on a real server: a client declares it, withdraws it, and loses nothing for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import scripts
from tests.harness.fleet import Member, announce
from tests.harness.presence import LONG, declared, present, withdrawn
from tests.harness.servers import clients_of
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import pytest

    from redis_stream_client import RedisStreamClient
    from tests.harness.connection import Connection
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server


def state(client: RedisStreamClient) -> str:
    return client.statistics().presence.state


async def test_a_client_declares_its_presence_and_takes_it_back_when_it_leaves(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, lock_ttl=LONG) as member:
        await declared(member)
        assert list(await present(redis, service)) == [member.client.id]
    assert not await present(redis, service)


async def test_without_presence_nothing_of_it_is_in_redis(server: Server, redis: Connection, service: str) -> None:
    async with Member(server.url, service, lock_ttl=LONG, presence=False) as member:
        assert state(member.client) == "off"
        channel = Keys(service).presence_channel(member.client.id, 0)
        assert await redis.pubsub_numsub(channel) == [(channel.encode(), 0)]
        assert not await present(redis, service)


async def test_a_client_whose_listener_is_cut_off_withdraws_declares_anew_and_keeps_its_streams(
    server: Server, redis: Connection, service: str
) -> None:
    async with (
        Member(server.url, service, lock_ttl=LONG) as one,
        Member(server.url, service, lock_ttl=LONG) as two,
    ):
        await declared(one, two)
        await announce(server.url, service, *(f"call-{n}" for n in range(6)))
        await wait_until(lambda: len(one.leases) + len(two.leases) == 6, "all are owned")
        before = await present(redis, service)
        for round_ in range(1, 4):
            await redis.client_kill_filter(_type="pubsub")
            for each in (one, two):
                await withdrawn(each, times=round_)
            await declared(one, two)
        after = await present(redis, service)
        assert before.keys() == after.keys()
        assert all(before[name] != after[name] for name in before)
        assert all(lease.owned for lease in [*one.leases, *two.leases])
        assert one.client.statistics().lapses == two.client.statistics().lapses == 0


async def test_a_declaration_without_an_answer_does_not_keep_a_client_from_withdrawing(
    server: Server, redis: Connection, proxy: TcpProxy, service: str
) -> None:
    async with Member(server.url, service, lock_ttl=LONG) as peer:
        await declared(peer)
        fault = proxy.drop_replies_after(scripts.load("present").sha.encode(), connections=1)
        async with Member(proxy.url, service, lock_ttl=LONG) as member:
            await wait_until(lambda: fault.swallowed, "it has declared, and does not know")
            assert member.client.id in await present(redis, service)
            await redis.client_kill_filter(_type="pubsub")
            await withdrawn(member, times=1)
            await declared(peer, member)
            assert member.client.statistics().lapses == 0
            assert peer.client.statistics().presence.deposed == 0


async def test_a_client_that_was_taken_for_dead_resumes_and_keeps_what_nobody_took(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, lock_ttl=LONG) as member:
        await declared(member)
        await announce(server.url, service, "call-1", "call-2", "call-3")
        await wait_until(lambda: len(member.leases) == 3, "all are owned")
        keys = Keys(service)
        async with redis.pipeline(transaction=True) as script:  # what depose does
            script.hdel(keys.present, member.client.id)
            script.delete(keys.lock(member.client.id))
            script.publish(keys.control, f"dead {member.client.id}")
            await script.execute()
        await wait_until(lambda: member.client.statistics().lapses == 1, "it hears that", timeout=1.0)
        await wait_until(lambda: all(lease.owned for lease in member.leases), "it keeps its streams")
        await declared(member)
        await wait_until(lambda: present(redis, service), "it is present again")
        assert len(member.leases) == 3


async def test_a_client_that_lost_its_declaration_alone_declares_anew(
    server: Server, redis: Connection, service: str
) -> None:
    async with (
        Member(server.url, service, lock_ttl=LONG) as one,
        Member(server.url, service, lock_ttl=LONG) as two,
    ):
        await declared(one, two)
        await redis.delete(Keys(service).present)

        async def both() -> bool:
            return len(await present(redis, service)) == 2

        await wait_until(both, "both are present again", timeout=5)
        assert one.client.statistics().lapses == two.client.statistics().lapses == 0


@contextlib.asynccontextmanager
async def hiding_proxy(server: Server) -> AsyncGenerator[str]:
    """As a proxy that keeps one subscription for many clients: Redis does not see who has subscribed to what."""
    done: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, hide: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if hide and b"SUBSCRIBE" in data:
                    data = data.replace(b":lock:redis-consumer", b":lock:hidden-consume")
                writer.write(data)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_server = await asyncio.open_connection(*urlsplit(server.url).netloc.split(":"))
        done.extend((writer, to_server))
        await asyncio.gather(pump(reader, to_server, hide=True), pump(there, writer, hide=False))

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as proxy:
        yield f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        for writer in done:
            writer.close()
        for writer in done:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_what_hides_the_subscription_makes_presence_impossible_which_is_said_once(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "redis_stream_client")
    async with hiding_proxy(server) as url, Member(url, service, lock_ttl=LONG) as member:
        await wait_until(lambda: state(member.client) == "impossible", "it has noticed")
        await redis.client_kill_filter(_type="pubsub")
        await wait_until(lambda: member.client.statistics().reconnects, "it was cut off")
        await wait_until(lambda: state(member.client) == "impossible", "it has tried again")
        assert member.client.alive
        assert not await present(redis, service)
        await announce(url, service, "call-1")
        await wait_until(lambda: member.leases, "it works as without")
    said = [each for each in caplog.records if "by its lock alone" in each.getMessage()]
    assert len(said) == 1
    assert said[0].levelno == logging.INFO


async def test_two_clients_of_one_process_are_two_members(server: Server, service: str) -> None:
    async with (
        Member(server.url, service, lock_ttl=LONG) as one,
        Member(server.url, service, lock_ttl=LONG) as two,
    ):
        await declared(one, two)
        await wait_until(
            lambda: sum(each.client.statistics().presence.watching for each in (one, two)) == 1,
            "one of them watches",
            timeout=5,
        )
        await wait_until(lambda: one.client.statistics().presence.members == 2, "it sees both", timeout=5)
        assert len([each for each in clients_of(server) if each["name"].endswith("listener")]) == 2
