"""What is counted for each entry: the sums of all clients, also of those that have left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis_stream_client import Checkpoint, Entry, Fence, Membership
from redis_stream_client._model.statistics import NOTHING
from redis_stream_client.telemetry import OpenTelemetry, metrics

if TYPE_CHECKING:
    from tests.harness.telemetry import Collector

ENTRIES = [Entry("1-0", {b"text": b"hello"}), Entry("2-0", {b"text": b"hello"})]


def member(consumer: str, service: str = "orders") -> Membership:
    return Membership(consumer, service, lambda: NOTHING)


async def test_the_counts_of_who_has_left_stay(collector: Collector) -> None:
    telemetry, value = collector.telemetry, collector.value
    for consumer in ("a", "b"):
        telemetry.joined(member(consumer))
        telemetry.received(consumer, "call-17", ENTRIES)
        telemetry.checkpoint(Checkpoint(consumer, "call-17", "1-0", Fence(1, 0, 1), "2-0", 2, 0.1))
        assert value(metrics.CHECKPOINTS) == (1 if consumer == "a" else 2)
        telemetry.left(member(consumer))
    assert (value(metrics.CONSUMED), value(metrics.CHECKPOINTS)) == (4, 2)
    telemetry.left(member("a"))  # once more
    assert value(metrics.CONSUMED) == 4


async def test_services_are_counted_apart(collector: Collector) -> None:
    telemetry, value = collector.telemetry, collector.value
    telemetry.joined(member("a", "orders"))
    telemetry.joined(member("b", "chats"))
    telemetry.received("a", "call-17", ENTRIES)
    telemetry.received("b", "chat-1", ENTRIES[:1])
    assert [value(metrics.CONSUMED, service=service, group=service) for service in ("orders", "chats")] == [2, 1]


async def test_observers_of_one_provider_count_together(collector: Collector) -> None:
    other = OpenTelemetry(meter_provider=collector.meters)
    for telemetry, consumer in ((collector.telemetry, "a"), (other, "b")):
        telemetry.joined(member(consumer))
        telemetry.received(consumer, "call-17", ENTRIES)
    assert collector.value(metrics.CONSUMED) == 4
