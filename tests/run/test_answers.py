"""What probes are told, by what is known about the client."""

from __future__ import annotations

from typing import Any

import pytest

from redis_stream_client._model.health import Health, judge
from redis_stream_client._model.orders import Pause
from redis_stream_client._run import answers
from tests.harness.options import checked


def health(**ages: Any) -> Health:
    return judge(checked(), **{"alive": True, **ages})


def ready(found: Health, **state: bool) -> tuple[bool, str]:
    return answers.ready(found, **{"joined": True, "draining": False, "full": False, **state})


def test_a_client_is_live_until_it_has_ended_for_good() -> None:
    assert answers.live(failure=None, closed=False) == (True, "live")
    assert answers.live(failure=None, closed=True) == (False, "not live: closed")
    ok, text = answers.live(failure=ValueError("call-17 of Ada"), closed=True)
    assert not ok
    assert text == "not live: ended by ValueError, see the log"  # and no word of what the error says


@pytest.mark.parametrize(
    ("found", "state", "text"),
    [
        (health(), {}, "ready"),
        (health(), {"draining": True}, "not ready: draining"),
        (health(alive=False), {"joined": False}, "not ready: has not joined yet"),
        (health(alive=False), {}, "not ready: does not hold its consumer lock"),
        (health(paused=Pause("Ada's budget", 0.0), announcement=60.0), {}, "not ready: paused by an operator"),
        (
            health(lease=("call-17", 20.4)),
            {},
            "not ready: lease stuck for 20 s (its event was not read, or its handler was not called)",
        ),
        (health(announcement=60.0), {}, "not ready: announcement stuck for 60 s (no member reads it)"),
        (health(lease=("call-17", 1.0), wakeup=("call-18", 1.0), announcement=1.0), {}, "ready"),
    ],
)
def test_readiness(found: Health, state: dict[str, bool], text: str) -> None:
    assert ready(found, **state) == (text == "ready", text)


def test_all_that_is_stuck_is_told_and_no_stream_is_named() -> None:
    _, text = ready(health(lease=("call-17", 20.0), wakeup=("call-18", 30.0), announcement=40.0))
    assert text.count("stuck") == 3
    assert "call" not in text.replace("called", "")


def test_a_full_client_is_ready_though_announcements_wait() -> None:
    full = health(announcement=60.0, full=True)
    assert not full.ok
    assert ready(full, full=True) == (True, "ready")
    assert not ready(health(announcement=60.0, full=True, lease=("call-17", 20.0)), full=True)[0]
