"""Gibberish: how surprising the characters of a text are to one who knows runs of three of good writing.

A trigram model of characters (Shannon 1951), counted on texts that the user names. What is seldom in them
counts as one character, so the table is small and any script can be the reference; digits count as one too,
so that tables of numbers are no gibberish. The signal is the perplexity: 8 to 15 for writing in the language
of the reference, thousands for random characters.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from jaxtrain.clean.filter import Filter, Range, Record, limit, read_texts
from jaxtrain.runtime.errors import UserError

KNOWN = 127
"""Characters that are told apart, the most frequent of the reference; all others are one."""
LONGEST = 10_000
"""Characters of a text looked at."""
MOST_REFERENCE = 5_000_000
"""Characters of the reference looked at."""
_SPACE, _DIGIT = re.compile(r"\s+"), re.compile(r"\d")
_WEIGHTS = 0.7, 0.25, 0.05
"""Of runs of three, two and one (interpolation after Jelinek and Mercer 1980)."""


def _plain(text: str) -> str:
    return _DIGIT.sub("0", _SPACE.sub(" ", text.lower()))


@dataclass(frozen=True)
class CharacterModel:
    """Negative log-probabilities (nats) of every character behind every two."""

    alphabet: str
    nats_CCC: np.ndarray
    """float32; character 0 stands for all that `alphabet` does not have."""

    @classmethod
    def read(cls, paths: Iterable[str]) -> "CharacterModel":
        """Counted on text files; UserError where one cannot be read or all are too short to count."""
        return cls.count("\n".join(map(_plain, read_texts("reference", paths)))[:MOST_REFERENCE])

    @classmethod
    def count(cls, text: str) -> "CharacterModel":
        """Counted on a text in plain form."""
        if len(text) < 10_000:
            raise UserError(f"reference: {len(text)} characters are too few to count on; give 10,000")
        frequent = sorted(Counter(text).items(), key=lambda item: (-item[1], item[0]))[:KNOWN]
        alphabet = "".join(sorted(character for character, _ in frequent))
        size = len(alphabet) + 1
        codes = _codes(text, alphabet)
        counts = np.bincount((codes[:-2] * size + codes[1:-1]) * size + codes[2:], minlength=size**3)
        counts_CCC = counts.reshape(size, size, size).astype(np.float64)
        counts_CC, counts_C = counts_CCC.sum(0), counts_CCC.sum((0, 1)) + 1  # nothing is impossible
        counts = zip(_WEIGHTS, (counts_CCC, counts_CC, counts_C), strict=True)
        mixed = sum(weight * c / np.maximum(c.sum(-1, keepdims=True), 1) for weight, c in counts)
        return cls(alphabet, -np.log(mixed).astype(np.float32))

    def perplexity(self, text: str) -> float:
        """Of the beginning of a text; 1 for one of fewer than three characters."""
        codes = _codes(_plain(text[:LONGEST]).strip(), self.alphabet)
        nats = self.nats_CCC[codes[:-2], codes[1:-1], codes[2:]]
        return float(np.exp(nats.mean())) if len(nats) else 1.0


def _codes(text: str, alphabet: str) -> np.ndarray:
    """int64: place of each character in the alphabet (sorted) + 1, or 0."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    known = np.frombuffer(alphabet.encode("utf-32-le", "surrogatepass"), np.uint32)
    places = np.minimum(np.searchsorted(known, points), len(known) - 1)
    return np.where(known[places] == points, places + 1, 0).astype(np.int64)


_counted = cache(CharacterModel.read)


@dataclass(frozen=True)
class Gibberish(Filter):
    """Measures how the characters of a text surprise after a reference."""

    reference: tuple[str, ...]
    """Text files of good writing."""
    character_perplexity: Range = limit("gibberish")
    """Perplexity; gibberish is above 50. Without a limit it only measures."""

    def files(self) -> tuple[str, ...]:
        return self.reference

    def measure(self, record: Record) -> Mapping[str, float | None]:
        return {"character_perplexity": _counted(self.reference).perplexity(record.text)}
