"""Duplicates: texts of equal words, and MinHash near duplicates (Broder 1997).

FineWeb's setting: word 5-grams, 112 hashes in 14 bands of 8, which finds a pair of similarity 0.75 with
probability 0.77, of 0.85 with 0.99. A shared band only makes a pair a candidate; the Jaccard similarity of
the 5-gram sets decides.
"""

import hashlib

import numpy as np

from jaxtrain import engine
from jaxtrain.tasks.overlap import plain_words

BANDS, ROWS, NGRAM = 14, 8, 5
SIMILARITY = 0.75


def normalize(text: str) -> str:
    """The words that are compared: lower case, no punctuation, single spaces. "" never equals anything."""
    return " ".join(plain_words(text))


def exact_duplicates(normalized: list[str]) -> list[int]:
    """Rows whose words are those of an earlier row."""
    seen: set[bytes] = set()
    duplicates = []
    for row, text in enumerate(normalized):
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if text and digest in seen:
            duplicates.append(row)
        seen.add(digest)
    return duplicates


def near_duplicates(normalized: list[str], similarity: float = SIMILARITY) -> list[int]:
    """Rows to drop so that of each cluster of similar texts the first row stays.

    Within a bucket every row is compared with the first one only, so work is linear also where a template
    fills the bucket; the rounds repeat without the dropped rows until none is found, so that a second run
    over the kept rows drops nothing.
    """
    rows = np.array([row for row, text in enumerate(normalized) if text], np.int64)
    signatures = engine.minhash_signatures([normalized[row] for row in rows], BANDS * ROWS, NGRAM)
    checked: dict[tuple[int, int], bool] = {}
    dropped: set[int] = set()
    while True:
        alive = np.array([row not in dropped for row in rows.tolist()], bool)
        root = {row: row for row in rows[alive].tolist()}
        for band in range(BANDS):
            slots = np.ascontiguousarray(signatures[alive, band * ROWS : (band + 1) * ROWS])
            for pair in engine.same_bucket(rows[alive], [slot.tobytes().hex() for slot in slots]):
                if pair not in checked:
                    checked[pair] = jaccard(normalized[pair[0]], normalized[pair[1]]) >= similarity
                if checked[pair]:
                    _join(root, *pair)
        found = {row for row in root if _first(root, row) != row}
        if not found:
            return sorted(dropped)
        dropped |= found


def shingles(normalized: str) -> set[tuple[str, ...]]:
    """Word 5-grams; the whole text where it is shorter."""
    words = normalized.split(" ")
    return {tuple(words[i : i + NGRAM]) for i in range(max(len(words) - NGRAM + 1, 1))}


def jaccard(first: str, second: str) -> float:
    """Shared shingles of all shingles."""
    one, two = shingles(first), shingles(second)
    return len(one & two) / len(one | two)


def _first(root: dict[int, int], row: int) -> int:
    while root[row] != row:
        root[row] = root[root[row]]
        row = root[row]
    return row


def _join(root: dict[int, int], one: int, two: int) -> None:
    low, high = sorted((_first(root, one), _first(root, two)))
    root[high] = low
