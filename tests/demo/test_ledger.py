"""The demo's ledger: an effect is accepted once, and late ones are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redis_stream_client import Fence
from redis_stream_client.demo.connection import connect
from redis_stream_client.demo.ledger import Ledger, Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.servers import Server


class TestLedger:
    @pytest.fixture
    async def ledger(self, server: Server) -> AsyncIterator[Ledger]:
        async with connect(server.url) as redis:
            yield Ledger(redis, "demo")

    async def test_an_effect_is_accepted_once_and_late_writes_are_refused(self, ledger: Ledger) -> None:
        older, newer = Fence(1, 0, 9), Fence(1, 0, 10)
        await ledger.write("call-1", older, "a", "5-0", "1")
        await ledger.write("call-1", newer, "b", "5-0", "1")
        with pytest.raises(Refused, match=f"call-1 has a newer owner than {older}"):
            await ledger.write("call-1", older, "a", "10-0", "2")
        await ledger.write("call-1", newer, "b", "10-0", "2")
        await ledger.write("call-2", older, "a", "4-0", "1")
        records = await ledger.everything()
        assert [(record.stream, record.consumer, record.number, record.outcome) for record in records] == [
            ("call-1", "a", 1, "accepted"),
            ("call-1", "b", 1, "repeated"),
            ("call-1", "a", 2, "refused"),
            ("call-1", "b", 2, "accepted"),
            ("call-2", "a", 1, "accepted"),
        ]
        assert records[0].fence == str(older) < records[1].fence == str(newer)
        assert await ledger.news() == records
        assert await ledger.news() == []

    async def test_a_new_owner_that_only_repeated_shuts_out_the_old_one(self, ledger: Ledger) -> None:
        await ledger.write("call-1", Fence(1, 0, 1), "a", "5-0", "1")
        await ledger.write("call-1", Fence(1, 0, 2), "b", "5-0", "1")
        with pytest.raises(Refused):
            await ledger.write("call-1", Fence(1, 0, 1), "a", "5-1", "2")
