"""The simulated raters' utility on real answers: what it rewards, what does not fool it, its noise."""

import json
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.utility import BAD, COMMON, DESCRIPTION, FUNCTION, GOOD, simulated_ranks, utility


@cache
def answers(words):
    """300 real answers of at least `words` words, cut to `words`."""
    rows = json.loads(Path("data/quickstart/alpaca.json").read_text())
    long = [row["output"] for row in rows if len(row["output"].split()) >= words]
    return [" ".join(text.split()[:words]) for text in random.Random(0).sample(long, 300)]


def mean(texts):
    return np.mean([utility(text) for text in texts])


def test_the_lists_are_lists_of_words_and_do_not_contradict_each_other():
    assert len(GOOD) >= 150 and len(BAD) >= 100
    assert not (GOOD & BAD or GOOD & FUNCTION or BAD & FUNCTION or COMMON & (GOOD | BAD | FUNCTION))
    assert all(word.replace("'", "").isalpha() and word.islower() for word in GOOD | BAD | FUNCTION | COMMON)


def test_warm_beats_plain_beats_hostile():
    warm = "Thank you for asking. I would be happy to help you with this, my friend."
    plain = "There is a table in the room, and the window is on the other side."
    hostile = "You are a stupid fool, and I hate this terrible question of yours."
    assert utility(warm) > utility(plain) + 1 > utility(hostile) + 2


def test_real_answers_beat_gibberish_numbers_and_silence_does_not_pay():
    rng = random.Random(0)
    real = answers(40)
    garbled = [" ".join("".join(rng.sample(word, len(word))) for word in text.split()) for text in real]
    assert mean(real) > mean(garbled) + 1
    assert mean(real) > utility(" ".join(str(rng.randrange(999)) for _ in range(40))) + 1
    assert abs(utility("") - mean(real)) < 0.2


def test_length_does_not_pay():
    rng = random.Random(0)
    texts = [" ".join(text.split()[: rng.randrange(5, 100)]) for text in answers(100)]
    utilities = [utility(text) for text in texts]
    assert abs(np.corrcoef([len(text) for text in texts], utilities)[0, 1]) <= 0.3
    rows = json.loads(Path("data/quickstart/alpaca.json").read_text())
    whole = [row["output"] for row in rows]
    assert abs(np.corrcoef([len(text) for text in whole], [utility(text) for text in whole])[0, 1]) <= 0.3


def test_one_other_word_moves_it():
    """A policy can reach higher utility by its choice of words alone."""
    neutral = "I think that this is the way in which people like to live in the city."
    better = neutral.replace("people like", "friends love")
    assert utility(better) > utility(neutral) + 0.3


@pytest.mark.parametrize("word", ["love", "good", "thanks"])
def test_saying_a_good_word_again_never_pays(word):
    for text in answers(40):
        said = [utility(f"{text} {' '.join([word] * times)}") for times in (1, 2, 3, 10, 40)]
        assert said == sorted(said, reverse=True)


def test_a_list_of_good_words_is_worth_less_than_good_sentences():
    sentences = (
        "Thank you for asking, my dear friend. I am glad to help, and I hope that you enjoy it with "
        "all of those that you love. It is a beautiful gift to us."
    )
    rng = random.Random(0)
    assert utility(sentences) > max(utility(" ".join(rng.sample(sorted(GOOD), 33))) for _ in range(50)) + 0.3


def test_it_does_not_depend_on_case_or_typographic_quotes():
    assert utility("It's “GOOD” to see you…") == utility('it\'s "good" to see you.')


@given(st.text(max_size=200))
def test_any_text_has_a_finite_utility(text):
    assert -12 < utility(text) < 3


def test_the_description_states_the_coefficients():
    assert "2 (1 - exp(-distinct good words per ten words))" in DESCRIPTION
    assert f"{len(GOOD)} good" in DESCRIPTION


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=9),
    st.floats(0.01, 2),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_ranks_are_whole_and_start_at_one(utilities, noise, tie, seed):
    ranks = simulated_ranks(np.array(utilities), noise, np.random.default_rng(seed), tie)
    assert set(ranks) == set(range(1, ranks.max() + 1)) and len(ranks) == len(utilities)
    assert (ranks == simulated_ranks(np.array(utilities), noise, np.random.default_rng(seed), tie)).all()


def test_without_much_noise_ranks_are_the_order_of_utilities():
    rng = np.random.default_rng(0)
    assert simulated_ranks(np.array([0.1, 2.0, 1.0]), 1e-6, rng).tolist() == [3, 1, 2]
    assert simulated_ranks(np.array([0.1, 2.0, 1.95]), 1e-6, rng, tie=0.1).tolist() == [2, 1, 1]


def test_first_places_follow_plackett_luce():
    rng, utilities, noise = np.random.default_rng(0), np.array([0.0, 0.5, 1.0]), 0.7
    first = np.mean([simulated_ranks(utilities, noise, rng) == 1 for _ in range(20_000)], axis=0)
    worth = np.exp(utilities / noise)
    assert first == pytest.approx(worth / worth.sum(), abs=0.015)


def test_noise_must_be_positive():
    with pytest.raises(UserError, match="noise > 0"):
        simulated_ranks(np.zeros(2), 0.0, np.random.default_rng(0))
