"""Ring 2: what is logged, for whom, and what never is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tests.harness.fleet import Member, announce
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    import pytest

    from tests.harness.connection import Connection
    from tests.harness.servers import Server


async def test_joining_losing_and_leaving_are_logged_with_who_and_what(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "redis_stream_client")
    async with Member(server.url, service, lock_ttl=0.4) as member:
        (lbs_id,) = await announce(server.url, service, "call-1")
        await member.owns("call-1")
        fence = str(member.lease("call-1").fence)
        await redis.xclaim(f"{service}-input", f"{service}-group", "peer", 0, [lbs_id], justid=True)
        await redis.set(f"{{{service}-input}}:lock:peer", '{"ttl": 60000}', px=60_000)
        await wait_until(lambda: member.disowned, "the loss is told")
    records = {(record.levelname, record.getMessage()): record for record in caplog.records}
    assert ("INFO", f"joined {service}") in records
    assert ("INFO", f"left {service}") in records
    loss = records[("WARNING", "lost call-1: claimed")]
    assert (
        vars(loss).items()
        >= {
            "consumer": member.client.id,
            "stream": "call-1",
            "lbs_id": lbs_id,
            "fence": fence,
        }.items()
    )
    assert all(record.name == "redis_stream_client" for record in caplog.records)


async def test_many_losses_are_summed_up(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Member(server.url, service, lock_ttl=0.4) as member:
        names = [f"call-{i}" for i in range(50)]
        await announce(server.url, service, *names)
        await member.owns(*names)
        await redis.delete(f"{service}-input")
        await wait_until(lambda: len(member.disowned) == 50, "the losses are told")
    losses = [record for record in caplog.records if record.getMessage().startswith("lost ")]
    assert len(losses) == 11
    assert losses[-1].getMessage() == "lost 40 streams more: gone"


async def test_neither_info_nor_passwords_are_logged(
    server: Server, redis: Connection, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "redis_stream_client")
    await redis.execute_command("ACL", "SETUSER", "member", "on", ">hush-hush", "~*", "&*", "+@all")
    url = server.url.replace("://", "://member:hush-hush@")
    try:
        async with Member(url, service, lock_ttl=0.4) as member:
            await redis.xadd(
                f"{service}-input", {"lbs-input": '{"DataStreamName": "call-1", "Info": {"card": "4711"}}'}
            )
            await member.owns("call-1")
            await redis.xadd(f"{service}-input", {"lbs-input": '{"Info": {"card": "4711"}}'})
            await wait_until(lambda: member.client.statistics().dead_letters, "it is buried")
            await redis.execute_command("CLIENT", "KILL", "USER", "member")
            await wait_until(lambda: member.client.statistics().reconnects >= 3, "it reconnects")
    finally:
        await redis.execute_command("ACL", "DELUSER", "member")
    text = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "hush-hush" not in text
    assert "4711" not in text
