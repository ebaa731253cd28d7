"""Scores: against counting by hand, numpy and known compressors' behaviour."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.evaluate.benchmarks import choice_accuracy, standard_error
from jaxtrain.evaluate.heldout import xz_bits_per_byte
from jaxtrain.train.heldout import bits_per_byte


def test_the_likeliest_choice_is_the_answer_whatever_the_number_of_choices():
    assert choice_accuracy([[-5, -2], [-1, -3, -2], [-4, -9]], [1, 2, 1]).tolist() == [1, 0, 0]


def test_per_byte_takes_the_advantage_from_short_choices():
    loglikelihoods, lengths = [[-6.0, -10.0]], [[3, 10]]
    assert choice_accuracy(loglikelihoods, [1]).tolist() == [0]
    assert choice_accuracy(loglikelihoods, [1], lengths).tolist() == [1]


def test_a_model_that_knows_nothing_scores_chance():
    assert choice_accuracy([[-1, -1, -1, -1]], [2]).tolist() == [0.25]


def test_nan_is_an_error_and_not_an_answer():
    with pytest.raises(ValueError, match="item 1"):
        choice_accuracy([[-1, -2], [math.nan, -1]], [0, 0])


@given(
    st.lists(st.lists(st.integers(-50, 0), min_size=2, max_size=5), min_size=1, max_size=20),
    st.floats(-100, 100),
)
def test_the_right_choices_of_all_answers_add_up_to_one(loglikelihoods, shift):
    for values in loglikelihoods:
        grades = [choice_accuracy([values], [answer])[0] for answer in range(len(values))]
        assert sum(grades) == pytest.approx(1)
    moved = [[value + round(shift) for value in values] for values in loglikelihoods]
    answers = [0] * len(loglikelihoods)
    assert (choice_accuracy(moved, answers) == choice_accuracy(loglikelihoods, answers)).all()


def test_standard_error_is_the_spread_of_many_means():
    draws = np.random.default_rng(0).random((20_000, 50))
    assert standard_error(draws[0]) == pytest.approx(draws.mean(axis=1).std(), rel=0.15)
    assert standard_error([0.0, 1.0]) == pytest.approx(0.5)
    assert standard_error([1.0]) is None


def test_a_uniform_model_of_bytes_needs_eight_bits():
    assert bits_per_byte(1000 * math.log(256), 1000) == pytest.approx(8)


def test_xz_compresses_what_repeats_and_nothing_else():
    noise = np.random.default_rng(0).bytes(20_000)
    assert 8 <= xz_bits_per_byte(noise) < 8.1
    assert xz_bits_per_byte(noise * 2) == pytest.approx(4, abs=0.1)
    with pytest.raises(ValueError, match="no text"):
        xz_bits_per_byte(b"")
