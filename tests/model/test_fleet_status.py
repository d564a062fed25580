"""What is seen of a fleet: values that become JSON without further ado."""

from __future__ import annotations

import dataclasses
import json

from redis_stream_client import FleetMember, FleetStatus, Lag, StreamStatus, Unread


def test_a_status_becomes_json() -> None:
    member = FleetMember("a", alive=False, leases=1, last_seen=0.5, lock_left=None, presence=None)
    status = FleetStatus("orders", 1.5, (member,), 0, None, 0, 1, 0.5, 0, None, (Unread("presence", "NOPERM"),))
    said = json.loads(json.dumps(dataclasses.asdict(status)))
    assert said["members"][0] | {"id": "b"} == dataclasses.asdict(dataclasses.replace(member, id="b"))
    assert said["unread"] == [{"what": "presence", "why": "NOPERM"}]


def test_streams_and_the_lag_become_json() -> None:
    stream = StreamStatus("call-1", "1-1", owner=None, owner_alive=False, deliveries=0, behind=1.5, entries=2)
    assert StreamStatus(**json.loads(json.dumps(dataclasses.asdict(stream)))) == stream
    lag = Lag(entries=2, more=False, behind=1.5, stream="call-1", waiting=1, streams=1, unread=0)
    assert Lag(**json.loads(json.dumps(dataclasses.asdict(lag)))) == lag
