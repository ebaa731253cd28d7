import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.feed.shuffle import BLOCK, Epochs, Mixture, Permutation, block_counts, key
from jaxtrain.runtime.errors import UserError


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_a_permutation_of_any_size(size: int, number: int) -> None:
    order = Permutation(size, number)[np.arange(size)]
    assert sorted(order.tolist()) == list(range(size))


@pytest.mark.parametrize("size", [2**n + more for n in (4, 10, 16, 20) for more in (-1, 0, 1)])
def test_a_permutation_at_powers_of_two(size: int) -> None:
    order = Permutation(size, key("test", size))[np.arange(size)]
    assert np.array_equal(np.bincount(order, minlength=size), np.ones(size))


def test_a_permutation_of_a_trillion_rows_is_one_to_one_where_looked_at() -> None:
    size = 10**12
    permutation = Permutation(size, key("large"))
    for begin in (0, size // 2, size - 100_000):
        order = permutation[np.arange(begin, begin + 100_000)]
        assert len(np.unique(order)) == 100_000 and order.min() >= 0 and order.max() < size


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
        after = Permutation(size, key("test", number))[np.arange(size)]
        moved.append(deviation(before * 64 + after * 64 // size, 64 * 64))
        jumps.append(deviation(np.diff(after) % size * 64 // size, 64))
    # Rows and columns of the table are fixed, which takes 126 of 4,096 degrees of freedom: 1.4 deviations.
    assert abs(np.mean(moved) + 1.4) < 2.5 and max(np.abs(jumps)) < 6


@pytest.mark.parametrize("size", [65_536, 1_000_000, 2**20, 3_000_017, 2**33])
def test_a_batch_mixes_its_source_as_chance_does(size: int) -> None:
    """Chi-square per degree of freedom of the files, 64 of equal size, that the rows of a batch are from."""
    order = Permutation(size, key("mix", size))[np.arange(200 * 256)]
    batches = [np.bincount(batch * 64 // size, minlength=64) for batch in order.reshape(200, 256)]
    ratios = [((files - 4) ** 2 / 4).sum() / 63 for files in batches]
    assert 0.8 < np.mean(ratios) < 1.2
    # One batch's ratio has a standard deviation of sqrt(2 / 63); a stratified or clumped shuffle has not.
    assert np.std(ratios) == pytest.approx(np.sqrt(2 / 63), rel=0.3)
    halves = [np.bincount(batch % 2, minlength=2) for batch in order.reshape(200, 256)]
    assert 0.8 < np.mean([((half - 128) ** 2 / 128).sum() for half in halves]) < 1.25


def test_keys_give_different_orders() -> None:
    orders = {
        tuple(Permutation(50, key(seed, "wiki", epoch))[np.arange(50)].tolist())
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25


def test_every_epoch_has_every_row_in_another_order() -> None:
    rows = Epochs(1000, seed=0, name="wiki")
    first, second = rows[np.arange(1000)].tolist(), rows[np.arange(1000, 2000)].tolist()
    assert sorted(first) == sorted(second) == list(range(1000))
    assert first != second and first != sorted(first)
    assert rows[np.arange(500, 1500)].tolist() == first[500:] + second[:500]


def test_a_mixture_has_the_weights_and_skips_no_row() -> None:
    mixture = Mixture([(0, {"a": 0.5, "b": 0.3, "c": 0.2})], ["a", "b", "c"], seed=1)
    sources, nth = mixture[np.arange(2 * BLOCK)]
    for source, weight in enumerate((0.5, 0.3, 0.2)):
        drawn = nth[sources == source]
        assert len(drawn) == pytest.approx(2 * BLOCK * weight, abs=2)
        assert drawn.tolist() == list(range(len(drawn)))
    again, _ = mixture[np.arange(100)]
    assert np.array_equal(again, sources[:100])
    assert abs(np.mean(sources[:512] == 0) - 0.5) < 0.1  # not one source after another


WEIGHTS = st.fixed_dictionaries({name: st.sampled_from([0.0, 0.1, 0.5, 2.0]) for name in "abc"})


@given(
    st.lists(st.tuples(st.integers(1, 3 * BLOCK), WEIGHTS), max_size=4, unique_by=lambda phase: phase[0]),
    st.integers(0, 4 * BLOCK),
)
def test_weights_that_change_skip_and_repeat_no_row(
    changes: list[tuple[int, dict[str, float]]], looked_at: int
) -> None:
    phases = [(0, {"a": 1.0, "b": 1.0})] + sorted(
        (p for p in changes if any(p[1].values())), key=lambda p: p[0]
    )
    mixture = Mixture(phases, ["a", "b", "c"], seed=3)
    sources, nth = mixture[np.arange(4 * BLOCK)]
    for source in range(3):
        drawn = nth[sources == source]
        assert drawn.tolist() == list(range(len(drawn)))
        assert mixture.rows_of_each(looked_at)[source] == np.count_nonzero(sources[:looked_at] == source)
    for (first, weights), last in zip(phases, [p[0] for p in phases[1:]] + [4 * BLOCK], strict=True):
        shares = np.bincount(sources[first:last], minlength=3) / (last - first)
        expected = np.array([weights.get(name, 0.0) for name in "abc"]) / sum(weights.values())
        assert np.allclose(shares, expected, atol=4 / np.sqrt(last - first))
        assert not np.any(shares[expected == 0])


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=8))
def test_a_block_is_full(weights: list[float]) -> None:
    names = [str(i) for i in range(len(weights))]
    counts = block_counts(dict(zip(names, weights, strict=True)), names)
    assert sum(counts) == BLOCK
    assert counts == pytest.approx([BLOCK * weight / sum(weights) for weight in weights], abs=1)


def test_a_weight_too_small_to_be_served_is_refused() -> None:
    with pytest.raises(UserError, match="weight of rare is below 1 in 4096"):
        block_counts({"common": 0.9999, "rare": 0.0001}, ["common", "rare"])
