"""What gets no answer is repeated for as long as the lock lets it count."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._concurrency import clock
from redis_stream_client._leases.lock_state import LockState
from redis_stream_client._ownership.audit_schedule import AuditSchedule
from redis_stream_client._ownership.retry import Lapsed, Retries
from redis_stream_client._redis.error_mapping import Unanswered
from tests.harness.logs import outage
from tests.harness.options import checked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Client:
    """A client's belief in its lock, which it holds."""

    def __init__(self, lock_ttl: float = 60.0) -> None:
        options = checked(lock_ttl=lock_ttl, heartbeat_interval=0.02)
        self.lock_state = LockState(options.lock_ttl, options.heartbeat_interval, lambda cause: None)
        self.audits = AuditSchedule(options.pace, late=1.0)
        self.retries = Retries(options=options, outage=outage(), lock_state=self.lock_state, audits=self.audits)
        assert self.lock_state.held_since(clock.now())


def fails(times: int, *, maybe_executed: bool = True) -> Callable[[float], Awaitable[int]]:
    """An operation that gets no answer so many times; then it says which try it was."""
    tries = 0

    async def attempt(timeout: float) -> int:
        nonlocal tries
        tries += 1
        if tries <= times:
            raise Unanswered("lost", maybe_executed=maybe_executed)
        return tries

    return attempt


async def test_it_is_repeated_until_there_is_an_answer() -> None:
    assert await Client().retries.until_answered(fails(3), lambda: True) == 4


@pytest.mark.parametrize(
    ("maybe_executed", "changes_ownership", "audited"),
    [(True, True, True), (False, True, False), (True, False, False)],
)
async def test_what_may_have_changed_an_owner_is_looked_at_by_an_audit(
    maybe_executed: bool, changes_ownership: bool, audited: bool
) -> None:
    client = Client()
    attempt = fails(1, maybe_executed=maybe_executed)
    await client.retries.until_answered(attempt, lambda: True, changes_ownership=changes_ownership)
    assert client.audits.due is audited


async def test_without_the_lock_nothing_is_sent() -> None:
    client = Client()
    client.lock_state.lapse("silent")
    with pytest.raises(Lapsed):
        await client.retries.until_answered(fails(0), lambda: True)


async def test_what_nobody_wants_any_more_is_not_sent() -> None:
    with pytest.raises(Lapsed):
        await Client().retries.until_answered(fails(0), lambda: False)


async def test_after_a_lifetime_of_the_lock_it_is_over_though_the_lock_is_held() -> None:
    client = Client(lock_ttl=0.1)
    began = clock.now()

    async def beat_and_fail(timeout: float) -> None:
        client.lock_state.renewed(clock.now(), client.lock_state.epoch)
        raise Unanswered("lost", maybe_executed=False)

    with pytest.raises(Lapsed):
        await client.retries.until_answered(beat_and_fail, lambda: True)
    assert client.lock_state.held
    assert clock.now() - began >= 0.1


async def test_while_the_lock_is_in_doubt_it_waits_and_goes_on_when_it_is_held_again() -> None:
    client = Client()
    client.lock_state.lapse("missing")
    waiting = asyncio.create_task(client.retries.until_answered(fails(0), lambda: True))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert client.lock_state.held_since(clock.now())
    assert await asyncio.wait_for(waiting, 1) == 1
