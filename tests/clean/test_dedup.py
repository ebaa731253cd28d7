"""Near duplicates: real novels with edits, planted pairs of known similarity, and hand-made sets."""

import json
import lzma
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrain.classify.words import plain_words
from jaxtrain.clean import dedup

BOOKS = Path(__file__).parents[2] / "data/quickstart/books.jsonl.xz"
PIECE = 300  # words


def first_copies(texts: list[str], similarity: float = dedup.SIMILARITY) -> list[int]:
    """For each text the first of its cluster."""
    sketches = [dedup.sketch(text) for text in texts]
    empty = dedup.Sketch(np.zeros(2, np.uint64), np.zeros(dedup.BANDS, np.uint64), np.zeros(0, np.uint32))
    filled = [sketch or empty for sketch in sketches]
    bands = np.array([sketch.bands for sketch in filled]).reshape(-1, dedup.BANDS)
    alive = np.array([sketch is not None for sketch in sketches], bool)

    def alike(one: int, two: int) -> float:
        return dedup.jaccard(filled[one].shingles, filled[two].shingles)

    return dedup.near_copies(len(texts), lambda i: bands[:, i], alike, alive, similarity).tolist()


def dropped(texts: list[str]) -> list[int]:
    return [row for row, first in enumerate(first_copies(texts)) if first != row]


@pytest.fixture(scope="module")
def pieces() -> list[list[str]]:
    with lzma.open(BOOKS, "rt") as lines:
        words = plain_words(json.loads(next(lines))["text"])
    return [words[i : i + PIECE] for i in range(0, 120 * PIECE, PIECE)]


def edited(words: list[str], share: float, rng: random.Random) -> list[str]:
    """`words` with a share of them, spread out, replaced by others."""
    copy = list(words)
    for place in rng.sample(range(len(words)), round(share * len(words))):
        copy[place] = f"edit{place}"
    return copy


