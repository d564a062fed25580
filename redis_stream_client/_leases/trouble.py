"""Trouble: what is known about a stream whose handlers fail or whose owners die. Values only."""

from dataclasses import dataclass

from redis_stream_client._concurrency import clock


@dataclass(slots=True)
class Trouble:
    """Failures of handlers and deaths of owners since the checkpoint of a stream last advanced.

    Most leases are not in trouble, and have no such object.

    Attributes:
        failures: how often a handler failed.
        since: when the trouble began, by the clock of this process.
        error: the last failure; empty if there was none.
        ours: whether this owner has caused the last failure.
        lived: the longest time in seconds that one of the owners that died had lived with it; None if not known.
        trials: how often an owner died with it that had lived well without it.
    """

    failures: int
    since: float
    error: str = ""
    ours: bool = False
    lived: float | None = None
    trials: int = 0

    @classmethod
    def found(
        cls, failures: int, failing_for: float, error: str, lived: float | None = None, trials: int = 0
    ) -> "Trouble":
        """The trouble that a progress record says. `failing_for`: in seconds."""
        return cls(failures, clock.now() - failing_for, error, lived=lived, trials=trials)
