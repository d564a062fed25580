"""What a lock says of its holder: also older versions' locks are read, and what makes no sense is not believed."""

from __future__ import annotations

import json
import os
import re
import socket
import time

import pytest

from redis_stream_client._model import options
from redis_stream_client._model.version import __version__
from redis_stream_client._protocol import lock_value
from redis_stream_client._protocol.replies import Holder
from tests.harness.options import checked


@pytest.mark.parametrize("weight", [options.MIN_WEIGHT, 0.5, 1, 2.0, 1 / 3, options.MAX_WEIGHT])
@pytest.mark.parametrize("max_streams", [None, 1, 10_000])
def test_what_is_said_is_read(weight: float, max_streams: int | None) -> None:
    value = lock_value.encode(checked(max_streams=max_streams, weight=weight))
    assert lock_value.decode(value.encode()) == Holder(weight, max_streams)
    assert re.match(r'{"ttl": \d+, "weight": [\d.]+, "max_streams": \w+, "', value)  # what the scripts look for


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"ttl": 4000, "host": "an older version"}',
        b'{"weight": null, "max_streams": null}',
        b'{"weight": "2", "max_streams": "2"}',
        b'{"weight": 0, "max_streams": 0}',
        b'{"weight": -1.0, "max_streams": -1}',
        b'{"weight": NaN, "max_streams": 1.5}',
        b'{"weight": Infinity}',
    ],
)
def test_what_makes_no_sense_is_not_believed(value: bytes) -> None:
    assert lock_value.decode(value) == Holder(1.0, None)


def test_all_that_is_said_is_described() -> None:
    before = int(time.time())
    described = lock_value.describe(lock_value.encode(checked(max_streams=3, weight=0.5, lock_ttl=4.0)).encode())
    assert described.holder == Holder(0.5, 3)
    assert described.ttl_ms == 4000
    assert (described.host, described.pid) == (socket.gethostname(), os.getpid())
    assert described.version == __version__
    assert described.started is not None
    assert before <= described.started <= time.time()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[" * 100_000,
        b"{}",
        b'{"ttl": "4", "host": 1, "pid": true, "started": 4, "version": null}',
        b'{"ttl": -1, "host": ["h"], "pid": 1.5, "started": "yesterday", "version": {}}',
    ],
)
def test_what_makes_no_sense_is_not_described(value: bytes) -> None:
    assert lock_value.describe(value) == (
        *(Holder(), None, None, None, None, None),
        *(lock_value.NOTHING, False),
    )


def test_it_is_for_people_too() -> None:
    said = json.loads(lock_value.encode(checked()))
    assert set(said) == {"ttl", "host", "pid", "started", "version", "weight", "max_streams"}
