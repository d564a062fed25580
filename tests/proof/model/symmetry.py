"""Consumers are interchangeable: of all renamings of a state one is kept."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from tests.proof.model.protocol import FIRST
from tests.proof.model.world import Client

if TYPE_CHECKING:
    from tests.proof.model.protocol import Redis
    from tests.proof.model.world import World


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
