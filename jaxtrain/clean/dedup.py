"""Duplicates: texts of equal words, and MinHash near duplicates (Broder 1997).

FineWeb's setting: word 5-grams, 112 hashes in 14 bands of 8. A pair of similarity s shares a band with
probability 1 - (1 - s^8)^14: .77 at s = .75, .99 at .85. A shared band only makes a pair a candidate; the
Jaccard similarity of the two sets of 5-grams decides.

Rows are numbered in the order in which copies are preferred, so the first of a cluster stays, and nothing
depends on the order of the input. One band is in memory at a time: about 40 bytes a row, whatever the texts.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jaxtrain.classify.words import scatter, windows, word_hashes

BANDS, ROWS, NGRAM = 14, 8, 5
SIMILARITY = 0.75
_CHUNK = 1024  # shingles hashed at once: 112 hashes of each fit into a core's cache


# x -> a x + b modulo 2^32, a odd: one permutation a hash.
_FACTORS, _OFFSETS = np.random.Generator(np.random.PCG64(1)).integers(
    0, 1 << 32, (2, BANDS * ROWS, 1), np.uint32
)
_FACTORS |= np.uint32(1)
_POWERS = np.uint64(0x9E3779B97F4A7C15) ** np.arange(ROWS, dtype=np.uint64)


@dataclass(frozen=True)
class Sketch:
    """What of a text is compared with other texts."""

    digest: np.ndarray
    """uint64[2], of the words in their order: equal where the words are."""
    bands: np.ndarray
    """uint64[14], a key of the eight minima of each band."""
    shingles: np.ndarray
    """uint32, sorted: hashes of the different 5-grams; of the whole text where it is shorter."""


def sketch(text: str) -> Sketch | None:
    """None for a text without words, which is nobody's duplicate."""
    hashes = word_hashes(text)
    if not len(hashes):
        return None
    digest = np.frombuffer(hashlib.blake2b(hashes.tobytes(), digest_size=16).digest(), np.uint64)
    shingles = np.sort((windows(hashes, min(NGRAM, len(hashes))) >> np.uint64(32)).astype(np.uint32))
    shingles = shingles[np.append(True, shingles[1:] != shingles[:-1])]
    return Sketch(digest, band_keys(minima(shingles)), shingles)


def minima(shingles: np.ndarray) -> np.ndarray:
    """MinHash: the least value of the shingles under each of the 112 permutations, uint32."""
    least = np.full(BANDS * ROWS, np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, len(shingles), _CHUNK):
        permuted = _FACTORS * shingles[start : start + _CHUNK]
        permuted += _OFFSETS
        np.minimum(least, permuted.min(axis=1), out=least)
    return least


def band_keys(minima: np.ndarray) -> np.ndarray:
    """A uint64 for each band of eight minima."""
    return scatter((minima.reshape(BANDS, ROWS) * _POWERS).sum(axis=1, dtype=np.uint64))


def long_shingles(text: str) -> np.ndarray:
    """The shingles of `sketch`, but none of a text of fewer than five words."""
    return np.unique((windows(word_hashes(text), NGRAM) >> np.uint64(32)).astype(np.uint32))


def jaccard(one: np.ndarray, two: np.ndarray) -> float:
    """Shared shingles of all shingles of two sorted arrays; 0 where there are none."""
    shared = len(np.intersect1d(one, two, assume_unique=True))
    return shared / max(len(one) + len(two) - shared, 1)


def exact_copies(digests: np.ndarray) -> np.ndarray:
    """For each row of uint64[n, 2] digests the first row that has its digest, int64."""
    order = np.lexsort(digests.T)  # which leaves rows of one digest in their order
    is_first = np.append(True, (digests[order[1:]] != digests[order[:-1]]).any(axis=1))[: len(order)]
    first = np.empty_like(order)
    first[order] = order[is_first][np.cumsum(is_first) - 1]
    return first


def near_copies(
    rows: int,
    band: Callable[[int], np.ndarray],
    similarity: Callable[[int, int], float],
    alive: np.ndarray,
    least: float = SIMILARITY,
) -> np.ndarray:
    """For each row the first row of its cluster, int64; a row that is not `alive` is its own.

    band: the uint64 keys of all rows in band i. similarity: of two rows; duplicates have `least` or more.

    Within a bucket a row is compared with the first one and with the one before it, so work is linear also
    where a template fills the bucket. The rounds repeat with the rows that stay until no pair is found, so
    that a second run over them finds nothing.
    """
    first, alive = np.arange(rows), alive.copy()
    checked = np.zeros(0, np.int64)
    while True:
        pairs = np.unique(np.concatenate([_candidates(band(i), alive) for i in range(BANDS)]))
        pairs = np.setdiff1d(pairs, checked, assume_unique=True)
        checked = np.union1d(checked, pairs)
        one, two = np.divmod(pairs, rows)
        similar = np.array([similarity(*pair) >= least for pair in np.stack([one, two], axis=1).tolist()])
        if not similar.any():
            return first
        known = np.append(first, one[similar]), np.append(np.arange(rows), two[similar])
        first = components(rows, *known)
        alive &= first == np.arange(rows)


def _candidates(keys: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Pairs of rows of one bucket as row × rows + row, the smaller first."""
    living = np.flatnonzero(alive)
    order = living[np.argsort(keys[living], kind="stable")]
    same = np.append(False, keys[order[1:]] == keys[order[:-1]])[: len(order)]
    places = np.arange(len(order))
    starts = np.maximum.accumulate(np.where(same, 0, places))  # of the bucket of each place
    members = places[same]
    before = np.concatenate([order[starts[members]], order[members - 1]])
    return np.unique(before * len(keys) + np.tile(order[members], 2))


def components(rows: int, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """The first row of the connected component of each row, where `one[i]` and `two[i]` are connected."""
    graph = coo_array((np.ones(len(one), bool), (one, two)), (rows, rows))
    labels = connected_components(graph, directed=False)[1]
    return np.unique(labels, return_index=True)[1][labels]
