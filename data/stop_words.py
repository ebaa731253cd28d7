"""Writes jaxtrain/clean/stop_words.txt: of each language the commonest words of a list of stop words.

    python data/stop_words.py STOPWORDS_ISO.json STOP_WORDS UDHR2.zip

STOPWORDS_ISO.json is in the package stopwordsiso 0.7.1 (MIT licence), STOP_WORDS the folder of lists in the
package stop-words 2025.11.4 (BSD licence); UDHR2.zip are translations of the Universal Declaration of Human
Rights (public domain), as NLTK has them. A word counts where it stands in a list and in the Declaration, so a
slip in the one or a word of the other's own does not.
"""

import json
import re
import sys
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

from jaxtrain.clean.signals import UNITS, common_share, split_words, unspaced

OUT = Path(__file__).parents[1] / "jaxtrain/clean/stop_words.txt"
MOST, FEWEST = 25, 10  # words of a language
FILES = {
    "af": "afr", "ar": "arb", "bg": "bul", "bn": "ben", "br": "bre", "ca": "cat", "cs": "ces", "da": "dan",
    "de": "deu", "el": "ell_monotonic", "en": "eng", "eo": "epo", "es": "spa", "et": "est", "eu": "eus",
    "fa": "pes_1", "fi":     "fin", "fr": "fra", "ga": "gle", "gl": "glg", "gu": "guj", "he": "heb", "hi":
    "hin", "hr": "hrv", "hu": "hun", "hy": "hye", "id": "ind", "it": "ita", "ja": "jpn", "ko": "kor", "la":
    "lat", "lt":     "lit", "lv": "lav", "mr": "mar", "ms": "mly_latn", "nl": "nld", "no": "nob", "pl":
    "pol", "pt":     "por_BR", "ro": "ron", "ru": "rus", "sk": "slk", "sl": "slv", "so": "som", "sv": "swe",
    "sw": "swh", "th": "tha", "tl": "tgl", "tr": "tur", "uk": "ukr", "ur": "urd", "vi": "vie", "yo": "yor",
    "zh": "cmn_hans",
}  # fmt: skip


def commonest(language: str, listed: list[str], text: str) -> tuple[float, list[str]]:
    """The listed words of two letters or more that are commonest in a text, and what share of it they are.

    Of scripts without spaces all listed words, and the share of characters.
    """
    words = {unicodedata.normalize("NFC", word.strip().lower()) for word in listed}
    words = {word for word in words if len(word) > 1 and re.fullmatch(r"[^\W\d_][^\d\s]*", word)}
    text = unicodedata.normalize("NFC", text).lower()
    if language in UNITS:
        return common_share(text, unspaced(frozenset(words))), sorted(words)
    split = split_words(text)
    counts = Counter(word for word in split if word in words)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))[:MOST]
    return sum(counts[word] for word in ordered) / len(split), [word for word in ordered if counts[word] > 1]


def listed(iso: str, others: str) -> dict[str, list[str]]:
    """The words of both packages, by language."""
    lists = json.loads(Path(iso).read_text(encoding="utf-8"))
    names = json.loads(Path(others, "languages.json").read_text(encoding="utf-8"))
    for language, name in names.items():
        words = Path(others, f"{name}.txt").read_text(encoding="utf-8").split("\n")
        lists[{"nb": "no"}.get(language, language)] += words
    return lists


def main(iso: str, others: str, declaration: str) -> None:
    lists = listed(iso, others)
    lines = [
        "# The commonest stop words of each language and their share of the Declaration; data/stop_words.py.",
        "# From stopwords-iso by Gene Diaz and contributors (MIT licence) and stop-words, Copyright 2014",
        "# Alireza Savand and contributors (BSD licence).",
    ]
    with zipfile.ZipFile(declaration) as archive:
        for language, name in sorted(FILES.items()):
            text = archive.read(f"udhr2/{name}.txt").decode("utf-8-sig")
            share, words = commonest(language, lists[language], text)
            if len(words) >= FEWEST:
                lines.append(f"{language} {share:.2f}: {' '.join(words)}")
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
