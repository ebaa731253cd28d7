from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.feed.packing import Plan, best_fit, concat_and_split

LENGTHS = st.lists(st.integers(0, 40), max_size=60)
ROOM = st.integers(1, 16)
BOTH = pytest.mark.parametrize("pack", [best_fit, concat_and_split])


def sizes(plan: Plan) -> list[list[int]]:
    return [[stop - start for _, start, stop in plan[row]] for row in range(len(plan))]


@BOTH
@given(LENGTHS, ROOM)
def test_every_token_is_in_one_row(pack: Callable[..., Plan], lengths: list[int], room: int) -> None:
    plan = pack(lengths, room)
    pieces = [piece for row in range(len(plan)) for piece in plan[row]]
    tokens = sorted((record, at) for record, start, stop in pieces for at in range(start, stop))
    assert tokens == [(record, at) for record, size in enumerate(lengths) for at in range(size)]
    assert all(0 < sum(row) <= room for row in sizes(plan))
    assert plan.placed == plan.tokens
    if lengths and sum(lengths):
        assert plan.share_padded == pytest.approx(1 - sum(lengths) / (len(plan) * room))


@given(LENGTHS, ROOM)
def test_concat_and_split_keeps_the_order_and_fills_every_row_but_the_last(
    lengths: list[int], room: int
) -> None:
    plan = concat_and_split(lengths, room)
    pieces = [piece for row in range(len(plan)) for piece in plan[row]]
    assert pieces == sorted(pieces)
    assert all(sum(row) == room for row in sizes(plan)[:-1])


@given(LENGTHS, ROOM)
def test_best_fit_cuts_only_what_is_longer_than_a_row(lengths: list[int], room: int) -> None:
    plan = best_fit(lengths, room)
    cut = {
        record
        for row in range(len(plan))
        for record, start, stop in plan[row]
        if stop - start < lengths[record]
    }
    assert cut == {record for record, size in enumerate(lengths) if size > room}


@given(LENGTHS, ROOM)
def test_best_fit_is_what_a_search_of_all_rows_finds(lengths: list[int], room: int) -> None:
    pieces = [min(room, size - at) for size in lengths for at in range(0, size, room)]
    rows: list[list[int]] = []
    for piece in sorted(pieces, reverse=True):
        fitting = [row for row in rows if sum(row) + piece <= room]
        max(fitting, key=sum).append(piece) if fitting else rows.append([piece])
    assert sizes(best_fit(lengths, room)) == rows


def test_best_fit_worked_example() -> None:
    plan = best_fit([5, 2, 3, 1, 7, 4, 6, 2, 8, 3], 8)
    assert sizes(plan) == [[8], [7, 1], [6, 2], [5, 3], [4, 3], [2]]
    assert plan.share_padded == pytest.approx(7 / 48)


def test_best_fit_of_real_lengths_pads_little_and_cuts_less_than_splitting() -> None:
    lengths = np.random.default_rng(0).lognormal(6, 1.2, 20_000).astype(int) + 2
    best, split = best_fit(lengths, 2048), concat_and_split(lengths, 2048)
    assert best.share_padded < 0.01
    assert len(best.pieces) < len(split.pieces)
