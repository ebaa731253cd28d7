"""Does a text quote a benchmark? The phrases of benchmark items, for cleaning training data.

An item of 13 words or more is quoted by any 13 of its words in a row (Brown et al. 2020, appendix C,
arXiv 2005.14165), a shorter one of at least 8 words only by the whole of it; below 8 words chance
matches outnumber quotations. Words are compared in lower case without punctuation. Where a script writes no
spaces a character is a unit, and two of Chinese and Japanese, four of Thai and others count as a word.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.classify.words import NO_SPACES, plain_words, windows
from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.task import read_rows

LONGEST, SHORTEST = 13, 8  # words
_UNSPACED = re.compile(f"[{NO_SPACES}]")
_EAST_ASIAN = "\u3040"  # of the scripts without spaces those from here on need fewer characters
_NOT_TEXT = {"id", "ind", "label", "labels", "answer", "answerKey", "option1", "option2"}


def item_texts(row: Any) -> Iterator[str]:
    """The texts of a benchmark row: questions, goals, solutions, and sentences with their blank filled."""
    match row:
        case str():
            yield row
        case {"sentence": sentence, "option1": one, "option2": other}:
            yield from (sentence.replace("_", one), sentence.replace("_", other))
        case dict():
            for key, value in row.items():
                yield from () if key in _NOT_TEXT else item_texts(value)
        case list():
            for value in row:
                yield from item_texts(value)


def read_items(path: str | Path) -> Iterator[str]:
    """The item texts of a benchmark's file (`task.read_rows`)."""
    if not Path(path).is_file():
        raise UserError(f"no benchmark file {path}; mend `benchmarks` in the config")
    for row in read_rows(Path(path)):
        yield from item_texts(row)


def phrases_of(text: str) -> Iterator[tuple[str, ...]]:
    """The word sequences by which a text is known; none where it is too short."""
    words = plain_words(text)
    units = _units(words)
    length = min(len(words), LONGEST * units)
    if length >= SHORTEST * units:
        yield from (tuple(words[i : i + length]) for i in range(len(words) - length + 1))


def _units(words: list[str]) -> int:
    """How many count as one word: more than one where most are characters of a script without spaces."""
    unspaced = [word for word in words if _UNSPACED.match(word)]
    if 2 * len(unspaced) <= len(words):
        return 1
    return 2 if max(unspaced) >= _EAST_ASIAN else 4


class Phrases:
    """Word sequences to look for: built once, then `find` in linear time."""

    def __init__(self, items: Iterable[str]) -> None:
        phrases: set[tuple[str, ...]] = set()
        for item in items:
            phrases.update(phrases_of(item))
        self._phrases = phrases
        self._lengths = sorted({len(phrase) for phrase in phrases})
        words = sorted({word for phrase in phrases for word in phrase})
        self._number = {word: i for i, word in enumerate(words, 1)}  # 0: a word that no benchmark has
        self._starts = np.unique([self._keys(list(phrase))[0] for phrase in phrases]).astype(np.uint64)

    def __len__(self) -> int:
        return len(self._phrases)

    def find(self, text: str) -> str | None:
        """The first benchmark phrase that `text` holds, or None."""
        return next((" ".join(phrase) for phrase in self.found(text)), None)

    def found(self, text: str) -> Iterator[tuple[str, ...]]:
        """Every benchmark phrase that `text` holds, as words, where it stands."""
        words = plain_words(text)
        if len(words) < SHORTEST or not self._phrases:
            return
        keys = self._keys(words)
        nearest = np.searchsorted(self._starts[:-1], keys)
        for i in np.flatnonzero(self._starts[nearest] == keys).tolist():
            for length in self._lengths:
                phrase = tuple(words[i : i + length])
                if phrase in self._phrases:
                    yield phrase

    def _keys(self, words: list[str]) -> np.ndarray:
        """A 64-bit key of each window of `SHORTEST` words; `found` verifies a hit."""
        numbers = np.fromiter((self._number.get(word, 0) for word in words), np.uint64, len(words))
        return windows(numbers, SHORTEST)


def quoted(items: Sequence[Iterable[str]], documents: Iterable[str]) -> list[bool]:
    """Of each item (its texts), whether a document holds a phrase of it."""
    of_item = [{phrase for text in texts for phrase in phrases_of(text)} for texts in items]
    phrases = Phrases(text for texts in items for text in texts)
    seen = {phrase for document in documents for phrase in phrases.found(document)}
    return [not seen.isdisjoint(own) for own in of_item]
