"""Many calls in a row: in pieces, and between them the event loop has a turn."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter

from redis_stream_client._concurrency.chunks import PacedCalls, in_chunks, in_sized_chunks
from tests.harness.loops import Turns
from tests.harness.waiting import wait_until


def test_items_come_in_pieces() -> None:
    assert list(in_chunks([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(in_chunks([], 2)) == []


def test_items_come_in_pieces_of_bounded_size() -> None:
    def pieces(*sizes: int) -> list[list[int]]:
        return [list(piece) for piece in in_sized_chunks(sizes, lambda size: size, most=3, most_size=10)]

    assert pieces(1, 1, 1, 1) == [[1, 1, 1], [1]]
    assert pieces(5, 5, 1) == [[5, 5], [1]]
    assert pieces(1, 11, 1) == [[1], [11], [1]]
    assert pieces(11) == [[11]]
    assert pieces() == []


async def test_so_many_calls_are_made_in_one_turn_of_the_loop_and_the_others_in_order_later() -> None:
    made: list[int] = []
    paced = PacedCalls(2)
    for number in range(5):
        paced.call(functools.partial(made.append, number))
    assert made == [0, 1]
    await asyncio.sleep(0)
    assert made == [0, 1, 2, 3]
    paced.call(lambda: made.append(5))
    assert made == [0, 1, 2, 3], "nobody overtakes"
    await asyncio.sleep(0)
    assert made == [0, 1, 2, 3, 4, 5]


async def test_after_a_turn_without_calls_the_next_one_is_made_at_once() -> None:
    made: list[int] = []
    paced = PacedCalls(1)
    paced.call(lambda: made.append(0))
    for _ in range(3):
        await asyncio.sleep(0)
    paced.call(lambda: made.append(1))
    assert made == [0, 1]


async def test_calls_are_made_in_turns_and_in_order() -> None:
    turns, turn = PacedCalls(3), Turns()
    turn()
    made: list[tuple[int, int]] = []

    def note(number: int) -> None:
        made.append((number, turn.number))

    for number in range(10):
        turns.call(lambda number=number: note(number))  # type: ignore[misc]
    assert [number for number, _ in made] == [0, 1, 2]
    await wait_until(lambda: len(made) == 10, "all calls are made")
    turn.stop()
    assert [number for number, _ in made] == list(range(10))
    assert max(Counter(at for _, at in made).values()) <= 3
