"""The audit: what Redis and the client think is owned is compared, whatever an operator did to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis_stream_client._consumer import sweeper
from redis_stream_client._ownership import audit_schedule
from tests.harness.fleet import Member, announce
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    import pytest

    from tests.harness.connection import Connection
    from tests.harness.servers import Server

TTL = 0.4
FAST: dict[str, Any] = {"lock_ttl": TTL}


async def test_announcements_that_an_operator_lost_are_found_again(
    server: Server, redis: Connection, service: str
) -> None:
    lbs, group = f"{service}-input", f"{service}-group"
    async with Member(server.url, service, **FAST) as member:
        first, second = await announce(server.url, service, "call-1", "call-2")
        await member.owns("call-1", "call-2")
        old = list(member.leases)
        await redis.xack(lbs, group, first)
        await member.owns("call-1", "call-2", timeout=20 * TTL)
        await wait_until(lambda: not old[0].owned and member.lease("call-1").owned, "the first came back")
        await redis.xgroup_delconsumer(lbs, group, member.client.id)
        await wait_until(
            lambda: member.owned == ["call-1", "call-2"] and not any(lease.owned for lease in old),
            "both came back",
            20 * TTL,
        )
        assert second in {lease.lbs_id for lease in member.disowned}
        for lease in old:
            assert member.lease(lease.stream).fence > lease.fence


async def test_a_trimmed_announcement_is_disowned_and_cleaned_up(
    server: Server, redis: Connection, service: str
) -> None:
    async with Member(server.url, service, **FAST) as member:
        (first,) = await announce(server.url, service, "call-1")
        await member.owns("call-1")
        await redis.xdel(f"{service}-input", first)
        await wait_until(lambda: len(member.disowned) == 1, "the loss is told", 10 * TTL)
        assert (await redis.xpending(f"{service}-input", f"{service}-group"))["pending"] == 0


async def test_an_entry_too_many_and_one_too_few_are_both_found(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An XACK without XDEL and an XDEL while pending leave the totals even."""
    monkeypatch.setattr(audit_schedule, "PERIOD", 0.5)
    monkeypatch.setattr(sweeper, "OWN_PERIOD", 0.5)
    lbs, group = f"{service}-input", f"{service}-group"
    async with Member(server.url, service, **FAST) as member:
        first, second = await announce(server.url, service, "call-1", "call-2")
        await member.owns("call-1", "call-2")
        acknowledged, deleted = member.lease("call-1"), member.lease("call-2")
        async with redis.pipeline(transaction=True) as both:
            both.xack(lbs, group, first).xdel(lbs, second)
            await both.execute()
        await wait_until(lambda: {acknowledged, deleted} <= set(member.disowned), "both losses are told")
        await member.owns("call-1")
        assert member.lease("call-1").fence > acknowledged.fence
        assert (await redis.xpending(lbs, group))["pending"] == 1
