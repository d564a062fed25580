"""What is known of a stream whose handlers fail, or whose owners die. Values."""

from dataclasses import dataclass

from redis_stream_client._concurrency import clock


@dataclass(slots=True)
class Trouble:
    """Since its checkpoint last advanced, a stream's handlers have failed, or owners have died.

    A lease that is not in trouble has none of it, so most leases have none.

    Attributes:
        failures: how often a handler failed.
        since: when that began, by this process's clock.
        error: what the last failure was; empty if there was none.
        ours: whether it was that of this owner.
    """

    failures: int
    since: float
    error: str = ""
    ours: bool = False

    @classmethod
    def found(cls, failures: int, failing_for: float, error: str) -> "Trouble":
        """What a record says. `failing_for`: in seconds."""
        return cls(failures, clock.now() - failing_for, error)
