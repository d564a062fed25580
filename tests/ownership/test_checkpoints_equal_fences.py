"""Ring 3: Redis forgets an owner in a failover, and counts the next one as it counted the one before.

A user's guard must tell the two apart: the one that is forgotten is refused as soon as the new one has begun.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from examples.sql_guard import Ledger, StaleFence
from redis_stream_client import Fence
from redis_stream_client._model.keys import Keys
from tests.harness.fleet import Member, announce
from tests.harness.sentinel import Pair, replicate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis_stream_client import Lease

CALL = "call-1"


@pytest.fixture
def pair() -> Iterator[Pair]:
    with replicate() as pair:
        yield pair


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "effects.db"))


async def prepare(pair: Pair, service: str, how: str) -> None:
    """Announce a stream, which is delivered to a consumer that is dead, if it is to be claimed."""
    keys = Keys(service)
    pair.master.command("XGROUP", "CREATE", keys.lbs, keys.group, "0", "MKSTREAM")
    await announce(pair.master.url, service, CALL)
    if how == "claim":
        pair.master.command("XREADGROUP", "GROUP", keys.group, "dead", "STREAMS", keys.lbs, ">")
    await asyncio.to_thread(pair.cut_off_the_replica)


async def owns(member: Member) -> Lease:
    await member.owns(CALL)
    return member.lease(CALL)


@pytest.mark.parametrize("how", ["read", "claim"])
@pytest.mark.parametrize("new_one_knows_the_old_one", [True, False])
async def test_a_guard_refuses_the_owner_that_redis_has_forgotten(
    pair: Pair, service: str, ledger: Ledger, how: str, new_one_knows_the_old_one: bool
) -> None:
    await prepare(pair, service, how)
    async with Member(pair.master.url, service, lock_ttl=2.0) as first:
        forgotten = await owns(first)
        if new_one_knows_the_old_one:
            ledger.begin(CALL, forgotten.fence)
            ledger.write(CALL, forgotten.fence, "1-0", "by the old one")
        old = forgotten.fence
        await asyncio.to_thread(pair.promote_the_replica)
        async with Member(pair.replica.url, service, lock_ttl=2.0) as second:
            lease = await owns(second)
            numbers = [(f.milliseconds, f.sequence, f.deliveries) for f in (old, lease.fence)]
            assert numbers[0] == numbers[1]  # Redis counts both alike
            assert old < lease.fence
            assert str(old) < str(lease.fence)
            position = ledger.begin(CALL, lease.fence)
            assert position == ("1-0" if new_one_knows_the_old_one else None)
            for _ in range(2):  # not by turns, either
                with pytest.raises(StaleFence):
                    ledger.write(CALL, old, "9-0", "of the old one, too late")
                with pytest.raises(StaleFence):
                    ledger.begin(CALL, old)
                ledger.write(CALL, lease.fence, f"{2 + _}-0", "by the new one")


async def test_a_fence_that_was_stored_before_fences_had_holders_gives_way(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "effects.db"))
    stored = Fence(5, 0, 2)
    ledger.begin(CALL, stored)
    later = Fence(5, 0, 2, "1764000000000000-00c0ffee")
    ledger.begin(CALL, later)
    with pytest.raises(StaleFence):
        ledger.write(CALL, stored, "1-0", "by the old one")
