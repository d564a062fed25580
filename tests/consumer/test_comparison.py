"""What Redis says is ours, page by page: an audit and a resume look at all of it, however much it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import base
from redis_stream_client._protocol.pending import Pending
from tests.harness.fleet import Member, announce
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    import pytest

    from tests.harness.connection import Connection
    from tests.harness.servers import Server


async def test_audits_and_resumes_page_through_what_is_pending(
    server: Server, redis: Connection, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = Pending.mine

    async def mine(self: Pending, *arguments: Any) -> Any:
        page = await ask(self, *arguments)
        asked.append(len(page.found))
        return page

    monkeypatch.setattr(base, "LOOK_PAGE", 7)
    monkeypatch.setattr(Pending, "mine", mine)
    names = sorted(f"call-{i:02}" for i in range(30))
    async with Member(server.url, service, lock_ttl=0.4) as one:
        await announce(server.url, service, *names)
        await one.owns(*names)
        taken = [one.lease(name).lbs_id for name in names[5:25:5]]
        await redis.xclaim(f"{service}-input", f"{service}-group", "peer", 0, taken, justid=True)
        await redis.set(f"{{{service}-input}}:lock:peer", '{"ttl": 60000}', px=60_000)
        await redis.delete(Keys(service).lock(one.client.id))
        await wait_until(lambda: len(one.disowned) == 4, "what was taken is disowned")
        await wait_until(lambda: one.client.alive, "it is back")
        assert {lease.stream for lease in one.disowned} == set(names[5:25:5])
        audits = one.client.statistics().audits
        await wait_until(lambda: one.client.statistics().audits > audits, "it audits")
        assert len(one.owned) == 26
    assert max(asked) <= 10  # the smallest page
