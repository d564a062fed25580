"""Take-over while unrelated keys with a TTL lie in the same database.

Redis announces an expiry when it deletes the key, and its expiry cycle finds few among many: who relies on hearing
of it waits.
"""

from __future__ import annotations

from functools import partial

from benchmarks.contenders import MODULES
from benchmarks.scenario import Chart, Scenario
from benchmarks.scenarios.takeover import take_over

SCENARIO = Scenario(
    name="cache",
    title="the holder of 1,000 streams is killed beside 4 peers, among K keys with a TTL; seconds since the kill",
    contenders={
        name: partial(take_over, MODULES[name], streams=1_000, peers=4)
        for name in ("run()", "lock per stream", "XAUTOCLAIM")
    },
    cases=({"cache": 0}, {"cache": 100_000}),
    deep=({"cache": 1_000_000},),
    ratio="last s",
    charts=(Chart("last s", "cache"), Chart("lost", "cache")),
)