def similarity(one: str, two: str) -> float:
    """Jaccard similarity of the sets of word 5-grams, by the definition."""
    sets = []
    for text in (one, two):
        words = text.lower().split()
        sets.append({tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_light_edits_are_found_heavy_ones_and_neighbours_are_not(pieces):
    rng = random.Random(0)
    light = [" ".join(edited(words, 0.015, rng)) for words in pieces]
    heavy = [" ".join(edited(words, 0.10, rng)) for words in pieces]
    originals = [" ".join(words) for words in pieces]
    assert all(similarity(*pair) > 0.8 for pair in zip(originals, light, strict=True))
    assert all(similarity(*pair) < 0.6 for pair in zip(originals, heavy, strict=True))
    found = dropped([*originals, *light, *heavy])
    recall = sum(len(pieces) <= row < 2 * len(pieces) for row in found) / len(pieces)
    assert recall >= 0.95
    assert all(len(pieces) <= row < 2 * len(pieces) for row in found), (
        "an original or a heavy edit was dropped"
    )


def test_candidates_are_verified(pieces):
    """Half the text shared: bands collide for some such pairs, but none is a duplicate."""
    half = [" ".join([*words[:240], *(f"new{i}" for i in range(60))]) for words in pieces]
    originals = [" ".join(words) for words in pieces]
    assert 0.55 < similarity(originals[0], half[0]) < 0.75
    pairs = [(dedup.sketch(a), dedup.sketch(b)) for a, b in zip(originals, half, strict=True)]
    assert any((a.bands == b.bands).any() for a, b in pairs), "no candidate, so nothing is tested"
    assert dropped([*originals, *half]) == []


@pytest.mark.parametrize("shared", [100, 150, 190])
def test_shingles_hold_the_similarity_of_the_texts(shared):
    one = " ".join(f"w{i}" for i in range(200))
    two = " ".join(f"w{i}" if i < shared else f"x{i}" for i in range(200))
    assert dedup.jaccard(dedup.sketch(one).shingles, dedup.sketch(two).shingles) == similarity(one, two)


@pytest.mark.parametrize("s", [0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95])
def test_recall_follows_the_curve_of_14_bands_of_8(s):
    """Pairs of random sets of similarity s share a band as often as 1 - (1 - s^8)^14 says."""
    rng, pairs, size = np.random.Generator(np.random.PCG64(7)), 1500, 400
    found = 0
    for _ in range(pairs):
        pool = rng.integers(0, 1 << 32, size, np.uint64).astype(np.uint32)
        shared = round(s * size)
        half = shared + (size - shared) // 2
        one = np.unique(pool[:half])
        two = np.unique(np.concatenate([pool[:shared], pool[half:]]))
        found += bool((dedup.band_keys(dedup.minima(one)) == dedup.band_keys(dedup.minima(two))).any())
    exact = round(s * size) / size
    expected = 1 - (1 - exact**8) ** 14
    error = np.sqrt(expected * (1 - expected) / pairs)
    assert abs(found / pairs - expected) < 4 * error + 1 / pairs, (found / pairs, expected)


def test_kept_pairs_are_as_similar_as_stated(pieces):
    """Precision: every dropped text is a copy of its cluster's, at .75 or more of some member."""
    rng = random.Random(3)
    texts = [
        " ".join(edited(words, share, rng)) for words in pieces for share in (0, 0.01, 0.02, 0.03, 0.04, 0.05)
    ]
    first = first_copies(texts)
    clusters = {row: [i for i, of in enumerate(first) if of == row] for row in set(first)}
    apart = 0
    for members in clusters.values():
        for row in members[1:]:
            apart += not any(
                similarity(texts[row], texts[other]) >= 0.75 for other in members if other != row
            )
    assert len(clusters) < len(texts) - 100, "too few copies, so little is tested"
    assert apart == 0


def test_clusters_do_not_depend_on_the_order_of_the_input(pieces):
    rng = random.Random(5)
    texts = [" ".join(edited(words, share, rng)) for words in pieces[:40] for share in (0, 0.01, 0.03, 0.05)]
    names = {text: f"{i:04d}" for i, text in enumerate(texts)}

    def clusters(order: list[str]) -> set[frozenset[str]]:
        ranked = sorted(order, key=names.__getitem__)  # as the stage ranks by id
        first = first_copies(ranked)
        return {frozenset(t for t, f in zip(ranked, first, strict=True) if f == row) for row in set(first)}

    shuffled = list(texts)
    rng.shuffle(shuffled)
    assert clusters(texts) == clusters(shuffled)


def test_exact_copies_ignore_case_and_punctuation_and_the_first_stays():
    digests = np.stack(
        [dedup.sketch(text).digest for text in ("Hello, world!", "a", "hello world", "A.", "b")]
    )
    assert dedup.exact_copies(digests).tolist() == [0, 1, 0, 1, 4]
    assert dedup.sketch(" !?\n") is None
    assert dropped(["", "Hello there", "", "hello there!"]) == [3]


def test_a_script_without_spaces_has_many_words():
    assert plain_words("我们的船 was 3m") == ["我", "们", "的", "船", "was", "3m"]
    assert len(dedup.sketch("这是一个很长的句子我们写字").shingles) == 9


@settings(max_examples=30)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), max_size=12))
def test_a_second_run_finds_nothing(texts):
    gone = set(dropped(texts))
    kept = [text for row, text in enumerate(texts) if row not in gone]
    assert dropped(kept) == []
    assert not any(first and first == second for i, first in enumerate(kept) for second in kept[:i])


@settings(max_examples=100)
@given(st.integers(1, 40), st.data())
def test_components_are_those_of_a_plain_search(rows, data):
    pairs = data.draw(st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, rows - 1)), max_size=60))
    one, two = np.array(pairs, np.int64).reshape(-1, 2).T
    label = list(range(rows))
    for _ in range(rows):  # Bellman-Ford: the least label spreads one step a round
        for a, b in pairs:
            label[a] = label[b] = min(label[a], label[b])
    assert dedup.components(rows, one, two).tolist() == label


def test_a_chain_of_a_million_rows_is_one_cluster():
    rows = np.arange(999_999)
    assert not dedup.components(1_000_000, rows, rows + 1).any()
