"""A fleet as text, in windows of many sizes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from redis_stream_client import FleetMember, FleetStatus, Pause, StreamStatus, Unread
from redis_stream_client.cli.fleet_view import View, headline, left_out, matter_most, picture
from redis_stream_client.cli.tally import Tally
from redis_stream_client.terminal.glyphs import ASCII, UNICODE, Glyphs


def member(number: int, leases: int, *, alive: bool = True, **facts: Any) -> FleetMember:
    id = f"redis-consumer-web-{number}-0a1b2c3d"
    return FleetMember(
        id, alive, leases, 0.2, 9.8 if alive else None, alive, "host-1", 4242, "1.0", 900.0, **facts
    )


def fleet(*members: FleetMember, **facts: Any) -> FleetStatus:
    known = {
        "waiting": 0,
        "oldest_waiting": None,
        "orphaned": sum(one.leases for one in members if not one.alive),
        "orphaned_for": None,
        "released": 0,
        "dead_letters": 0,
    }
    owned = sum(one.leases for one in members if one.alive)
    return FleetStatus("orders", 1000.0, members, owned=owned, **(known | facts))


BUSY = fleet(
    member(1, 12_345, weight=2.0),
    member(2, 6_000, draining=True, max_streams=10_000),
    member(3, 7, alive=False),
    waiting=3,
    oldest_waiting=75.0,
    orphaned_for=4.0,
    dead_letters=2,
    paused=Pause("a new schema for all orders", 940.0),
    unread=(Unread("presence", "NOPERM"),),
)


def drawn(
    view: View, width: int, height: int | None = None, glyphs: Glyphs = UNICODE, most: int = 99
) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=width).print(picture(view, width, glyphs, most=most, height=height))
    return output.getvalue().splitlines()


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
@pytest.mark.parametrize("width", [40, 60, 80, 120, 160, 200])
def test_it_fits_and_says_what_matters(width: int, glyphs: Glyphs) -> None:
    tally = Tally()
    tally.add(StreamStatus("call-1", "1-0", BUSY.members[0].id, True, 1, behind=42.0, entries=7))
    lines = drawn(View(BUSY, BUSY, tally), width, glyphs=glyphs)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for words in (
        "orders 2 members, 1 dead, 18,345 streams owned, 3 waiting, the oldest for 1 min 15 s",
        "7 orphaned, the oldest for 4.0 s, 2 dead letters",
        "PAUSED for 1 min: a new schema for all orders (2 members may still take new streams)",
        "42 s behind in call-1, 7 entries to read in 1 stream",
        "not read: presence: NOPERM",
        "draining",
        "12,345",
    ):
        assert words in text
    assert ("█" in text) is (glyphs is UNICODE)


@pytest.mark.parametrize("height", [8, 10, 12, 20, 60])
def test_as_many_members_as_have_room(height: int) -> None:
    status = fleet(*(member(number, number) for number in range(1, 31)))
    lines = drawn(View(status), 80, height)
    assert len(lines) <= height
    shown = [line for line in lines if line.startswith("web-")]
    if height < 33:
        assert len(lines) == height
        assert lines[-1].startswith(f"and {30 - len(shown)} more members with ")
    assert any(line.startswith("web-30-0a1b2c3d ") for line in shown)


def test_dead_members_with_streams_matter_most_then_those_that_drain() -> None:
    members = [
        *(member(1, 50), member(2, 5), member(3, 1, alive=False), member(4, 0, alive=False)),
        *(member(5, 0, draining=True), member(6, 9)),
    ]

    def chosen(most: int) -> list[int]:
        return [members.index(one) + 1 for one in matter_most(members, most)]

    assert [chosen(most) for most in (1, 2, 3, 4)] == [[3], [3, 5], [1, 3, 5], [1, 3, 5, 6]]
    assert left_out(members, matter_most(members, 3)) == "and 3 more members with 14 streams, 1 of them dead"
    assert left_out(members, members) == ""


def test_members_stand_in_the_order_of_people() -> None:
    members = [member(number, 0) for number in (10, 9, 100, 1)]
    assert [one.id.split("-")[3] for one in matter_most(members, 9)] == ["1", "9", "10", "100"]


def test_what_moved_since_the_last_look() -> None:
    before, now = fleet(member(1, 5), member(2, 5)), fleet(member(1, 10), member(3, 2))
    lines = drawn(View(now, before), 80)
    assert " 10    +5 " in lines[-2]
    assert " 2    +2 " in lines[-1]
    assert "+" not in "".join(drawn(View(now), 80))


def test_nothing_hides_in_a_name() -> None:
    status = fleet(FleetMember("evil\x1b[2J\n", True, 1, 0.1, None, None, host="\x07"))
    assert all(line.isprintable() for line in drawn(View(status), 80))
    assert headline(fleet()).plain == "orders  0 members, 0 streams owned"
