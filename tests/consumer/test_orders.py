"""The orders of operators, as one member knows them."""

from __future__ import annotations

from redis_stream_client._consumer.orders import Orders


def test_who_waits_for_it_is_told_which_stream_is_to_go() -> None:
    orders, told = Orders(), list[tuple[str, int]]()
    orders.give.add(lambda lbs_id, deliveries: told.append((lbs_id, deliveries)))
    orders.give.notify("1-0", 3)
    assert told == [("1-0", 3)]
