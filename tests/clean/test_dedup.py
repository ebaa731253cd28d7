"""Near duplicates among pieces of real novels: edits that must be found, and neighbours that must not."""

import json
import lzma
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrain import engine
from jaxtrain.clean import dedup

BOOKS = Path(__file__).parents[2] / "data/quickstart/books.jsonl.xz"
PIECE = 300  # words


@pytest.fixture(scope="module")
def pieces() -> list[list[str]]:
    with lzma.open(BOOKS, "rt") as lines:
        words = dedup.normalize(json.loads(next(lines))["text"]).split()
    return [words[i : i + PIECE] for i in range(0, 120 * PIECE, PIECE)]


def edited(words: list[str], share: float, rng: random.Random) -> list[str]:
    """`words` with a share of them, spread out, replaced by others."""
    copy = list(words)
    for place in rng.sample(range(len(words)), round(share * len(words))):
        copy[place] = f"edit{place}"
    return copy


def test_light_edits_are_found_heavy_ones_and_neighbours_are_not(pieces):
    rng = random.Random(0)
    light = [" ".join(edited(words, 0.015, rng)) for words in pieces]
    heavy = [" ".join(edited(words, 0.10, rng)) for words in pieces]
    originals = [" ".join(words) for words in pieces]
    assert all(dedup.jaccard(*pair) > 0.8 for pair in zip(originals, light, strict=True))
    assert all(dedup.jaccard(*pair) < 0.6 for pair in zip(originals, heavy, strict=True))
    found = dedup.near_duplicates([*originals, *light, *heavy])
    recall = sum(len(pieces) <= row < 2 * len(pieces) for row in found) / len(pieces)
    assert recall >= 0.95
    assert all(len(pieces) <= row < 2 * len(pieces) for row in found), (
        "an original or a heavy edit was dropped"
    )


def test_candidates_are_verified(pieces):
    """Half the text shared: bands collide for some such pairs, but none is a duplicate."""
    half = [" ".join([*words[:240], *(f"new{i}" for i in range(60))]) for words in pieces]
    originals = [" ".join(words) for words in pieces]
    assert 0.55 < dedup.jaccard(originals[0], half[0]) < 0.75
    signatures = engine.minhash_signatures([*originals, *half], dedup.BANDS * dedup.ROWS, dedup.NGRAM)
    bands = signatures.reshape(len(signatures), dedup.BANDS, dedup.ROWS)
    assert (bands[: len(pieces)] == bands[len(pieces) :]).all(-1).any(), "no candidate, so nothing is tested"
    assert dedup.near_duplicates([*originals, *half]) == []


def test_the_share_of_equal_hashes_estimates_the_similarity(pieces):
    one, two = " ".join(pieces[0]), " ".join(edited(pieces[0], 0.03, random.Random(1)))
    first, second = engine.minhash_signatures([one, two], 2000, dedup.NGRAM)
    assert (first == second).mean() == pytest.approx(dedup.jaccard(one, two), abs=0.05)


def test_exact_duplicates_ignore_case_and_punctuation_and_the_first_stays():
    texts = [dedup.normalize(text) for text in ("Hello, world!", "", "hello world", "", "Hello there")]
    assert dedup.exact_duplicates(texts) == [2]
    assert dedup.near_duplicates(texts) == [2]  # and empty texts are nobody's duplicate


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), max_size=12))
def test_a_second_run_finds_nothing(texts):
    dropped = set(dedup.near_duplicates(texts))
    kept = [text for row, text in enumerate(texts) if row not in dropped]
    assert dedup.near_duplicates(kept) == []
    assert not any(first and first == second for i, first in enumerate(kept) for second in kept[:i])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["x", "y", "z", "yz"]), max_size=20))
def test_buckets_are_those_of_a_dictionary(buckets):
    keys = np.arange(10, 10 + len(buckets))
    first: dict[str, int] = {}
    expected = [(first.setdefault(b, k), k) for b, k in zip(buckets, keys.tolist(), strict=True)]
    assert engine.same_bucket(keys, buckets) == sorted(pair for pair in expected if pair[0] != pair[1])
