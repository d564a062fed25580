"""The clients whose statistics are exported: they are asked on their event loops, from any thread."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

from redis_stream_client import Membership, RedisStreamClient, Statistics
from redis_stream_client._model.statistics import NOTHING
from redis_stream_client.telemetry import clients, metrics
from redis_stream_client.telemetry.clients import Clients

if TYPE_CHECKING:
    import pytest

    from tests.harness.connection import Connection
    from tests.harness.telemetry import Collector


class Client:
    """A client that has joined, as far as an observer sees it."""

    def __init__(self, consumer: str = "a", leases: int = 1) -> None:
        self.asked_in: list[threading.Thread] = []
        self.leases = leases
        self.membership = Membership(consumer, "orders", self.statistics)

    def statistics(self) -> Statistics:
        self.asked_in.append(threading.current_thread())
        return replace(NOTHING, leases=self.leases)


def leases(known: Clients) -> list[int]:
    return [snapshot.statistics.leases for snapshot in known.snapshots()]


async def test_a_client_is_asked_on_its_loop_whoever_asks() -> None:
    known, client = Clients(), Client()
    known.add(client.membership)
    assert await asyncio.to_thread(leases, known) == [1]
    assert client.asked_in == [threading.current_thread()]


async def test_whoever_asks_on_the_loop_does_not_wait_for_it() -> None:
    known, client = Clients(), Client()
    known.add(client.membership)
    assert leases(known) == [1]


async def test_one_answer_serves_all_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    known, client = Clients(), Client()
    known.add(client.membership)
    monkeypatch.setattr(clients, "FRESH", 60.0)
    assert [leases(known), leases(known)] == [[1], [1]]
    assert len(client.asked_in) == 1
    monkeypatch.setattr(clients, "FRESH", -1.0)
    client.leases = 2
    assert leases(known) == [2]


async def test_the_last_answer_stands_while_the_loop_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    known, client = Clients(), Client()
    known.add(client.membership)
    assert leases(known) == [1]
    client.leases = 2
    monkeypatch.setattr(clients, "FRESH", -1.0)
    monkeypatch.setattr(clients, "PATIENCE", 0.05)
    found: list[int] = []
    asking = threading.Thread(target=lambda: found.extend(leases(known)))
    asking.start()
    asking.join()  # which blocks this loop
    assert found == [1]


async def test_who_has_left_is_asked_no_more_and_not_kept() -> None:
    known, client, other = Clients(), Client("a"), Client("b", leases=2)
    known.add(client.membership)
    known.add(other.membership)
    known.remove(client.membership)
    assert leases(known) == [2]
    kept = weakref.ref(client)
    del client
    gc.collect()
    assert kept() is None


def test_a_loop_that_is_closed_has_no_clients() -> None:
    known, client = Clients(), Client()

    async def join() -> None:
        known.add(client.membership)

    asyncio.run(join())
    assert leases(known) == []


async def test_a_forked_child_has_none_of_its_parents_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    known, client = Clients(), Client()
    known.add(client.membership)
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    assert leases(known) == []
    assert not client.asked_in


async def test_a_client_that_is_closed_or_dropped_is_not_kept_alive(
    redis: Connection, service: str, collector: Collector
) -> None:
    client = RedisStreamClient(redis, service, observer=collector.telemetry)
    async with client:
        assert collector.value(metrics.LEASES) == 0
    kept = weakref.ref(client)
    del client
    gc.collect()
    assert kept() is None
    assert collector.value(metrics.LEASES) is None
