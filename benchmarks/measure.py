"""What the scenarios share: what Redis says of its own work."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.harness.connection import Connection


@dataclass(frozen=True, slots=True)
class Work:
    """Commands that Redis has processed (those inside scripts included), its CPU seconds, and its memory."""

    commands: int
    cpu: float
    memory: int
    at: float

    @classmethod
    async def of(cls, redis: Connection) -> Work:
        """Look now."""
        info = await redis.info("all")
        cpu = float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
        return cls(int(info["total_commands_processed"]), cpu, int(info["used_memory"]), time.perf_counter())
