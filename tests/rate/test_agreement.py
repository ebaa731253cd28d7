"""Agreement: against Krippendorff's published table, and against counting by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.rate.agreement import krippendorff_alpha, left_bias, pairwise_agreement

X = math.nan
PUBLISHED = np.array(  # Krippendorff 2011, section E: 4 observers, 12 units, missing data
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, X, X, X],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, X, 3],
        [X, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, X],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, X],
    ]
)


def test_alpha_is_the_published_one():
    assert krippendorff_alpha(PUBLISHED) == pytest.approx(0.815, abs=5e-4)


def test_alpha_is_one_for_perfect_agreement_and_near_zero_for_chance():
    ranks = np.random.default_rng(0).integers(1, 5, (2, 4000)).astype(float)
    assert krippendorff_alpha(ranks[[0, 0]]) == 1
    assert abs(krippendorff_alpha(ranks)) < 0.05


def test_alpha_is_nan_where_nothing_can_agree():
    assert math.isnan(krippendorff_alpha(np.array([[1, X], [X, 2]])))  # no unit has two ratings
    assert math.isnan(krippendorff_alpha(np.ones((3, 5))))  # no value varies


@given(
    st.lists(st.lists(st.sampled_from([1.0, 2.0, 3.0, X]), min_size=6, max_size=6), min_size=2, max_size=4)
)
def test_alpha_does_not_depend_on_the_order_of_raters_and_units(rows):
    table = np.array(rows)
    assert krippendorff_alpha(table[::-1, ::-1]) == pytest.approx(krippendorff_alpha(table), nan_ok=True)


def test_pairwise_agreement_counts_every_two_raters_on_every_two_answers():
    alone = [[1, 2]]
    three_answers = [[1, 2, 3], [1, 3, 2]]  # agree on 2 of 3 pairs
    three_raters = [[1, 2], [2, 1], [1, 1]]  # agree on none of 3
    share, pairs = pairwise_agreement([alone, three_answers, three_raters])
    assert (share, pairs) == (pytest.approx(2 / 6), 6)
    assert math.isnan(pairwise_agreement([alone])[0])


def test_left_bias_finds_a_rater_who_always_takes_the_first():
    found = left_bias([[1, 2]] * 40 + [[1, 1]] * 5)
    assert (found["share"], found["pairs"]) == (1, 40)
    assert 0.5 < found["low"] < found["high"] == 1
    found = left_bias([[1, 2], [2, 1]] * 50)
    assert found["share"] == 0.5 and found["low"] < 0.5 < found["high"]


def test_pairs_of_one_judgement_do_not_count_as_independent():
    """Raters without a side, 6 answers each: 95 % of the intervals hold ½, as they would not pair by pair."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        found = left_bias([rng.permutation(6) + 1 for _ in range(100)])
        held += found["low"] <= 0.5 <= found["high"]
    assert 0.92 <= held / 300 <= 0.98


def test_left_bias_without_judgements_knows_nothing():
    found = left_bias([])
    assert math.isnan(found["share"]) and (found["low"], found["high"], found["pairs"]) == (0, 1, 0)
