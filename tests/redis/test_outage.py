"""The log of outages: two lines each, whatever is tried meanwhile."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import Observer, RedisOutage
from redis_stream_client._concurrency import clock
from redis_stream_client._redis.outage import AGAIN, REMIND, OutageLog, Outages, duration
from redis_stream_client._redis.wordings import REDIS, SUBSCRIPTION, Wording
from redis_stream_client._run.outage_watch import HANDLERS
from tests.harness.fleet import Member
from tests.harness.logs import CONSUMER, LOG
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.proxy import TcpProxy
    from tests.harness.servers import Server


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "redis_stream_client")


def said(caplog: pytest.LogCaptureFixture, least: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= least]


def since_of(record: logging.LogRecord) -> str:
    return str(vars(record)["since"])


class Time:
    """A clock that the test moves, and outages that are told by it."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.outages = Outages(LOG, now=lambda: self.now)
        self.address = "a:1"

    def watch(self, wording: Wording = REDIS, **options: Any) -> OutageLog:
        return self.outages.watch(wording, lambda: {"address": self.address}, **options)

    def pass_(self, seconds: float) -> None:
        """Time passes, and the reminders that come due are called: the event loop's clock is another one."""
        until = self.now + seconds
        while self.now < until:
            self.now += 1.0
            self.outages.remind()


@pytest.fixture
async def time() -> AsyncIterator[Time]:
    time = Time()
    yield time
    time.outages.close()


