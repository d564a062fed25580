"""What ``status --json`` prints."""

import dataclasses
from typing import Any

from redis_stream_client import FleetStatus
from redis_stream_client.cli.tally import Tally


def document(found: FleetStatus, tally: Tally | None) -> dict[str, Any]:
    """What ``--json`` prints."""
    lag = late = None
    if tally is not None:
        lag = dataclasses.asdict(tally.lag())
        if tally.limit is not None:
            late = {
                "limit": tally.limit,
                "streams": tally.late,
                "unread": tally.unread,
                "worst": [dataclasses.asdict(stream) for stream in tally.worst_late()],
                "unreadable": [dataclasses.asdict(stream) for stream in tally.unreadable],
            }
    return dataclasses.asdict(found) | {"lag": lag, "late": late}
