import grain
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.feed.shuffle import BLOCK, Epochs, Mixture, Permutation, block_counts, key
from jaxtrain.runtime.errors import UserError


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_a_permutation_of_any_size(size: int, number: int) -> None:
    permutation = Permutation(size, number)
    assert sorted(permutation[i] for i in range(size)) == list(range(size))


def deviation(cells: np.ndarray, count: int) -> float:
    """Chi-square of `count` cells against equal shares, in standard deviations from its mean."""
    observed = np.bincount(cells, minlength=count)
    expected = len(cells) / count
    return (((observed - expected) ** 2 / expected).sum() - count) / np.sqrt(2 * count)


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_as_even_as_chance_and_no_more(size: int) -> None:
    before = np.arange(size) * 64 // size
    moved, jumps = [], []
    for number in range(4):
        permutation = Permutation(size, key("test", number))
        after = np.array([permutation[i] for i in range(size)])
        moved.append(deviation(before * 64 + after * 64 // size, 64 * 64))
        jumps.append(deviation(np.diff(after) % size * 64 // size, 64))
    # Rows and columns of the table are fixed, which takes 126 of 4,096 degrees of freedom: 1.4 deviations.
    assert abs(np.mean(moved) + 1.4) < 2.5 and max(np.abs(jumps)) < 6


def test_keys_give_different_orders() -> None:
    orders = {
        tuple(Permutation(50, key(seed, "wiki", epoch))[i] for i in range(50))
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25


def test_every_epoch_has_every_row_in_another_order() -> None:
    rows = Epochs(grain.MapDataset.range(1000), seed=0, name="wiki")
    first, second = [[rows[at] for at in range(n, n + 1000)] for n in (0, 1000)]
    assert sorted(first) == sorted(second) == list(range(1000))
    assert first != second and first != sorted(first)
    assert [rows[at] for at in range(1000)] == first


def test_a_mixture_has_the_weights_and_skips_no_row() -> None:
    parents = [Epochs(grain.MapDataset.range(10_000).map(lambda i, s=s: (s, i)), 0, str(s)) for s in range(3)]
    mixed = Mixture(parents, {"a": 0.5, "b": 0.3, "c": 0.2}, seed=1)
    drawn = [mixed[at] for at in range(2 * BLOCK)]
    for source, weight in enumerate((0.5, 0.3, 0.2)):
        rows = [row for row in drawn if row[0] == source]
        assert len(rows) == pytest.approx(2 * BLOCK * weight, abs=2)
        assert rows == [parents[source][i] for i in range(len(rows))]
    assert [mixed[at] for at in range(100)] == drawn[:100]
    first = [source for source, _ in drawn[:BLOCK]]
    assert abs(np.mean([source == 0 for source in first[:512]]) - 0.5) < 0.1  # not one source after another


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=8))
def test_a_block_is_full(weights: list[float]) -> None:
    counts = block_counts({str(i): weight for i, weight in enumerate(weights)})
    assert sum(counts) == BLOCK
    assert counts == pytest.approx([BLOCK * weight / sum(weights) for weight in weights], abs=1)


def test_a_weight_too_small_to_be_served_is_refused() -> None:
    with pytest.raises(UserError, match="weight of rare is below 1 in 4096"):
        block_counts({"common": 0.9999, "rare": 0.0001})