async def test_an_outage_is_told_at_its_begin_each_minute_and_at_its_end(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    outage = time.watch()
    for _ in range(100):
        outage.failed("connection\nrefused")
        time.pass_(1.0)
    time.address = "b:2"
    time.pass_(50.0)
    outage.answered()
    outage.answered()
    since = since_of(caplog.records[-1])
    trouble, still = "no usable answer from Redis", "still, for"
    assert said(caplog) == [
        f"{trouble} (a:1), since {since}: connection refused; {REDIS.follows}",
        f"{trouble} (a:1), {still} 61.0 s: connection refused",
        f"{trouble} (b:2), {still} 2 min: connection refused",
        "Redis (b:2) answers again, after 2 min",
    ]
    assert len([record for record in caplog.records if record.levelno == logging.DEBUG]) == 100


async def test_the_lines_of_an_outage_have_fields(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    outage = time.watch()
    outage.failed("refused")
    time.pass_(3.0)
    outage.failed("refused again")
    began = vars(caplog.records[-1])
    known = {"consumer": CONSUMER, "outage": "redis", "address": "a:1", "error": "refused again", "lasted": 3.0}
    assert began.items() >= known.items()
    age = datetime.now(UTC) - datetime.fromisoformat(began["since"])
    assert timedelta(seconds=2) < age < timedelta(seconds=60)
    time.pass_(7.0)
    outage.answered()
    ended = vars(caplog.records[-1])
    assert ended.items() >= {**known, "since": began["since"], "lasted": 10.0}.items()


async def test_reminders_come_though_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    """By the event loop's own clock, and not because anybody looks."""
    ahead = 0.0
    outages = Outages(LOG, now=lambda: clock.now() + ahead)
    outage = outages.watch(REDIS, lambda: {"address": "a:1"})
    outage.began("refused", clock.now())
    ahead = REMIND - 0.02
    outages.over(outage)
    outages.lasts(outage)  # the timer is set anew, as for one that has just begun
    await wait_until(lambda: len(said(caplog)) == 2, "there is a reminder")
    outages.close()


async def test_a_client_that_has_left_is_not_reminded(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    before, after = time.watch(), time.watch(SUBSCRIPTION)
    before.began("refused", time.now)
    time.outages.close()
    after.began("cut", time.now)
    time.pass_(2 * REMIND)
    assert len(said(caplog)) == 2


async def test_an_outage_that_comes_and_goes_fills_no_log(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    outage = time.watch()
    for _ in range(150):
        outage.failed("refused")
        outage.failed("refused")
        time.pass_(1.0)
        outage.answered()
        time.pass_(1.0)
    assert 300.0 / REMIND <= len(said(caplog)) / 2 <= 300.0 / REMIND + 1


@pytest.mark.parametrize("attempts", [True, False])
async def test_one_that_begins_again_soon_is_told_when_it_has_lasted(
    time: Time, caplog: pytest.LogCaptureFixture, attempts: bool
) -> None:
    outage = time.watch()
    outage.failed("refused")
    outage.failed("refused")
    outage.answered()
    time.pass_(1.0)
    outage.failed("hangs")
    outage.failed("hangs")
    time.pass_(AGAIN - 1.0)
    if attempts:
        outage.failed("hangs")
    assert len(said(caplog)) == 2
    time.pass_(1.0)
    assert len(said(caplog)) == 3
    assert said(caplog)[-1].endswith(f"hangs; {REDIS.follows}")


async def test_what_is_told_only_if_it_lasts_needs_nobody_who_tells_it_again(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    outage = time.watch(least=REMIND)
    outage.began("stuck", time.now - 2.0)
    time.pass_(REMIND - 3.0)
    assert said(caplog) == []
    outage.ended()
    outage.began("stuck", time.now - 2.0)
    time.pass_(REMIND - 1.0)
    assert len(said(caplog)) == 1


async def test_attempts_that_are_made_together_and_fail_at_once_are_no_outage(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    outage = time.watch(least=1.0)
    for _ in range(1_000):
        outage.failed("refused")
    time.pass_(5.0)
    assert said(caplog) == []
    outage.failed("refused")
    assert len(said(caplog)) == 1


async def test_each_one_is_told_where_that_is_wanted(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    outage = time.watch(each=True)
    for _ in range(3):
        outage.began("missing", time.now)
        outage.ended()
    assert len(said(caplog)) == 6


async def test_one_failure_is_not_told_above_debug(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    outage = time.watch()
    for _ in range(10):
        outage.failed("reset")
        outage.answered()
    assert said(caplog) == []
    assert not outage.lasts


async def test_what_nobody_asks_for_any_more_is_not_called_an_outage_for_ever(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    outage = time.watch()
    outage.failed("refused")
    outage.failed("refused")
    time.pass_(10 * REMIND)
    assert len(said(caplog)) == 4
    assert "nobody asks any more" in said(caplog)[-1]


async def test_what_a_greater_outage_explains_is_not_told(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    great = time.watch()
    small = time.watch(SUBSCRIPTION, within=great)
    for _ in range(3):
        great.failed("refused")
        small.failed("refused")
    great.answered()
    small.answered()
    assert [line.partition(",")[0] for line in said(caplog)] == [
        "no usable answer from Redis (a:1)",
        "Redis (a:1) answers again",
    ]
    small.failed("cut")
    small.failed("cut")
    small.answered()
    assert [line.partition(",")[0] for line in said(caplog)[2:]] == [
        "no usable answer from the subscription at a:1",
        "the subscription at a:1 works again",
    ]


async def test_a_greater_outage_that_comes_later_does_not_need_the_reminders_of_the_smaller_one(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    great = time.watch()
    small = time.watch(SUBSCRIPTION, within=great)
    small.began("cut", time.now)
    great.began("refused", time.now)
    time.pass_(REMIND)
    assert [vars(record)["outage"] for record in caplog.records] == ["subscription", "redis", "redis"]


class Seen(Observer):
    """Notes what it is told of outages."""

    def __init__(self) -> None:
        self.told: list[tuple[str, RedisOutage]] = []

    def outage_began(self, outage: RedisOutage) -> None:
        """It is told."""
        self.told.append(("began", outage))

    def outage_ended(self, outage: RedisOutage) -> None:
        """It is told."""
        self.told.append(("ended", outage))


async def test_an_observer_is_told_of_each_outage_of_a_server_though_the_log_is_not() -> None:
    time, seen = Time(), Seen()
    time.outages = Outages(LOG, seen, now=lambda: time.now)
    outage = time.watch()
    for _ in range(2):
        for _ in range(3):
            outage.failed("refused")
            time.pass_(1.0)
        outage.answered()
    time.outages.watch(HANDLERS, lambda: {"streams": 3}).began("no route", time.now)
    time.outages.close()
    began, ended = RedisOutage("a:1", "refused", 1.0, "redis"), RedisOutage("a:1", "refused", 3.0, "redis")
    assert seen.told == 2 * [("began", began), ("ended", ended)]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (61, "61.0 s"), (120, "2 min"), (5_900, "98 min"), (7_300, "2 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


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
    told = [record.getMessage() for record in caplog.records if vars(record).get("outage") == "redis"]
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
