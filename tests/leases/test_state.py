"""The state of a lease: its fence, its end, its record, and how its holder gets on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import Fence, NotOwner, RedisRejected
from redis_stream_client._leases.lease import lease_of
from redis_stream_client._model.gaps import Added, Gap
from tests.harness.leases import new_lease

if TYPE_CHECKING:
    from redis_stream_client._leases.state import LeaseState


@pytest.fixture
def lease() -> LeaseState:
    return new_lease("7-0")


def read(lease: LeaseState, *ids: str) -> None:
    """Hand these entries over."""
    lease.start_reading()
    for id in ids:
        lease.hand_over(id, None, None)


# Its fence.


def test_two_are_never_equal() -> None:
    one, other = new_lease("7-0"), new_lease("7-0")
    assert one != other
    assert lease_of(one) != lease_of(other)
    assert len({one, other}) == 2


def test_a_count_that_redis_raised_is_in_its_fence(lease: LeaseState) -> None:
    before = lease.fence
    assert Fence.parse(lease.fence_text) == before
    lease.recount(5)
    assert lease.fence > before
    assert Fence.parse(lease.fence_text) == lease.fence
    assert lease.log_fields() == {"stream": "stream-7-0", "lbs_id": "7-0", "fence": str(lease.fence)}


# Its block, and its end.


async def test_it_is_entered_once(lease: LeaseState) -> None:
    lease.enter()
    with pytest.raises(RuntimeError, match="the block of <Lease 'stream-7-0' 7-0/1 owned> was entered before"):
        lease.enter()


async def test_one_that_is_over_is_not_entered(lease: LeaseState) -> None:
    lease.end("expired")
    with pytest.raises(NotOwner, match="no longer ours: expired"):
        lease.enter()


async def test_the_first_end_counts(lease: LeaseState) -> None:
    assert not lease.end("done")  # nobody is to be told
    lease.end("claimed")
    assert lease.lost == "done"
    assert lease.not_owner().reason == "done"
    assert await lease.wait_for_the_end() == "done"


async def test_who_waits_for_the_end_is_told(lease: LeaseState) -> None:
    waiting = asyncio.create_task(lease.wait_for_the_end())
    await asyncio.sleep(0)
    assert lease.end("gone")
    lease.tell_of_the_end()
    assert await waiting == "gone"
    assert lease.waiters is None


async def test_who_gives_up_waiting_for_the_end_leaves_nothing_behind(lease: LeaseState) -> None:
    waiting = asyncio.create_task(lease.wait_for_the_end())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert lease.waiters is None
    assert not lease.end("gone")


@pytest.mark.parametrize(("reason", "cancelled"), [("claimed", True), ("done", False), ("released", False)])
async def test_a_loss_cancels_the_block_but_not_an_end_that_its_holder_wanted(
    lease: LeaseState, reason: str, cancelled: bool
) -> None:
    async def work() -> None:
        lease.enter()
        await asyncio.sleep(0.05)

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert lease.end(reason) == cancelled  # type: ignore[arg-type]
    lease.tell_of_the_end()
    await asyncio.wait((working,))
    assert working.cancelled() == cancelled


# Its record.


def test_owners_that_left_no_record_count() -> None:
    assert new_lease("7-0").attempts == 1
    lease = new_lease("7-0", unrecorded=1)
    assert lease.attempts == 2
    lease.begin("3-0", 4)
    assert (lease.begun, lease.position, lease.attempts) == (True, "3-0", 4)


def test_only_a_checkpoint_that_advances_ends_the_counting_of_attempts(lease: LeaseState) -> None:
    lease.begin("3-0", 4)
    lease.checkpointed("2-0", advanced=False, handed_over=0)
    assert (lease.position, lease.attempts) == ("3-0", 4)
    lease.checkpointed("5-0", advanced=True, handed_over=0)
    assert (lease.position, lease.attempts) == ("5-0", 0)


def test_whoever_has_read_something_may_not_skip_what_follows(lease: LeaseState) -> None:
    lease.begin(None, 1)
    assert lease.may_checkpoint("9-0")  # it is read in another way
    read(lease, "1-0", "2-0")
    assert lease.may_checkpoint("2-0")
    with pytest.raises(ValueError, match=r"3-0 is beyond the last entry that you were handed, 2-0"):
        lease.may_checkpoint("3-0")


def test_what_was_handed_out_before_the_server_lost_writes_is_outdated(lease: LeaseState) -> None:
    lease.begin("1-0", 1)
    read(lease, "2-0", "3-0")
    lease.restarted("another history")
    assert lease.is_outdated("3-0")
    assert not lease.may_checkpoint("3-0")
    read(lease, "2-0")
    assert not lease.is_outdated("2-0")
    assert lease.may_checkpoint("2-0")


def test_it_is_known_whether_all_that_was_handed_out_has_a_checkpoint(lease: LeaseState) -> None:
    lease.begin(None, 1)
    assert lease.all_checkpointed
    read(lease, "1-0", "2-0")
    assert not lease.all_checkpointed
    lease.checkpointed("2-0", advanced=True, handed_over=2)
    assert lease.all_checkpointed


def test_entries_are_counted_from_what_the_record_says(lease: LeaseState) -> None:
    lease.begin("4-0", 1, Added(4, sure=True))
    assert lease.count.number == 4
    assert lease.start_reading() == 4
    lease.hand_over("5-0", None, 5)
    assert lease.added_up_to("5-0") == 5
    lease.checkpointed("5-0", advanced=True, handed_over=1)
    assert lease.count.number == 5


def test_a_gap_is_news_once(lease: LeaseState) -> None:
    assert not lease.gaps
    lease.start_reading()
    gap = Gap("1-0", "3-0", 1)
    assert lease.skip(gap)
    assert not lease.skip(gap)
    assert lease.gaps == (gap,)


# Its holder's progress.


def test_it_is_settled_until_an_entry_is_handed_over(lease: LeaseState) -> None:
    assert lease.settled
    read(lease, "1-0")
    assert not lease.settled
    lease.checkpointed("1-0", advanced=True, handed_over=lease.handed_over)
    assert lease.settled


def test_a_checkpoint_does_not_settle_what_was_handed_over_since_it_was_asked_for(lease: LeaseState) -> None:
    read(lease, "1-0")
    asked_for = lease.handed_over
    read(lease, "2-0")
    lease.checkpointed("1-0", advanced=True, handed_over=asked_for)
    assert not lease.settled


def test_only_the_checkpoint_of_its_last_entry_settles_a_batch(lease: LeaseState) -> None:
    read(lease, "1-0", "2-0", "3-0")
    lease.hand_over_batch("3-0")
    for id, settled in (("2-0", False), ("3-0", True)):
        lease.checkpointed(id, advanced=True, handed_over=lease.handed_over)
        assert lease.settled == settled
    read(lease, "4-0", "5-0")  # by entries(): a checkpoint may lag behind
    lease.checkpointed("4-0", advanced=True, handed_over=lease.handed_over)
    assert lease.settled


def test_the_entries_of_a_batch_are_counted_one_by_one(lease: LeaseState) -> None:
    lease.begin("4-0", 1, Added(4, sure=True))
    lease.start_reading()
    for number in range(5, 9):
        lease.hand_over(f"{number}-0", None, number)
    lease.hand_over_batch("8-0")
    assert [lease.added_up_to(f"{number}-0") for number in (8, 5, 7)] == [8, 5, 7]
    lease.checkpointed("6-0", advanced=True, handed_over=4)
    assert [lease.added_up_to(f"{number}-0") for number in (6, 7, 8)] == [None, 7, 8]
    lease.checkpointed("8-0", advanced=True, handed_over=4)
    assert lease.count.number == 8


async def test_an_owner_that_has_entries_and_waits_for_more_is_not_idle(lease: LeaseState) -> None:
    lease.begin(None, 2)
    waiter = lease.start_waiting(collecting=True)
    assert not lease.idle
    lease.stop_waiting(waiter, collecting=True)
    assert (lease.waiting, lease.collecting) == (0, 0)
    lease.start_waiting()
    assert lease.idle


async def test_an_owner_that_waits_with_nothing_left_to_do_is_idle_while_its_attempt_counts(
    lease: LeaseState,
) -> None:
    lease.begin(None, 2)
    assert not lease.idle
    waiter = lease.start_waiting()
    assert lease.idle
    lease.attempts = 0
    assert not lease.idle
    lease.attempts = 2
    lease.stop_waiting(waiter)
    assert not lease.idle
    assert lease.waiters is None


async def test_draining_stops_it_at_once_only_where_it_waits_for_an_entry(lease: LeaseState) -> None:
    async def work() -> None:
        lease.enter()
        waiter = lease.start_waiting()
        try:
            await waiter
        finally:
            lease.stop_waiting(waiter)

    read(lease, "1-0")
    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    lease.drain()
    await asyncio.sleep(0)
    assert not working.done()
    assert not lease.drained
    lease.checkpointed("1-0", advanced=True, handed_over=1)
    assert lease.drained
    lease.drain()
    await asyncio.wait((working,))
    assert working.cancelled()


async def test_a_drain_can_be_taken_back_until_it_has_cancelled(lease: LeaseState) -> None:
    async def work() -> None:
        lease.enter()
        await asyncio.get_running_loop().create_future()

    read(lease, "1-0")
    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    lease.drain()
    lease.undrain()
    lease.checkpointed("1-0", advanced=True, handed_over=1)
    assert not lease.drained
    lease.drain(given=True)
    assert lease.drained
    lease.pinned = True
    assert not lease.drained, "only a drain of the client moves it now"
    lease.drain()
    assert lease.drained
    lease.cancel("draining")
    lease.undrain()
    assert lease.drained
    await asyncio.wait((working,))


def test_what_its_holder_waits_for_is_counted_and_a_refusal_remembered(lease: LeaseState) -> None:
    lease.start_asking()
    lease.start_asking()
    lease.stop_asking(None)
    assert lease.asking == 1
    refused = RedisRejected("no permission")
    lease.stop_asking(refused)
    assert lease.asking == 0
    lease.start_asking()
    lease.stop_asking(ValueError())
    assert lease.refused is refused
