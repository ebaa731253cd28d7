"""Words and n-grams as 64-bit numbers, the same on every machine.

A text costs about what splitting it costs: the hash of a word is looked up, n-grams are one multiplication
and addition of whole arrays a word.
"""

import hashlib
import re

import numpy as np

# Scripts that write no spaces give a word a character: a sentence of them would be one word else. Thai, Lao,
# Tibetan, Burmese, Khmer, kana, Chinese characters.
NO_SPACES = "\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Ranges for a class of a regular expression."""
SIGNS = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u0f18-\u0f19\u0f35\u0f37\u0f39"
    "\u0f71-\u0f84\u0f86-\u0f87\u0f8d-\u0fbc\u102b-\u103e\u1056-\u1059\u17b4-\u17d3\u3099-\u309a"
)
"""Vowel signs and accents of these scripts, which stand behind the character that they belong to."""
_WORD = re.compile(f"[{NO_SPACES}]|[^\\W_{NO_SPACES}]+")
_MARKS = re.compile("[\u00a0\u2010-\u2026•·«»]+")  # that keep an English text from being ASCII
_LETTERS = "".join(chr(c) if chr(c).isalnum() else " " for c in range(128))
_MIX = np.uint64(0x9E3779B97F4A7C15)
_KNOWN_WORDS = 1 << 20  # whose hashes are kept between texts, about 100 MB


class _Hashes(dict[str, int]):
    """Word → the first 8 bytes of its BLAKE2b."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = value = int.from_bytes(digest, "little")
        return value


_hashes = _Hashes()


def plain_words(text: str) -> list[str]:
    """Lower-case words without punctuation; an apostrophe or underscore ends a word. Of a script without
    spaces each character."""
    text = text.lower()
    if not text.isascii() and not (text := _MARKS.sub(" ", text)).isascii():
        return _WORD.findall(text)
    return text.translate(_LETTERS).split()  # the same words, faster


def word_hashes(text: str) -> np.ndarray:
    """A uint64 for each word of the text."""
    if len(_hashes) > _KNOWN_WORDS:
        _hashes.clear()
    words = plain_words(text)
    return np.fromiter(map(_hashes.__getitem__, words), np.uint64, len(words))


def word_spans(text: str) -> tuple[np.ndarray, np.ndarray]:
    """(a uint64 for each word, its first and last place + 1 in the text as int64[n, 2])."""
    matches = list(_WORD.finditer(text))
    hashes = np.fromiter((_hashes[match[0].lower()] for match in matches), np.uint64, len(matches))
    spans = np.array([match.span() for match in matches], np.int64).reshape(-1, 2)
    return hashes, spans


def windows(numbers: np.ndarray, length: int) -> np.ndarray:
    """A uint64 key of each `length` numbers (uint64) in a row."""
    keys = np.zeros(max(len(numbers) - length + 1, 0), np.uint64)
    for k in range(length):
        keys = keys * _MIX + numbers[k : k + len(keys)]
    return scatter(keys)


def scatter(keys: np.ndarray) -> np.ndarray:
    """Every bit of a key comes to depend on all of them (the finalizer of MurmurHash3)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        keys = (keys ^ keys >> np.uint64(33)) * np.uint64(factor)
    return keys ^ keys >> np.uint64(33)
