"""Signals: numbers measured on a text in one pass, over words that are split once.

They are columns of the output, so limits can be changed and judged against them without reading the texts
again. The definitions are those by which the published limits (quality.py) are applied to the web (datatrove
0.10).
"""

import re
import string
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxtrain.classify.words import NO_SPACES, SIGNS

# A word runs from the first to the last letter or digit between spaces or dashes; punctuation that
# stands alone is a word too.
_WORD = re.compile(r"[^\W_](?:[^\s—–/]*[^\W_])?|(?<!\S)[^\w\s]+(?!\S)")
# Nothing is given back (`++`): a run of marks would cost the square of its length.
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]]*+(?=\s|$)")
_PARAGRAPH_END = re.compile(r"\n{2,}")
_GENERATED = re.compile(r"auto-?generated|automatically generated|do not edit", re.I)
_STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
_BULLETS = ("•", "-")
_ELLIPSES = ("...", "…")
_CLOSING = "\"'”’)]"
_SHORT_LINE = 30  # characters
_HEAD_LINES = 5  # where generated code says so
_MIX = np.uint64(0x9E3779B97F4A7C15)
_KNOWN_WORDS = 1 << 20  # whose features are kept between documents, about 100 MB


def _characters(ranges: str) -> str:
    parts = [[int(end, 16) for end in item.split("-")] for item in ranges.split()]
    return "".join(chr(c) for part in parts for c in range(part[0], part[-1] + 1))


# What ends a sentence in any script: Unicode's property Sentence_Terminal.
TERMINAL = _characters(
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 "
    "17D4-17D6 17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F "
    "203C-203D 2047-2049 2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F "
    "A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 "
    "10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 "
    "1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946 "
    "11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 "
    "16E98 1BC9F 1DA88"
)
# Words of these alone are no words to Gopher's rules: CCNet's punctuation (Wenzek et al. 2020), controls.
_SYMBOLS = frozenset(string.punctuation + TERMINAL + _characters("0-1F 7F-9F"))
_SYMBOLS |= frozenset("—–”“„’´«»►…：；，、。？！～．％〈〉《》「」【】（）━１∶")
_LINE_END = tuple(TERMINAL)
_ANY_LINE_END = (*TERMINAL, "…")
_CLOSERS = "\"'”’)\\]»«“‘」』）"
# Latin marks stand inside of numbers and names too; others end a sentence wherever they stand.
_OWN_MARKS = re.escape("".join(sorted(set(TERMINAL) - set("!.?"))))
_ANY_SENTENCE_END = re.compile(rf"(?<![.!?…])[.!?…]++[{_CLOSERS}]*+(?=\s|$)|[{_OWN_MARKS}]+")

UNITS = {"zh": 2, "ja": 3, "yue": 2, "wuu": 2, "th": 4, "lo": 4, "km": 4, "my": 4, "bo": 3, "dz": 3}
"""Characters of a word where a script writes no spaces, by language: n-grams have so many for each word.
Counted are a third more words, since there are short ones too."""
_SHORTER = 4 / 3
SYLLABIC = {*UNITS, "ko", "vi"}
"""Languages whose words by spaces or characters have no length to compare with English ones."""
IDEOGRAPHIC = {"zh", "ja", "yue", "wuu", "ko"}
"""Languages in which 15 characters say what 30 of English do."""
UNMARKED = {"th", "lo"}
"""Languages that end a sentence with a space."""
# A character with its vowel signs and accents is one unit.
_DENSE_WORD = re.compile(
    rf"[{NO_SPACES}][{SIGNS}]*|[^\W_{NO_SPACES}](?:[^\s—–/{NO_SPACES}]*[^\W_{NO_SPACES}])?"
    r"|(?<!\S)[^\w\s]+(?!\S)"
)
UNSPACED = re.compile(f"[{NO_SPACES}]")
CLAUSE_END = re.compile(f"(?<=[{NO_SPACES}]) (?=[{NO_SPACES}])")


class _Words(dict[str, int]):
    """Word → number of the word << 22 | its characters << 2 | is it no symbol << 1 | has it a letter.

    Each word is looked at once, not once a document.
    """

    def __missing__(self, word: str) -> int:
        real = not _SYMBOLS.issuperset(word)
        letter = any(map(str.isalpha, word))
        value = len(self) << 22 | min(len(word), (1 << 20) - 1) << 2 | real << 1 | letter
        self[word] = value
        return value


_words = _Words()


def split_words(text: str) -> list[str]:
    """Words by spaces and dashes, without punctuation at their ends. For scripts that write spaces."""
    return _WORD.findall(text)


