"""Which member is meant."""

from __future__ import annotations

import pytest

from redis_stream_client import FleetMember, FleetStatus
from redis_stream_client.cli.failure import NotThere, Unusable
from redis_stream_client.cli.names import full_name, short_name

IDS = (
    "redis-consumer-web-1-0a1b2c3d",
    "redis-consumer-web-2-0a1b2c3d",
    "redis-consumer-web-2-ffffffff",
    "redis-consumer-web-1-blue-0a1b2c3d",
    "their-own",
)
STATUS = FleetStatus(
    "orders", 0.0, tuple(FleetMember(id, True, 0, 0.0, None, None) for id in IDS), 0, None, 0, 0, None, 0, 0
)


@pytest.mark.parametrize(
    ("given", "id"),
    [
        ("redis-consumer-web-1-0a1b2c3d", IDS[0]),
        ("web-1-0a1b2c3d", IDS[0]),
        ("web-1", IDS[0]),
        ("web-2-ffffffff", IDS[2]),
        ("web-1-blue", IDS[3]),
        ("their-own", IDS[4]),
    ],
)
def test_a_member_is_found_by_its_id_or_its_name(given: str, id: str) -> None:
    assert full_name(given, STATUS) == id


@pytest.mark.parametrize("given", ["web", "web-3", "", "web-1-0a1b2c3", "web-1-0a1b2c3d-"])
def test_one_that_is_not_there(given: str) -> None:
    with pytest.raises(NotThere, match="no member is called"):
        full_name(given, STATUS)


def test_a_name_that_several_have_is_not_enough() -> None:
    with pytest.raises(Unusable, match=r"2 members are called web-2: web-2-0a1b2c3d, web-2-ffffffff; give the id"):
        full_name("web-2", STATUS)


def test_the_screen_shows_what_tells_them_apart() -> None:
    assert [short_name(id) for id in (*IDS[3:], "redis-consumer-")] == [
        *("web-1-blue-0a1b2c3d", "their-own", "redis-consumer-")
    ]
