"""What ``status --json`` prints."""

import dataclasses
from typing import Any

from redis_stream_client import FleetStatus, StreamStatus
from redis_stream_client.cli.tally import Tally


def document(found: FleetStatus, tally: Tally | None, limit: float | None = None) -> dict[str, Any]:
    """What ``--json`` prints."""
    late = None
    if tally is not None and limit is not None:
        late = {
            "limit": limit,
            "streams": tally.late,
            "unread": tally.unread,
            "worst": [dataclasses.asdict(stream) for stream in late_streams(tally, limit)],
            "unreadable": [dataclasses.asdict(stream) for stream in tally.unreadable],
        }
    lag = None if tally is None else dataclasses.asdict(tally.lag())
    return dataclasses.asdict(found) | {"lag": lag, "late": late}


def late_streams(tally: Tally, limit: float) -> list[StreamStatus]:
    """The streams that are at least `limit` seconds behind, as many as are known by name, the worst first."""
    return [stream for stream in tally.worst() if stream.behind is not None and stream.behind >= limit]
