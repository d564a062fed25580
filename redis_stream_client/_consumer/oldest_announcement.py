"""The age of the oldest announcement that no member has read, as far as this client knows."""


class OldestAnnouncement:
    """The census of an audit learns it from Redis. A read that finds nothing shows that none waits."""

    def __init__(self) -> None:
        self._since: float | None = None

    def seen(self, age: float | None, now: float) -> None:
        """Note that the oldest announcement has waited for `age` seconds; None: none waits."""
        self._since = None if age is None else now - age

    def age(self, now: float) -> float | None:
        """Seconds for which the oldest announcement has waited; None: none waits, as far as is known."""
        return None if self._since is None else now - self._since