def count_sentences(text: str, language: str = "en") -> int:
    """Sentences by their closing marks; the end of a line ends one too.

    In English as C4 counts them; elsewhere by the marks of all scripts, and in Thai and Lao by spaces.
    """
    if language == "en":
        marks, ends = len(_SENTENCE_END.findall(text)), (".", "!", "?", "…")
    else:
        marks, ends = len(_ANY_SENTENCE_END.findall(text)), _ANY_LINE_END
        if language in UNMARKED:
            marks += len(CLAUSE_END.findall(text))
    tails = (line.rstrip().rstrip(_CLOSING) for line in text.split("\n") if line.strip())
    return marks + sum(not tail.endswith(ends) for tail in tails)


class Words:
    """A text split into words once, and what is counted over them.

    Where a script writes no spaces a character is a unit, and `UNITS` of them count as a word.
    """

    def __init__(self, text: str, language: str = "") -> None:
        if len(_words) > _KNOWN_WORDS:
            _words.clear()
        self.text, self.language = text, language
        self.units = UNITS.get(language, 1)
        """Of n-grams, a word; 1 where words are split by spaces."""
        self.split = _DENSE_WORD.findall(text) if self.units > 1 else split_words(text)
        features = np.fromiter(map(_words.__getitem__, self.split), np.uint64, len(self.split))
        self._features = features
        self._lengths = (features >> np.uint64(2) & np.uint64((1 << 20) - 1)).astype(np.int64)
        self._filled = [line for line in text.split("\n") if line.strip()]

    @property
    def count(self) -> float:
        """Words, those of symbols too."""
        return self._as_words(len(self.split))

    def _as_words(self, pieces: int) -> float:
        """Of pieces of the text those that are characters of a script without spaces are parts of a word."""
        if self.units == 1:
            return pieces
        unspaced = sum(map(bool, map(UNSPACED.match, self.split)))
        return pieces - unspaced * (1 - _SHORTER / self.units)

    def quality(self) -> dict[str, float | None]:
        """Signals of Gopher's rules of quality."""
        text, lines = self.text, self.text.splitlines()
        real = self._features & np.uint64(2) > 0
        count, real_count, line_count = max(self.count, 1), int(real.sum()), max(len(lines), 1)
        mean = int(self._lengths[real].sum()) / max(real_count, 1)
        return {
            "words": self._as_words(real_count),
            "mean_word_length": None if self.language in SYLLABIC else mean,
            "hash_ratio": text.count("#") / count,
            "ellipsis_ratio": (text.count("...") + text.count("…")) / count,
            "bullet_lines": sum(line.lstrip().startswith(_BULLETS) for line in lines) / line_count,
            "ellipsis_lines": sum(line.rstrip().endswith(_ELLIPSES) for line in lines) / line_count,
            "alphabetic_words": int((self._features & np.uint64(1)).sum()) / max(len(self.split), 1),
            "stop_words": self._stop_words(),
        }

    def _stop_words(self) -> int | None:
        """How many different ones there are; None where no list of the language is known."""
        if self.language in ("", "en"):
            return len(_STOP_WORDS.intersection(self.split))
        if (known := common_words().get(self.language)) is None:
            return None
        if self.units > 1:
            return len(set(unspaced(known.words).findall(self.text)))
        return len(known.words.intersection(map(str.lower, self.split)))

    def common(self) -> float | None:
        """How much of the text is common words of its language, beside how much of the Declaration of Human
        Rights; None where none are known."""
        if (known := common_words().get(self.language or "en")) is None or not self.split:
            return None
        if self.units > 1:
            return common_share(self.text, unspaced(known.words)) / known.share
        return sum(map(known.words.__contains__, map(str.lower, self.split))) / len(self.split) / known.share

    def lines(self) -> dict[str, float | None]:
        """Signals of FineWeb's rules."""
        filled, text = self._filled, self.text
        count, (_, repeated) = max(len(filled), 1), _duplicates(filled)
        short = _SHORT_LINE // 2 if self.language in IDEOGRAPHIC else _SHORT_LINE
        punctuated = sum(line.endswith(_LINE_END) for line in filled) / count
        return {
            "punctuated_lines": None if self.language in UNMARKED else punctuated,
            "short_lines": sum(len(line) <= short for line in filled) / count,
            "repeated_line_characters": repeated / max(len(text) - text.count("\n"), 1),
            "lines_per_word": text.count("\n") / max(self.count, 1),
        }

    def code(self) -> dict[str, float]:
        """Signals of code."""
        lengths = list(map(len, self._filled)) or [0]
        points = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), np.uint32)
        return {
            "longest_line": max(lengths),
            "mean_line_length": sum(lengths) / len(lengths),
            "alphanumeric": int(_alphanumeric()[points].sum()) / max(len(self.text), 1),
            "generated": float(bool(_GENERATED.search("\n".join(self._filled[:_HEAD_LINES])))),
        }

    def repetition(self) -> dict[str, float]:
        """Signals of Gopher's rules of repetition."""
        text, signals, size = self.text, {}, max(len(self.text), 1)
        lines = [line for line in text.split("\n") if line]
        lines += [""] * (text.startswith("\n") + text.endswith("\n"))  # no other blank line is counted
        for name, parts in (("paragraph", _PARAGRAPH_END.split(text.strip())), ("line", lines)):
            count, characters = _duplicates(parts)
            signals[f"duplicate_{name}s"] = count / max(len(parts), 1)
            signals[f"duplicate_{name}_characters"] = characters / size
        return signals | self._n_grams(size)

    def _n_grams(self, size: int) -> dict[str, float]:
        signals = {f"top_{n}_gram": 0.0 for n in range(2, 5)}
        signals |= {f"duplicate_{n}_grams": 0.0 for n in range(5, 11)}
        words, gap = self._features, self.units == 1  # a space between two words
        ends = np.concatenate([[0], np.cumsum(self._lengths)])  # characters before each word
        places, keys = np.arange(len(words)), words
        for long in range(2, min(len(words), 10 * self.units) + 1):
            # Only where a shorter one is repeated can an n-gram be. Keys are rolling, 64 bits: equal by
            # chance once in billions.
            inside = places.searchsorted(len(words) - long, "right")
            places, keys = places[:inside], keys[:inside]
            keys = keys * _MIX + words[places + (long - 1)]
            n, rest = divmod(long, self.units)
            if rest or n < 2:
                continue
            ordered = np.sort(keys)
            repeated = ordered[1:][ordered[1:] == ordered[:-1]]
            if not len(repeated) and n > 4:
                break
            more = repeated.searchsorted(keys, "right") - repeated.searchsorted(keys)  # than once
            again = more > 0
            places, keys, more = places[again], keys[again], more[again]
            if n <= 4:  # the most frequent one, of several the first
                most, first = (int(more.max()) + 1, int(places[more.argmax()])) if len(places) else (1, 0)
                length = int(ends[first + long] - ends[first]) + (n - 1) * gap
                signals[f"top_{n}_gram"] = length * most / size
            else:
                signals[f"duplicate_{n}_grams"] = _covered(places, keys, ends, long) / size
        return signals


