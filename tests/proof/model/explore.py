"""The explorer: breadth first through all states, then back from where all is well."""

from __future__ import annotations

import itertools
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.proof.model import invariants
from tests.proof.model.protocol import FIRST
from tests.proof.model.world import Client

if TYPE_CHECKING:
    from tests.proof.model.clients import Model
    from tests.proof.model.protocol import Redis
    from tests.proof.model.world import World


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


class Symmetry:
    """Consumers are interchangeable: of all renamings of a state one is kept.

    The clients are put in order; where two are alike both orders may be kept, which costs states and no more.
    """

    def __init__(self) -> None:
        self._pool: dict[Any, Any] = {}
        self._renamed: dict[tuple[Any, ...], Any] = {}

    def canonical(self, w: World) -> World:
        """The state that stands for this one and all its renamings; equal parts are one object."""
        clients, redis = w.clients, w.redis
        ranks = [
            (clients[i], _of(redis, i), [entry.owner == i + FIRST for entry in redis.entries], i)
            for i in range(len(clients))
        ]
        order = sorted(ranks)
        if order != ranks:
            names = [0] * len(clients)
            for new, (*_, old) in enumerate(order):
                names[old] = new + FIRST
            w = self._rename(w, tuple(names))
        keep = self._pool.setdefault
        return w._replace(
            redis=keep(w.redis, w.redis),
            clients=tuple(keep(client, client) for client in w.clients),
            stray=keep(w.stray, w.stray),
            replica=keep(w.replica, w.replica),
            budget=keep(w.budget, w.budget),
        )

    def alike(self, w: World, other: World) -> bool:
        """Whether one is a renaming of the other."""
        numbers = range(FIRST, FIRST + len(w.clients))
        return any(self._rename(w, names) == other for names in itertools.permutations(numbers))

    def _rename(self, w: World, names: tuple[int, ...]) -> World:
        order = sorted(range(len(names)), key=names.__getitem__)
        rename = self._part
        redis, replica = rename(w.redis, names), rename(w.replica, names)
        return w._replace(
            redis=_ordered(redis, order),
            clients=tuple(rename(w.clients[i], names) for i in order),
            stray=tuple(sorted(rename(w.stray, names))),
            replica=tuple(_ordered(r, order) for r in replica),
        )

    def _part(self, part: Any, names: tuple[int, ...]) -> Any:
        """Any part of a state, every consumer in it renamed."""
        if not isinstance(part, tuple):
            return names[part - FIRST] if isinstance(part, int) and part >= FIRST else part
        kind: Any = type(part)
        known: Any = self._renamed.get((kind, part, names))
        if known is None:
            items = [self._part(item, names) for item in part]
            known = tuple(items) if kind is tuple else kind(*items)
            if kind is Client:
                known = known._replace(ops=tuple(sorted(known.ops)))
            self._renamed[kind, part, names] = known
        return known


def _of(redis: Redis, i: int) -> tuple[Any, ...]:
    return redis.locks[i], redis.listened[i], redis.present[i], redis.watch == i + FIRST


def _ordered(redis: Redis, order: list[int]) -> Redis:
    each: list[Any] = [tuple(kept[i] for i in order) for kept in (redis.locks, redis.listened, redis.present)]
    return redis._replace(locks=each[0], listened=each[1], present=each[2])


def explore(model: Model, *, most: int = 50_000_000) -> Result:
    """Walk all states of a model.

    Safety: `invariants.violated` in every state. Liveness: from every state, `invariants.settled` can be reached
    without another fault and without the user's help. In a finite graph that is the same as: every strongly fair
    path without further faults gets there.
    """
    started = time.process_time()
    symmetry = Symmetry()
    first = symmetry.canonical(model.initial())
    index: dict[World, int] = {first: 0}
    parents = array("i", [-1])
    sources, targets = array("i"), array("i")
    good = array("b", [invariants.settled(first)])
    result = Result()
    todo = deque([first])

    def end(state: int, violation: tuple[str, ...]) -> Result:
        result.states, result.seconds = len(index), time.process_time() - started
        result.violation = violation
        if violation:
            result.trace = _trace(model, symmetry, list(index), parents, state)
        return result

    for at in itertools.count():
        if not todo:
            break
        for kind, _, after in model.steps(todo.popleft()):
            result.transitions += 1
            after = symmetry.canonical(after)
            to = index.get(after)
            if to is None:
                to = index[after] = len(index)
                parents.append(at)
                good.append(invariants.settled(after))
                violation = invariants.violated(model, after)
                if violation:
                    return end(to, violation)
                if to >= most:
                    raise MemoryError(f"more than {most} states")
                todo.append(after)
            if kind == "run":
                sources.append(at)
                targets.append(to)
    stuck = _stuck(good, sources, targets)
    return end(stuck, ("G3", "a stream is never owned by a live client that knows it") if stuck >= 0 else ())


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


def _trace(model: Model, symmetry: Symmetry, states: list[World], parents: array[int], state: int) -> list[str]:
    """The steps to a state, under the names that the consumers had at first."""
    way: list[World] = []
    while state > 0:
        way.append(states[state])
        state = parents[state]
    steps: list[str] = []
    w = model.initial()
    for goal in reversed(way):
        for _, label, after in model.steps(w):
            if symmetry.alike(after, goal):
                steps.append(label)
                w = after
                break
        else:
            raise AssertionError("the trace cannot be repeated")
    return steps
