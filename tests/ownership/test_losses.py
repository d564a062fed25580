"""What a lapse of the lock, and a look at who owns what, mean for the table."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._leases.capacity import Capacity
from redis_stream_client._leases.event_queue import EventQueue
from redis_stream_client._leases.state import LeaseState
from redis_stream_client._leases.table import LeaseTable
from redis_stream_client._model.announcement import Announcement
from redis_stream_client._model.statistics import Counters
from redis_stream_client._ownership.checkpoints import NUMBERS
from redis_stream_client._ownership.losses import LAPSES, LOGGED, Losses
from redis_stream_client._redis.outage import Outages
from redis_stream_client._redis.wordings import LOCK
from tests.harness.fleet import Member, announce
from tests.harness.logs import CONSUMER, LOG
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from redis_stream_client._leases.lock_state import LapseCause
    from tests.harness.connection import Connection
    from tests.harness.servers import Server


class Client:
    """A client's state, with so many leases."""

    def __init__(self, leases: int) -> None:
        event_queue = EventQueue(1.0, 1.0)
        self.table = LeaseTable(event_queue)
        self.counters = Counters()
        self.changed = asyncio.Event()
        capacity = Capacity(self.table, event_queue, max_streams=None, prefetch=5, at_once=5)
        capacity.changed.add(self.changed.set)
        lapse = Outages(LOG).watch(LOCK, lambda: {"streams": len(self.table)})
        self.losses = Losses(log=LOG, lapse=lapse, table=self.table, capacity=capacity, counters=self.counters)
        self.leases = [
            LeaseState(f"{number}-0", Announcement(f"call-{number}", None), 1) for number in range(leases)
        ]
        for lease in self.leases:
            self.table.add(lease)


async def test_after_silence_every_lease_is_lost() -> None:
    client = Client(3)
    client.losses.lapsed("silent")
    assert [lease.lost for lease in client.leases] == ["expired"] * 3
    assert (len(client.table), client.counters.streams_disowned) == (0, 3)
    assert client.changed.is_set()


@pytest.mark.parametrize("cause", ["stalled", "missing"])
async def test_after_any_other_lapse_redis_is_asked_first(cause: LapseCause) -> None:
    client = Client(3)
    client.losses.lapsed(cause)
    assert [lease.lost for lease in client.leases] == [None] * 3
    assert not client.changed.is_set()


async def test_leases_that_are_lost_to_silence_are_known_to_be_no_deaths_until_the_next_audit() -> None:
    client = Client(1)
    client.losses.lapsed("silent")
    again = LeaseState("0-0", client.leases[0].announcement, 4, lived_since=client.table.lived_since("0-0"))
    assert again.lived_since_text[:NUMBERS] == client.leases[0].fence_text[:NUMBERS]
    client.table.add(again)
    client.losses.lapsed("silent")
    assert client.table.lived_since("0-0") == 1, "of all that it had in a row"
    client.table.audited(None)
    assert client.table.lived_since("0-0") is None


async def test_leases_that_were_held_while_the_loop_stood_still_are_not() -> None:
    client = Client(1)
    client.losses.lapsed("stalled")
    client.losses.lapsed("silent")  # no answer in time
    assert client.table.lived_since("0-0") is None


async def test_what_a_peer_owns_was_claimed_and_what_nobody_owns_is_gone() -> None:
    client = Client(3)
    kept, claimed, gone = client.leases
    client.losses.lose_to([(claimed, "peer"), (gone, "")])
    assert [lease.lost for lease in (kept, claimed, gone)] == [None, "claimed", "gone"]


async def test_a_lease_is_lost_once() -> None:
    client = Client(1)
    client.losses.lose(client.leases, "claimed")
    client.losses.lose(client.leases, "gone")
    assert (client.leases[0].lost, client.counters.streams_disowned) == ("claimed", 1)


async def test_of_many_losses_a_few_are_named(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(LOGGED + 5)
    client.losses.lapsed("silent")
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith("this client does not hold its consumer lock, since ")
    assert LAPSES["silent"] in messages[0]
    assert len(messages) == 1 + LOGGED + 1
    assert messages[-1] == "lost 5 more streams: expired"
    named = vars(caplog.records[1])
    assert named.items() >= {**client.leases[0].log_fields(), "consumer": CONSUMER}.items()


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
    assert losses[-1].getMessage() == "lost 40 more streams: gone"
