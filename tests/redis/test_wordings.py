"""The words for outages: lines for each kind."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._consumer.orders import PAUSE
from redis_stream_client._redis import wordings
from redis_stream_client._redis.outage import REMIND, Outages
from redis_stream_client._redis.wordings import Wording
from redis_stream_client._run.health_file import HEALTH_FILE
from redis_stream_client._run.outage_watch import HANDLERS, STUCK
from tests.harness.logs import LOG

if TYPE_CHECKING:
    from redis_stream_client._model.log_fields import LogFields

ALL = [
    *(each for each in vars(wordings).values() if isinstance(each, Wording)),
    *(HANDLERS, STUCK, HEALTH_FILE, PAUSE),
]


def details() -> LogFields:
    return {"address": "a:1", "streams": 3, "path": "/ready"}


@pytest.mark.parametrize("wording", ALL, ids=lambda wording: wording.kind)
async def test_each_kind_has_a_line_at_its_beginning_for_each_minute_and_at_its_end(
    caplog: pytest.LogCaptureFixture, wording: Wording
) -> None:
    caplog.set_level(logging.INFO, "redis_stream_client")
    now = 1_000.0
    outages = Outages(LOG, now=lambda: now)
    outage = outages.watch(wording, details)
    outage.began("refused", now)
    now += REMIND
    outages.remind()
    outage.ended()
    outages.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]
    assert not any("%(" in record.getMessage() for record in caplog.records)
    assert {vars(record)["outage"] for record in caplog.records} == {wording.kind}


def test_no_two_kinds_have_the_same_name() -> None:
    assert len({wording.kind for wording in ALL}) == len(ALL)
