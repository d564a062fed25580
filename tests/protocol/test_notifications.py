"""What a subscribed connection hears, and which flags the server needs for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_stream_client._model.keys import Keys
from redis_stream_client._protocol import notifications
from redis_stream_client._protocol.hints import Left
from redis_stream_client._protocol.notifications import LockGone, missing_flags

FLAGS = "KEg$lshzxetdmnA"


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        ("", "Kx"),
        ("K", "x"),
        ("x", "K"),
        ("Kx", ""),
        ("xK", ""),
        ("KA", ""),
        ("AKE", ""),
        ("A", "K"),
        ("Ex", "K"),
        ("KE$lsh", "x"),
        ("KEm", "x"),
    ],
)
def test_what_is_missing_of_expiry_events_by_key_is_added(flags: str, missing: str) -> None:
    assert missing_flags(flags) == missing


@given(st.text(alphabet=FLAGS, max_size=len(FLAGS)))
def test_afterwards_nothing_is_missing_and_nothing_costlier_was_added(flags: str) -> None:
    missing = missing_flags(flags)
    assert missing_flags(flags + missing) == ""
    assert set(missing) <= set("Kx") - set(flags)


KEYS = Keys("calls")
LOCK = f"__keyspace@3__:{KEYS.lock('a')}".encode()


@pytest.mark.parametrize("event", [b"expired", b"del"])
def test_a_lock_that_was_removed_is_told_with_its_consumer(event: bytes) -> None:
    assert notifications.decode([b"pmessage", b"pattern", LOCK, event], KEYS, 3) == LockGone(
        "a", expired=event == b"expired"
    )


@pytest.mark.parametrize(
    "message",
    [
        pytest.param([b"pmessage", b"pattern", LOCK, b"set"], id="another event"),
        pytest.param([b"pmessage", b"pattern", LOCK.replace(b"@3", b"@4"), b"del"], id="another database"),
        pytest.param([b"pmessage", b"pattern", LOCK.removesuffix(b"a"), b"del"], id="no consumer"),
        pytest.param([b"subscribe", KEYS.control.encode(), 1], id="a confirmation"),
        pytest.param([b"message", KEYS.control.encode(), b"mark"], id="no hint"),
    ],
)
def test_what_is_not_for_us_says_nothing(message: list[bytes]) -> None:
    assert notifications.decode(message, KEYS, 3) is None


def test_a_hint_is_heard_on_the_control_channel() -> None:
    assert notifications.decode([b"message", KEYS.control.encode(), b"left b"], KEYS, 3) == Left("b")
