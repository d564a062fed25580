"""For how long the oldest announcement waits that no member has read, as far as this client knows."""


class OldestAnnouncement:
    """The audit's census asks Redis for it; a read that finds nothing knows that none waits."""

    def __init__(self) -> None:
        self._since: float | None = None

    def seen(self, age: float | None, now: float) -> None:
        """The oldest one has waited for `age` seconds; None: none waits."""
        self._since = None if age is None else now - age

    def age(self, now: float) -> float | None:
        """Seconds that the oldest one has waited; None: none waits, as far as is known."""
        return None if self._since is None else now - self._since
