"""The explorer: breadth first through all states, then back from where all is well."""

from __future__ import annotations

import itertools
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable


W = TypeVar("W")


class Explorable(Protocol[W]):
    """What can be walked: a world's states, its steps, and what must hold."""

    @property
    def stuck(self) -> tuple[str, str]:
        """The guarantee that is broken where no settled state can be reached any more, and why."""
        ...

    def initial(self) -> W:
        """The first state."""
        ...

    def steps(self, w: W, /) -> Iterable[tuple[str, str, W]]:
        """All that can happen next: who does it, what happens, and the state after it."""
        ...

    def canonical(self, w: W, /) -> W:
        """The state that stands for this one and for all that differ in names alone."""
        ...

    def alike(self, w: W, other: W, /) -> bool:
        """Whether two states differ in names alone."""
        ...

    def violated(self, w: W, /) -> tuple[str, ...]:
        """The guarantee that does not hold in this state, and why; empty when all is well."""
        ...

    def settled(self, w: W, /) -> bool:
        """Whether this state is where all must come to."""
        ...


@dataclass
class Result:
    """What was walked, in how many seconds of one core, and the first violation: the guarantee, why, and the
    shortest way there."""

    states: int = 0
    transitions: int = 0
    seconds: float = 0.0
    violation: tuple[str, ...] = ()
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.violation:
            return "no violation"
        steps = [f"{i:3}. {step}" for i, step in enumerate(self.trace, 1)]
        return "\n".join([*steps, f"     {self.violation[0]} is broken: {self.violation[1]}"])


def explore(model: Explorable[W], *, most: int = 50_000_000) -> Result:
    """Walk all states of a model.

    Safety: `violated` in every state. Liveness: from every state, `settled` can be reached
    without another fault and without the user's help. In a finite graph that is the same as: every strongly fair
    path without further faults gets there.
    """
    started = time.process_time()
    first = model.canonical(model.initial())
    index: dict[W, int] = {first: 0}
    parents = array("i", [-1])
    sources, targets = array("i"), array("i")
    good = array("b", [model.settled(first)])
    result = Result()
    todo = deque([first])

    def end(state: int, violation: tuple[str, ...]) -> Result:
        result.states, result.seconds = len(index), time.process_time() - started
        result.violation = violation
        if violation:
            result.trace = _trace(model, list(index), parents, state)
        return result

    for at in itertools.count():
        if not todo:
            break
        for kind, _, after in model.steps(todo.popleft()):
            result.transitions += 1
            after = model.canonical(after)
            to = index.get(after)
            if to is None:
                to = index[after] = len(index)
                parents.append(at)
                good.append(model.settled(after))
                violation = model.violated(after)
                if violation:
                    return end(to, violation)
                if to >= most:
                    raise MemoryError(f"more than {most} states")
                todo.append(after)
            if kind == "run":
                sources.append(at)
                targets.append(to)
    stuck = _stuck(good, sources, targets)
    return end(stuck, model.stuck if stuck >= 0 else ())


def _stuck(good: array[int], sources: array[int], targets: array[int]) -> int:
    """The first state from which no good one can be reached, or -1."""
    starts = array("i", bytes(4 * (len(good) + 1)))
    for target in targets:
        starts[target + 1] += 1
    for i in range(len(good)):
        starts[i + 1] += starts[i]
    free = starts[:]
    into = array("i", bytes(4 * len(sources)))
    for source, target in zip(sources, targets, strict=True):
        into[free[target]] = source
        free[target] += 1
    todo = [state for state, is_good in enumerate(good) if is_good]
    while todo:
        state = todo.pop()
        for before in into[starts[state] : starts[state + 1]]:
            if not good[before]:
                good[before] = 1
                todo.append(before)
    return next((state for state, is_good in enumerate(good) if not is_good), -1)


def _trace(model: Explorable[W], states: list[W], parents: array[int], state: int) -> list[str]:
    """The steps to a state, under the names that the consumers had at first."""
    way: list[W] = []
    while state > 0:
        way.append(states[state])
        state = parents[state]
    steps: list[str] = []
    w = model.initial()
    for goal in reversed(way):
        for _, label, after in model.steps(w):
            if model.alike(after, goal):
                steps.append(label)
                w = after
                break
        else:
            raise AssertionError("the trace cannot be repeated")
    return steps
