"""How pairs become batches: nothing lost, contexts shared, padding where it costs less than a program."""

import random

from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.evaluate.likelihood import SHARED, _batches, _grouped, _rounded

Pairs = list[tuple[list[int], list[int]]]


def pairs(seed: int, items: int, choices: int, context: int, continuation: int) -> Pairs:
    rng = random.Random(seed)
    found: Pairs = []
    for number in range(items):
        shared = [number] * rng.randint(1, context)
        found += [(shared, [0] * rng.randint(1, continuation)) for _ in range(choices)]
    return found


@given(st.integers(0, 10), st.integers(1, 30), st.integers(1, 5), st.sampled_from([0.0, 500.0, 1e9]))
def test_every_pair_is_in_one_batch_and_batches_are_of_the_size_asked_for(seed, items, choices, patience):
    asked = pairs(seed, items, choices, context=60, continuation=30)
    batches = _batches(_grouped(asked), 512, patience)
    places = [place for batch in batches for group in batch for place in group.places]
    assert sorted(places) == list(range(len(asked)))
    for batch in batches:
        P, C = (max(_rounded(group.sizes[side]) for group in batch) for side in (0, 1))
        assert len(batch) == 1 or len(batch) * (P + C) <= 512
        for group in batch:
            assert [asked[place] for place in group.places] == [
                (group.context, c) for c in group.continuations
            ]


def test_patience_trades_programs_for_padding():
    asked = pairs(0, 200, 4, context=120, continuation=40)
    groups = _grouped(asked)

    def shapes(patience: float) -> set[tuple[int, int]]:
        batches = _batches(groups, 10**9, patience)
        return {
            (max(_rounded(g.sizes[0]) for g in batch), max(_rounded(g.sizes[1]) for g in batch))
            for batch in batches
        }

    assert len(shapes(1e9)) == 1 < len(shapes(2000)) < len(shapes(0))


def test_one_context_of_a_thousand_continuations_is_many_groups():
    groups = _grouped([([1, 2, 3], [n]) for n in range(1000)])
    assert len(groups) == -(-1000 // SHARED)
    assert all(len(group.continuations) <= SHARED for group in groups)


def test_contexts_that_differ_or_are_apart_are_groups_of_their_own():
    one, other = [1, 2], [1, 3]
    assert [len(g.continuations) for g in _grouped([(one, [5]), (one, [6]), (other, [5]), (one, [7])])] == [
        2,
        1,
        1,
    ]


def test_sizes_are_rounded_up_by_an_eighth_at_most():
    for size in range(1, 5000):
        rounded = _rounded(size)
        assert rounded >= size and rounded % 8 == 0
        assert rounded - size < max(8, size / 8 + 1)
