"""The clock: it never runs backwards, and goes on while the machine is suspended."""

from __future__ import annotations

import sys
import time

import pytest

from redis_stream_client._concurrency import clock


def test_it_never_runs_backwards() -> None:
    moments = [clock.now() for _ in range(1_000)]
    assert moments == sorted(moments)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such clock")
def test_it_counts_the_time_in_which_the_machine_is_suspended() -> None:
    assert abs(clock.now() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1.0