class CommonWords(NamedTuple):
    """The commonest words of a language."""

    words: frozenset[str]
    share: float
    """Of the words of the Declaration of Human Rights; in scripts without spaces of its characters."""


@cache
def common_words() -> dict[str, CommonWords]:
    """By ISO 639-1 code; stop_words.txt says whence."""
    text = Path(__file__).with_name("stop_words.txt").read_text(encoding="utf-8")
    found = {}
    for line in text.splitlines():
        head, _, words = line.partition(":")
        if not line.startswith("#"):
            code, share = head.split()
            found[code] = CommonWords(frozenset(words.split()), float(share))
    return found


@cache
def unspaced(words: frozenset[str]) -> re.Pattern[str]:
    """Finds words of a script without spaces, the longest first."""
    return re.compile("|".join(sorted(map(re.escape, words), key=lambda word: (-len(word), word))))


def common_share(text: str, common: re.Pattern[str]) -> float:
    """Share of the characters of scripts without spaces that stand in common words."""
    return sum(map(len, common.findall(text))) / max(len(UNSPACED.findall(text)), 1)


@cache
def _alphanumeric() -> np.ndarray:
    """Whether each Unicode code point is a letter or digit."""
    return np.fromiter((chr(point).isalnum() for point in range(0x110000)), bool, 0x110000)


def _duplicates(parts: list[str]) -> tuple[int, int]:
    """How many parts stood earlier, and their characters."""
    once = set(parts)
    if len(once) == len(parts):
        return 0, 0
    return len(parts) - len(once), sum(map(len, parts)) - sum(map(len, once))


def _covered(places: np.ndarray, grams: np.ndarray, ends: np.ndarray, n: int) -> int:
    """Characters of words in n-grams that stood earlier, each counted once."""
    seen: set[int] = set()
    covered = free = 0
    for place, gram in zip(places.tolist(), grams.tolist(), strict=True):
        if place < free:  # inside the n-gram just counted
            continue
        if gram in seen:
            covered, free = covered + int(ends[place + n] - ends[place]), place + n
        seen.add(gram)
    return covered
