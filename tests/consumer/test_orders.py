"""The orders of operators, as one member knows them: when they are read, and what follows from them."""

from __future__ import annotations

import logging

import pytest

from redis_stream_client import Pause, RedisRejected
from redis_stream_client._consumer.orders import HINTS, REFUSED, UNKNOWN, Orders
from redis_stream_client._consumer.orders import PAUSE as WORDING
from redis_stream_client._protocol.lock_value import NOTHING, Says
from redis_stream_client._redis.outage import Outages
from tests.harness.logs import LOG

PAUSE = Pause("a migration", 1_700_000_000.0)


class Scene:
    """The orders of a member whose clock is moved by hand, and what it was told."""

    def __init__(self) -> None:
        self.time = 100.0
        self.orders = Orders(LOG, Outages(LOG).watch(WORDING), 1.0, lambda: self.time)
        self.told: list[str] = []
        self.orders.changed.add(lambda: self.told.append("changed"))
        self.orders.drain.add(self._drain)
        self.orders.pressing.add(lambda: self.told.append("pressing"))

    def _drain(self) -> None:
        self.told.append("drain")
        self.orders.drains()

    def heard(self) -> list[str]:
        told, self.told = self.told, []
        return told


@pytest.fixture
async def scene(caplog: pytest.LogCaptureFixture) -> Scene:
    caplog.set_level(logging.INFO, "redis_stream_client")
    return Scene()


async def test_they_are_read_once_in_a_period_and_sooner_after_a_hint_but_not_after_each(scene: Scene) -> None:
    assert scene.orders.reading()
    assert not scene.orders.reading()
    scene.time += 0.99
    assert not scene.orders.reading()
    scene.time += 0.02
    assert scene.orders.reading()
    scene.orders.heard()
    assert scene.heard() == ["pressing"]
    assert not scene.orders.reading(), "only just read"
    assert scene.orders.overdue_at == pytest.approx(scene.time + 1 / HINTS)
    scene.time += 1 / HINTS + 0.001
    assert scene.orders.reading(), "a little later"
    scene.time += 0.1
    scene.orders.heard()
    scene.orders.heard()
    assert scene.heard() == ["pressing"]
    assert scene.orders.reading()
    scene.orders.unread()
    scene.time += 1 / HINTS + 0.001
    assert scene.orders.reading(), "again, since there was no answer"


async def test_a_hint_presses_also_where_nobody_has_read_them_when_they_were_due(scene: Scene) -> None:
    assert scene.orders.reading()
    assert scene.orders.overdue_at == scene.time + 2.0, "a whole period late"
    scene.time += 5.0
    scene.orders.heard()
    scene.orders.heard()
    assert scene.heard() == ["pressing"]
    assert scene.orders.overdue_at <= scene.time
    assert scene.orders.reading()


async def test_nothing_is_taken_before_it_is_known_whether_there_is_a_pause(scene: Scene) -> None:
    assert not scene.orders.new_streams
    scene.orders.read(None, drain=False)
    assert scene.orders.new_streams
    assert scene.heard() == ["changed"]
    scene.orders.read(None, drain=False)
    assert scene.heard() == []


async def test_a_new_member_does_not_wait_for_ever_to_know(scene: Scene) -> None:
    for _ in range(9):
        assert scene.orders.reading()
        scene.orders.unread()
        scene.time += 1.0
        assert not scene.orders.new_streams
    scene.time += 2.0
    scene.orders.unread()
    assert scene.orders.new_streams
    scene.orders.read(PAUSE, drain=False)
    scene.orders.unread()
    assert scene.orders.pause == PAUSE, "one that knows keeps to what it knows"


async def test_after_a_lapse_it_must_know_anew(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    assert scene.orders.reading()
    scene.orders.read(None, drain=False)
    for lasts in (0.0, 100.0):
        scene.orders.forget()
        assert not scene.orders.new_streams
        scene.time += lasts
        assert scene.orders.reading(), "with the first beat"
        scene.orders.unread()
        assert not scene.orders.new_streams, "it has only just asked"
        scene.orders.read(None, drain=False)
        assert scene.orders.new_streams
    assert scene.heard() == ["changed"] * 3
    scene.orders.read(PAUSE, drain=False)
    scene.orders.forget()
    assert scene.orders.reading()
    scene.time += UNKNOWN + 0.1
    scene.orders.unread()
    scene.orders.read(PAUSE, drain=False)
    assert scene.orders.pause == PAUSE, "it goes on meanwhile"
    assert len(caplog.records) == 1


async def test_a_pause_its_reason_and_its_end_are_logged_and_told_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    for pause in (PAUSE, PAUSE, Pause("another", PAUSE.since), None, None):
        scene.orders.read(pause, drain=False)
        assert scene.orders.pause == pause
        assert scene.orders.new_streams == (pause is None)
    assert scene.heard() == ["changed"] * 3
    began, changed, ended = [record.getMessage() for record in caplog.records]
    assert began.startswith("this member takes no new streams, by order of an operator, since ")
    assert "Z: a migration; " in began
    assert changed == "the pause goes on, for another reason: another"
    assert ended.startswith("the pause is over, after ")


async def test_it_says_that_it_is_paused_when_nothing_can_come_any_more(scene: Scene) -> None:
    scene.orders.read(PAUSE, drain=False)
    assert scene.orders.says == NOTHING
    scene.orders.rests()
    scene.orders.rests()
    assert scene.orders.says == Says(paused_ms=1_700_000_000_000)
    assert scene.heard() == ["changed", "pressing"]
    scene.orders.read(Pause("the next one", PAUSE.since + 1), drain=False)
    assert scene.orders.says == NOTHING, "it has not looked yet"
    scene.orders.read(None, drain=False)
    assert scene.orders.says == NOTHING


async def test_it_drains_once_and_says_so_whoever_has_ordered_it(scene: Scene) -> None:
    scene.orders.read(None, drain=True)
    scene.orders.read(None, drain=True)
    assert scene.heard() == ["changed", "drain", "pressing"] or scene.heard() == []
    assert scene.orders.says == Says(draining=True)
    scene.orders.read(None, drain=False)
    assert scene.orders.says == Says(draining=True), "there is no way back"


async def test_what_redis_does_not_permit_is_said_once_and_tried_again_much_later(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert scene.orders.reading()
        scene.orders.refused(RedisRejected("no permission"))
        assert scene.orders.new_streams
        scene.time += 1.5
        assert not scene.orders.reading()
        scene.time += REFUSED
    assert len(caplog.records) == 1
    assert "pauses and drains are not obeyed (no permission)" in caplog.records[0].getMessage()
    assert scene.orders.reading()
    scene.orders.read(PAUSE, drain=False)
    scene.time += 1.1
    assert scene.orders.reading(), "as often as ever"


async def test_who_waits_for_it_is_told_which_stream_is_to_go(scene: Scene) -> None:
    told = list[tuple[str, int]]()
    scene.orders.give.add(lambda lbs_id, deliveries: told.append((lbs_id, deliveries)))
    scene.orders.give.notify("1-0", 3)
    assert told == [("1-0", 3)]
