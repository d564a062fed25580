"""What the user has got of one lease's entries: how far a checkpoint may go, and where entries are missing."""

from collections import deque

from redis_stream_client._model.entry import START, order
from redis_stream_client._model.gaps import Gap

MARKS = 1_024
"""The most entries without a checkpoint whose number in the stream is remembered."""


class Handed:
    """How far the entries of a lease were handed out.

    Attributes:
        reached: id of the last entry since reading began, or began again.
        history: the server history on which reading began again, because writes may have been lost.
        gaps: entries that were trimmed or deleted before they were read.
        count: how many entries were handed out.
        settled: whether no entry was handed out since the last checkpoint, and that was not one within a batch.
        through: id of the last entry of the last batch; the first of all ids where entries were handed out since.
    """

    __slots__ = ("_before", "_marks", "count", "gaps", "history", "reached", "settled", "through")

    def __init__(self) -> None:
        self.reached = START
        self.history: str | None = None
        self.gaps: tuple[Gap, ...] = ()
        self.count = 0
        self.settled = True
        self.through = START
        self._before = START  # the furthest that was ever reached
        self._marks: deque[tuple[str, int]] | None = None

    def hand_over(self, id: str, after: str | None, added: int | None) -> None:
        """The user gets the entry `id`, the `added`-th of the stream; the entry before was `after`."""
        self.count += 1
        self.settled = False
        self.through = START
        if after is self.reached or order(id) > order(self.reached):
            self.reached = id
        if added is not None:
            if self._marks is None:
                self._marks = deque(maxlen=MARKS)
            self._marks.append((id, added))

    def settle(self, id: str) -> None:
        """There is a checkpoint, which was sent after all entries were handed out."""
        if self.through is START or id == self.through or order(id) > order(self.through):
            self.settled = True

    def covers(self, id: str) -> bool:
        """Whether the entries up to this id were handed out since reading began, or began again."""
        return id == self.reached or order(id) <= order(self.reached)

    @property
    def last(self) -> str | None:
        """Id of the furthest entry since reading began, or began again; None if there is none."""
        return self.reached if self.reached != START else None

    @property
    def any(self) -> bool:
        """Whether anything was handed out at all."""
        return self.reached != START or self._before != START

    def covered_before(self, id: str) -> bool:
        """Whether the entries up to this id were handed out before reading began again."""
        return order(id) <= order(self._before)

    def added(self, id: str) -> int | None:
        """How many entries were added to the stream up to this one; None if not known."""
        marks = self._marks
        if not marks:
            return None
        for mark, added in (marks[0], marks[-1]):  # where each entry has a checkpoint, or each batch
            if mark == id:
                return added
        return next((added for mark, added in marks if mark == id), None)

    @property
    def furthest(self) -> str:
        """Id of the furthest entry that this owner ever got."""
        return max(self._before, self.reached, key=order)

    def checkpointed(self, id: str) -> None:
        """Forget the numbers of the entries up to this one."""
        marks = self._marks
        if marks and marks[-1][0] == id:
            marks = None
        while marks and (marks[0][0] == id or order(marks[0][0]) < order(id)):
            marks.popleft()
        if not marks:
            self._marks = None

    def restart(self, history: str) -> None:
        """Begin again at the checkpoint. Does so once for each server history."""
        if history == self.history:
            return
        self.history = history
        self._before = max(self._before, self.reached, key=order)
        self.reached = START
        self._marks = None

    def skipped(self, gap: Gap) -> bool:
        """Note a gap. Returns whether it is new."""
        if gap in self.gaps:
            return False
        self.gaps += (gap,)
        return True
