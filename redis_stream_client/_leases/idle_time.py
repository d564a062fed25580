"""Idle time: how long the steps of a follower have waited with nothing to do, and when to try to end its loop."""

FIRST_LOOK = 0.05
"""The shortest idle time in seconds, and the first pause before a follower looks again whether everything was
read; the pause doubles."""

LOOKS = 5
"""Looks in vain after which idle time starts anew, after about 1.5 s: Redis does not answer reads, so nothing
could come. When it answers again, not all streams of this client are put to sleep at the same moment."""


class IdleTime:
    """What is left of one follower's idle time. It passes while a step waits, and starts anew with each entry.

    Args:
        seconds: the idle time after which the loop ends.

    Attributes:
        trying: whether the client was asked to put the stream to sleep, and the follower has no answer yet.
        over: whether the stream was put to sleep, so that the loop has ended.
    """

    __slots__ = ("_handed_over", "_left", "_looks", "_seconds", "over", "trying")

    def __init__(self, seconds: float) -> None:
        self._seconds = max(seconds, FIRST_LOOK)
        self._left = self._seconds
        self._handed_over = -1
        self._looks = 0
        self.trying = False
        self.over = False

    def start(self, handed_over: int) -> float:
        """A step begins to wait. Returns for how many seconds it may wait. `handed_over`: how many entries the
        user has got."""
        if handed_over != self._handed_over:
            self._handed_over = handed_over
            self.restart()
        return max(0.0, self._left)

    def stop(self, seconds: float) -> None:
        """The step has waited so long."""
        self._left -= seconds

    @property
    def passed(self) -> bool:
        """Whether the idle time has passed."""
        return self._left <= 0

    def restart(self) -> None:
        """The idle time starts anew."""
        self._left = self._seconds
        self._looks = 0

    def answered(self, *, asleep: bool) -> None:
        """The client has answered. If something is there to be read, it comes soon."""
        self.trying = False
        self.over = asleep
        self.restart()

    def look_again(self) -> None:
        """The stream was not read to its end. Look again soon, or, if that lasts, after another idle time."""
        if self._looks == LOOKS:
            self.restart()
        else:
            self._left = FIRST_LOOK * 2**self._looks
            self._looks += 1
