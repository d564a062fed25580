"""The log of outages: two lines each, whatever is tried meanwhile."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._redis.outage import OutageLog
from tests.harness.fleet import Member
from tests.harness.logs import CONSUMER, LOG
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "redis_stream_client")


def said(caplog: pytest.LogCaptureFixture, least: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= least]


def test_an_outage_is_told_at_its_begin_and_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    outage = OutageLog(lambda: "Redis at a:1", LOG, now=lambda: now)
    for _ in range(100):
        outage.failed("connection\nrefused")
        now += 0.5
    outage.answered()
    outage.answered()
    assert said(caplog) == [
        "no usable answer from Redis at a:1: connection refused",
        "Redis at a:1 answers again, after 50.0 s",
    ]
    assert len(caplog.records) == 101
    assert {vars(record)["consumer"] for record in caplog.records} == {CONSUMER}


def test_one_failure_is_not_told_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    outage = OutageLog(lambda: "Redis", LOG)
    for _ in range(10):
        outage.failed("reset")
        outage.answered()
    assert said(caplog) == []
    assert not outage.lasts


def test_what_a_greater_outage_explains_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    great = OutageLog(lambda: "Redis", LOG)
    small = OutageLog(lambda: "pub/sub", LOG, within=great)
    for _ in range(3):
        great.failed("refused")
        small.failed("refused")
    great.answered()
    small.answered()
    assert [line.partition(":")[0] for line in said(caplog)] == [
        "no usable answer from Redis",
        "Redis answers again, after 0.0 s",
    ]
    small.failed("cut")
    small.failed("cut")
    small.answered()
    assert [line.partition(":")[0] for line in said(caplog)[2:]] == [
        "no usable answer from pub/sub",
        "pub/sub answers again, after 0.0 s",
    ]


@pytest.mark.parametrize("how", ["refused", "frozen"])
async def test_a_member_tells_an_outage_in_two_lines(
    server: Server, proxy: TcpProxy, service: str, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    async with Member(proxy.url, service, lock_ttl=0.4) as member:
        await wait_until(lambda: member.client.statistics().beats, "it is joined")
        if how == "refused":
            await proxy.refuse()
            proxy.cut()
        else:
            proxy.freeze()
        await wait_until(lambda: not member.client.alive, "its lock lapses")
        await wait_until(lambda: any("no usable answer" in line for line in said(caplog)), "it is told")
        proxy.cut()
        proxy.thaw()
        await proxy.accept()
        await wait_until(lambda: member.client.alive, "it is back")
        await wait_until(lambda: any("answers again" in line for line in said(caplog)), "it is told")
    told = [line for line in said(caplog) if "answer" in line]
    assert len(told) == 2
    assert f"127.0.0.1:{proxy.port}" in told[0]
    assert all("\n" not in line and "Traceback" not in caplog.text for line in told)


async def test_a_connection_that_breaks_once_is_not_told(
    server: Server, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Member(server.url, service, lock_ttl=0.4) as member:
        await wait_until(lambda: member.client.statistics().beats, "it is joined")
        server.command("CLIENT", "KILL", "TYPE", "normal")
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        await wait_until(lambda: member.client.statistics().reconnects >= 3, "it reconnects")
        beats = member.client.statistics().beats
        await wait_until(lambda: member.client.statistics().beats > beats, "it beats")
    assert [line for line in said(caplog) if "answer" in line] == []
