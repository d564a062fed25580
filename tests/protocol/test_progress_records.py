"""The records of progress: who may begin, advance and settle one, and who is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from redis_stream_client import ClientClosed
from redis_stream_client._concurrency import clock
from redis_stream_client._concurrency.tasks import start_task
from redis_stream_client._model.fence import Fence
from redis_stream_client._model.gaps import Added
from redis_stream_client._protocol.progress_records import (
    Begin,
    Begun,
    Checkpoint,
    Fail,
    Failed,
    Foreign,
    Owner,
    Records,
    Refused,
    Settle,
    Suspect,
    Terms,
)
from redis_stream_client._redis.connection import SharedConnection
from redis_stream_client._redis.endpoint import endpoint_for
from redis_stream_client._redis.error_mapping import KeyRejected
from tests.harness.logs import LOG, outage
from tests.protocol.consumer import SOON

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from tests.harness.connection import Connection

RECORD = "{call-1}:calls:progress"


def owner(deliveries: int, consumer: str = "a") -> Owner:
    return Owner(str(Fence(1, 0, deliveries)), consumer)


FIRST, SECOND = owner(1, "a"), owner(2, "b")


def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return start_task(work, "a batch")


def no_result(*_: object) -> None:
    """Nobody hears it but whoever awaits it."""


@pytest.fixture
async def records(redis: Connection) -> AsyncIterator[Records]:
    """All in one slot."""
    connection = SharedConnection(endpoint_for(redis, RECORD))
    records = Records(
        connection, lambda _: 0, spawn, lambda: ClientClosed("closed"), SOON, log=LOG, outage=outage()
    )
    yield records
    await records.close()


async def checkpoint(records: Records, owner: Owner, id: str, added: int | None = None) -> Refused | bool:
    return await records.checkpoint(Checkpoint(RECORD, owner, id, added), no_result)


def _without_trouble(answer: object) -> Begun:
    assert isinstance(answer, Begun)
    assert answer.trouble is not None
    return answer._replace(trouble=None)


async def test_who_begins_owns_the_record_and_an_older_owner_is_refused(records: Records) -> None:
    assert await records.begin(Begin(RECORD, FIRST, look_only=True)) is None
    assert await records.begin(Begin(RECORD, FIRST)) == Begun(None, 1, Added(0, sure=True))
    assert await records.begin(Begin(RECORD, FIRST)) == Begun(None, 1)  # a repeat
    assert _without_trouble(await records.begin(Begin(RECORD, SECOND))) == Begun(None, 2)
    assert await records.begin(Begin(RECORD, FIRST)) == Refused(SECOND)
    assert _without_trouble(await records.begin(Begin(RECORD, FIRST, replaces=SECOND))) == Begun(None, 3)


async def test_a_record_advances_for_its_owner_only_and_never_back(records: Records) -> None:
    assert await checkpoint(records, FIRST, "1-0") == Refused(Owner("", ""))
    await records.begin(Begin(RECORD, FIRST))
    assert await checkpoint(records, FIRST, "5-0", 5) is True
    assert await checkpoint(records, FIRST, "5-0", 5) is False
    assert await checkpoint(records, FIRST, "4-9", 4) is False
    assert await checkpoint(records, SECOND, "6-0", 6) == Refused(FIRST)
    assert await records.begin(Begin(RECORD, SECOND)) == Begun("5-0", 1, Added(5, sure=False))


async def test_who_settles_cleanly_counts_as_no_attempt(redis: Connection, records: Records) -> None:
    await records.begin(Begin(RECORD, FIRST))
    await checkpoint(records, FIRST, "5-0", 5)
    settle = Settle(RECORD, FIRST, lifetime=60.0, clean=True)
    assert await records.settle([settle, settle._replace(owner=SECOND)], SOON) == [1, 0]
    assert 0 < await redis.pttl(RECORD) <= 60_000
    assert await records.begin(Begin(RECORD, SECOND)) == Begun("5-0", 1, Added(5, sure=True))
    assert await redis.pttl(RECORD) == -1


# Failures and deaths.


async def begin(records: Records, owner: Owner, **how: Any) -> tuple[int, int, str]:
    """Take over the record; returns the owners that count, the failures and the last error."""
    begun = await records.begin(Begin(RECORD, owner, **how))
    assert isinstance(begun, Begun)
    trouble = begun.trouble
    return begun.attempts, trouble.failures if trouble else 0, trouble.error if trouble else ""


async def fail(records: Records, owner: Owner, error: str = "LookupError") -> Failed:
    failed = await records.fail(Fail(RECORD, owner, error))
    assert isinstance(failed, Failed)
    return failed


async def test_a_repeat_that_is_executed_late_does_not_keep_the_record_of_an_owner_that_has_ended(
    redis: Connection, records: Records
) -> None:
    await records.begin(Begin(RECORD, FIRST))
    await records.settle([Settle(RECORD, FIRST, 60.0)], SOON)
    assert isinstance(await records.begin(Begin(RECORD, FIRST)), Begun)
    assert 0 < await redis.pttl(RECORD) <= 60_000
    await records.begin(Begin(RECORD, SECOND))
    assert await redis.pttl(RECORD) == -1


async def test_a_failure_is_counted_apart_from_those_who_died(redis: Connection, records: Records) -> None:
    await begin(records, FIRST)
    failed = await fail(records, FIRST, "LookupError: no such customer")
    assert failed.failures == 1
    assert failed.failing_for < 5
    stored = await redis.hgetall(RECORD)
    assert (stored[b"attempts"], stored[b"failures"], stored[b"error"]) == (
        b"0",
        b"1",
        b"LookupError: no such customer",
    )
    assert await begin(records, SECOND) == (1, 1, "LookupError: no such customer")
    assert await begin(records, owner(3)) == (2, 1, "LookupError: no such customer")  # the second has died
    assert (await fail(records, owner(3), "TimeoutError")).failures == 2
    assert await begin(records, owner(4)) == (2, 2, "TimeoutError")


async def test_a_failure_is_counted_once_however_often_it_is_said(redis: Connection, records: Records) -> None:
    await begin(records, FIRST)
    await begin(records, SECOND)
    for _ in range(3):
        assert (await fail(records, SECOND)).failures == 1
    assert (await redis.hmget(RECORD, "attempts", "failures")) == [b"1", b"1"]


async def test_only_the_owner_fails(redis: Connection, records: Records) -> None:
    assert await records.fail(Fail(RECORD, FIRST, "LookupError")) == Refused(Owner("", ""))
    assert not await redis.exists(RECORD)
    await begin(records, FIRST)
    await begin(records, SECOND)
    before = await redis.hgetall(RECORD)
    assert await records.fail(Fail(RECORD, FIRST, "LookupError")) == Refused(SECOND)
    assert await records.fail(Fail(RECORD, owner(2, "c"), "LookupError")) == Refused(SECOND)
    assert await redis.hgetall(RECORD) == before


async def test_who_got_on_has_not_failed(redis: Connection, records: Records) -> None:
    await begin(records, FIRST)
    await checkpoint(records, FIRST, "1-0")
    assert (await fail(records, FIRST)).failures == 0
    assert await begin(records, SECOND) == (1, 0, "")


async def test_how_long_it_has_been_failing_is_measured_by_the_server(redis: Connection, records: Records) -> None:
    await begin(records, FIRST)
    await fail(records, FIRST)
    for earlier, seconds in ((60_000, 60.0), (-3_600_000, 0.0)):  # the server's clock may be set back
        time, _ = await redis.time()
        await redis.hset(RECORD, "failing", time * 1000 - earlier)
        begun = await records.begin(Begin(RECORD, FIRST))
        assert isinstance(begun, Begun)
        assert begun.trouble is not None
        assert clock.now() - begun.trouble.since == pytest.approx(seconds, abs=5.0)
        assert (await fail(records, FIRST)).failing_for == pytest.approx(seconds, abs=5.0)


async def test_a_death_begins_the_time_too(redis: Connection, records: Records) -> None:
    await begin(records, FIRST)
    assert not await redis.hexists(RECORD, "failing")
    await begin(records, SECOND)
    since = int(await redis.hget(RECORD, "failing") or 0)
    time, _ = await redis.time()
    assert abs(time * 1000 - since) < 5000
    await begin(records, owner(3))
    await fail(records, owner(3))
    assert int(await redis.hget(RECORD, "failing") or 0) == since


async def test_an_advance_makes_failures_forgotten(redis: Connection, records: Records) -> None:
    for number in range(1, 4):
        await begin(records, owner(number))
        await fail(records, owner(number))
    await begin(records, owner(4))
    assert await checkpoint(records, owner(4), "1-0") is True
    stored = await redis.hgetall(RECORD)
    assert (stored[b"attempts"], stored[b"failures"], stored[b"failing"], stored[b"error"]) == (
        b"0",
        b"0",
        b"",
        b"",
    )
    assert await begin(records, owner(5)) == (1, 0, "")
    assert (await fail(records, owner(5))).failures == 1


async def test_a_late_checkpoint_makes_nothing_forgotten(records: Records) -> None:
    await begin(records, FIRST)
    await checkpoint(records, FIRST, "5-0")
    await begin(records, SECOND)
    await fail(records, SECOND)
    await begin(records, owner(3))
    assert await checkpoint(records, owner(3), "5-0") is False
    assert await begin(records, owner(4)) == (2, 1, "LookupError")


async def test_who_ends_cleanly_leaves_earlier_failures_and_takes_deaths_away(records: Records) -> None:
    await begin(records, FIRST)
    await fail(records, FIRST)
    await begin(records, SECOND)
    await begin(records, owner(3))
    assert await records.settle([Settle(RECORD, owner(3), 0)], SOON) == [1]
    assert await begin(records, owner(4)) == (1, 1, "LookupError")


async def test_who_ends_cleanly_after_deaths_alone_ends_the_time(redis: Connection, records: Records) -> None:
    await begin(records, FIRST)
    await begin(records, SECOND)
    await records.settle([Settle(RECORD, SECOND, 0)], SOON)
    assert await redis.hmget(RECORD, "failing", "failed") == [b"", b""]


@pytest.mark.parametrize("how", [{"lifetime": 60.0}, {"lifetime": 0.0, "idle": True}], ids=["done", "idle"])
async def test_failures_are_over_when_the_stream_is_done_or_its_owner_has_nothing_left_to_do(
    records: Records, how: dict[str, Any]
) -> None:
    await begin(records, FIRST)
    await fail(records, FIRST)
    await begin(records, SECOND)
    await records.settle([Settle(RECORD, SECOND, **how)], SOON)
    assert await begin(records, owner(3)) == (1, 0, "")


async def test_failures_at_an_earlier_announcement_do_not_count(records: Records) -> None:
    await begin(records, FIRST)
    await fail(records, FIRST)
    newer = Owner(str(Fence(2, 0, 1)), "c")
    assert await begin(records, newer) == (1, 0, "")
    assert (await fail(records, newer)).failures == 1


async def test_more_deaths_than_one_would_begin_with_make_a_suspect(redis: Connection, records: Records) -> None:
    await begin(records, FIRST)
    await fail(records, FIRST)
    await begin(records, SECOND)
    await begin(records, owner(3))
    before = await redis.hgetall(RECORD)
    suspect = await records.begin(Begin(RECORD, owner(4), terms=Terms(1)))
    assert isinstance(suspect, Suspect)
    assert (suspect.deaths, suspect.trouble.failures, suspect.trouble.error) == (2, 1, "LookupError")
    stored = await redis.hgetall(RECORD)
    assert {name: stored[name] for name in (b"fence", b"consumer", b"attempts")} == {
        name: before[name] for name in (b"fence", b"consumer", b"attempts")
    }
    assert await begin(records, owner(4), terms=Terms(2)) == (3, 1, "LookupError")
    assert await begin(records, owner(4), terms=Terms(0)) == (3, 1, "LookupError")  # a repeat: it has begun


async def test_deaths_without_a_record_make_a_suspect_too(redis: Connection, records: Records) -> None:
    suspect = await records.begin(Begin(RECORD, owner(2), unrecorded=1, terms=Terms(0)))
    assert isinstance(suspect, Suspect)
    assert suspect.deaths == 1
    assert not await redis.exists(RECORD)
    assert await begin(records, owner(2), unrecorded=1, terms=Terms(1)) == (2, 0, "")


async def test_one_that_has_given_its_stream_back_has_not_died_whoever_it_was(
    redis: Connection, records: Records
) -> None:
    await begin(records, FIRST)
    given_back = f"{FIRST.fence}*"
    assert (await suspect_of(records, 2)).deaths == 1
    assert (await begin(records, owner(2), lived_since=given_back))[0] == 1
    assert (await begin(records, owner(2), lived_since=given_back))[0] == 1, "a repeat spares nobody else"
    assert (await begin(records, owner(4), lived_since=f"{owner(3).fence}*"))[0] == 2, "this one never began"
    await fail(records, owner(4))
    assert (await begin(records, owner(5), lived_since=f"{owner(4).fence}*"))[0] == 2, "that was taken out already"


async def suspect_of(records: Records, number: int) -> Suspect:
    """What an owner hears that does not begin with any death."""
    suspect = await records.begin(Begin(RECORD, owner(number), terms=Terms(0)))
    assert isinstance(suspect, Suspect)
    return suspect


async def test_how_long_owners_lived_with_it_and_their_trials_are_known(records: Records) -> None:
    """Not of the first that died: nothing was wrong when it began."""
    await begin(records, FIRST)
    assert (await suspect_of(records, 2)).trouble.lived is None
    await begin(records, owner(2))
    await asyncio.sleep(0.02)
    first = (await suspect_of(records, 3)).trouble
    assert first.lived is not None
    assert 0.015 < first.lived < 5
    assert first.trials == 0
    await asyncio.sleep(0.1)
    again = (await suspect_of(records, 4)).trouble
    assert (again.lived, again.trials) == (first.lived, 0), "the time since then counts for nobody"
    await begin(records, owner(4), terms=Terms(trial=True))
    await begin(records, owner(4))
    tried = await suspect_of(records, 5)
    assert (tried.deaths, tried.trouble.trials) == (3, 1)
    assert (await suspect_of(records, 5)).trouble.trials == 1


async def test_trials_of_owners_that_did_not_die_do_not_count(redis: Connection, records: Records) -> None:
    for number in (1, 2):
        await begin(records, owner(number))
    await begin(records, owner(3), terms=Terms(trial=True))
    await fail(records, owner(3))
    failed = await suspect_of(records, 4)
    assert (failed.deaths, failed.trouble.trials) == (2, 0)
    await begin(records, owner(4), terms=Terms(trial=True))
    await checkpoint(records, owner(4), "1-0")
    await begin(records, owner(5))
    fresh = await suspect_of(records, 6)
    assert (fresh.deaths, fresh.trouble.trials, fresh.trouble.lived) == (1, 0, None)


@pytest.mark.parametrize("ended", ["it got on", "it ended cleanly"])
async def test_a_failure_does_not_bring_back_the_trials_of_deaths_that_do_not_count(
    redis: Connection, records: Records, ended: str
) -> None:
    await begin(records, FIRST)
    await fail(records, FIRST)
    for number in (2, 3, 4):
        await begin(records, owner(number), terms=Terms(trial=True))
    await begin(records, owner(5))
    assert (await redis.hget(RECORD, "trials")) == b"2"
    if ended == "it got on":
        await checkpoint(records, owner(5), "1-0")
    else:
        await records.settle([Settle(RECORD, owner(5), 0)], SOON)
    await begin(records, owner(6))
    await fail(records, owner(6))
    await begin(records, owner(7))
    suspect = await suspect_of(records, 8)
    assert (suspect.deaths, suspect.trouble.lived, suspect.trouble.trials) == (1, None, 0)


# Leases that ended while their owner lived on.


async def test_the_end_of_a_lease_whose_owner_lives_on_is_no_death(records: Records) -> None:
    await begin(records, owner(1, "a"))
    for number in range(2, 6):
        since = owner(1 if number < 4 else number - 1).fence  # from any of its leases on
        for _ in range(2):  # a repeat counts nothing
            assert await begin(records, owner(number, "a"), lived_since=since) == (1, 0, "")


@pytest.mark.parametrize("since", [owner(3), owner(1, "b")], ids=["a later one", "another consumer's"])
async def test_it_is_one_if_that_is_not_known_of_it(records: Records, since: Owner) -> None:
    await begin(records, owner(2, "a"))
    assert await begin(records, owner(4, since.consumer), lived_since=since.fence) == (2, 0, "")


async def test_an_owner_whose_failure_was_counted_is_taken_out_once(records: Records) -> None:
    await begin(records, owner(1, "peer"))
    await begin(records, owner(2, "a"))
    await fail(records, owner(2, "a"))
    assert await begin(records, owner(3, "a"), lived_since=owner(2).fence) == (2, 1, "LookupError")


async def test_what_a_suspect_hears_takes_an_owner_out_once(redis: Connection, records: Records) -> None:
    for number, consumer in enumerate(("peer", "other", "a"), 1):
        await begin(records, owner(number, consumer), terms=Terms(trial=True))
    for _ in range(2):
        asked = Begin(RECORD, owner(4, "a"), terms=Terms(1), lived_since=owner(3).fence)
        suspect = await records.begin(asked)
        assert isinstance(suspect, Suspect)
        assert (suspect.deaths, suspect.trouble.trials) == (2, 1), "that of the second one, not its own"
        assert await redis.hget(RECORD, "attempts") == b"2"
    await begin(records, owner(5, "b"))
    assert (await suspect_of(records, 6)).deaths == 3


async def test_an_owner_whose_death_a_peer_has_counted_stays_dead(redis: Connection, records: Records) -> None:
    await begin(records, owner(1, "peer"))
    await begin(records, owner(2, "a"), terms=Terms(trial=True))
    assert (await suspect_of(records, 3)).trouble.trials == 1
    asked = Begin(RECORD, owner(4, "a"), terms=Terms(0), lived_since=owner(2).fence)
    suspect = await records.begin(asked)
    assert isinstance(suspect, Suspect)
    assert (suspect.deaths, suspect.trouble.trials) == (2, 1)


async def test_who_has_tried_nothing_leaves_the_deaths_before_it(redis: Connection, records: Records) -> None:
    for number in (1, 2):
        await begin(records, owner(number))
    await begin(records, owner(3), terms=Terms(trial=True))
    for _ in range(2):  # a repeat takes nothing more out
        assert await records.settle([Settle(RECORD, owner(3), 0, untried=True)], SOON) == [1]
        assert await redis.hget(RECORD, "attempts") == b"2"
    suspect = await suspect_of(records, 4)
    assert (suspect.deaths, suspect.trouble.trials) == (2, 0)


async def test_who_has_tried_nothing_after_failures_leaves_these(redis: Connection, records: Records) -> None:
    await begin(records, FIRST)
    await fail(records, FIRST)
    await begin(records, SECOND)
    assert await records.settle([Settle(RECORD, SECOND, 0, untried=True)], SOON) == [1]
    assert await begin(records, owner(3)) == (1, 1, "LookupError")


# Members of earlier versions know no failures.


async def test_a_record_of_an_earlier_version_is_read(redis: Connection, records: Records) -> None:
    await redis.hset(RECORD, mapping={"fence": FIRST.fence, "consumer": "a", "attempts": 3})
    assert await begin(records, SECOND) == (4, 0, "")
    assert (await fail(records, SECOND)).failures == 1
    assert await begin(records, owner(3)) == (4, 1, "LookupError")


async def test_failures_that_an_earlier_version_has_left_behind_do_not_count(
    redis: Connection, records: Records
) -> None:
    """It advanced the checkpoint, and let the fields be that it does not know."""
    for number in range(1, 4):
        await begin(records, owner(number))
        await fail(records, owner(number))
    await redis.hset(
        RECORD, mapping={"fence": owner(4).fence, "consumer": "a", "checkpoint": "1-0", "attempts": 0}
    )
    assert await begin(records, owner(5)) == (1, 0, "")
    assert (await fail(records, owner(5))).failures == 1


async def test_failures_outlive_an_owner_of_an_earlier_version_that_did_not_get_on(
    redis: Connection, records: Records
) -> None:
    await begin(records, FIRST)
    await fail(records, FIRST)
    await redis.hset(RECORD, mapping={"fence": SECOND.fence, "consumer": "b", "attempts": 1})
    assert await begin(records, owner(3)) == (2, 1, "LookupError")


@pytest.mark.parametrize(
    "nonsense",
    [
        {"failures": "many", "failing": "yesterday"},
        {"failures": "-1", "failing": "-1"},
        {"failures": "9" * 500, "failing": "9" * 500},
        {"failures": "", "failing": ""},
    ],
)
async def test_what_makes_no_sense_counts_nothing(
    redis: Connection, records: Records, nonsense: dict[str, str]
) -> None:
    await begin(records, FIRST)
    await redis.hset(RECORD, mapping={"failed": f"{FIRST.fence} ", **nonsense})
    assert await begin(records, SECOND) == (2, 0, "")
    assert await fail(records, SECOND) == Failed(1, 0.0)


async def test_what_is_no_record_of_ours_is_told_apart(redis: Connection, records: Records) -> None:
    await redis.hset(RECORD, mapping={"fence": "42"})
    [foreign] = await records.begin_many([Begin(RECORD, FIRST)])
    assert isinstance(foreign, Foreign)
    await redis.delete(RECORD)
    await redis.set(RECORD, "text")
    with pytest.raises(KeyRejected):
        await records.begin(Begin(RECORD, FIRST))


async def test_a_record_is_brought_from_its_former_key_if_it_is_this_streams(
    redis: Connection, records: Records
) -> None:
    former = "{call-1}:former"
    await redis.hset(former, mapping={"fence": FIRST.fence, "consumer": "a", "checkpoint": "5-0", "attempts": 1})
    await records.move(RECORD, former, "00000000000000000009-", SOON)
    assert not await records.any_of([RECORD], SOON)
    await redis.hset(RECORD, "since", "9-0")  # a producer has woken the stream: that is no record
    await records.move(RECORD, former, FIRST.fence[:41], SOON)
    assert await records.any_of([RECORD], SOON)
    assert not await redis.exists(former)
    begun = await records.begin(Begin(RECORD, SECOND))
    assert isinstance(begun, Begun)
    assert (begun.checkpoint, begun.attempts) == ("5-0", 2)


async def test_what_is_asked_at_once_is_answered_each_by_itself(redis: Connection, records: Records) -> None:
    other = "{call-2}:calls:progress"
    await redis.hset(other, mapping={"fence": SECOND.fence, "consumer": SECOND.consumer})
    mine, theirs = records.begin(Begin(RECORD, FIRST)), records.begin(Begin(other, FIRST))
    assert isinstance(await mine, Begun)
    assert await theirs == Refused(SECOND)
