"""The Wilson interval, against its defining equation and its coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.tasks.interval import Z95, wilson_interval


@given(st.integers(1, 500).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_each_end_is_z_standard_errors_from_the_share(counts):
    successes, trials = counts
    for end in wilson_interval(successes, trials):
        distance = abs(successes / trials - end)
        assert distance == pytest.approx(Z95 * math.sqrt(end * (1 - end) / trials), abs=1e-7)


def test_it_covers_the_truth_nineteen_times_in_twenty():
    draws = np.random.default_rng(0).binomial(60, 0.3, 4000)
    covered = [low <= 0.3 <= high for low, high in (wilson_interval(int(draw), 60) for draw in draws)]
    assert 0.93 < np.mean(covered) < 0.97


def test_nothing_seen_is_nothing_known():
    assert wilson_interval(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson_interval(3, 2)
