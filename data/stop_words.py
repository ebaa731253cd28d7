"""Writes jaxtrain/clean/stop_words.txt: of each language the commonest words of a list of stop words.

    python data/stop_words.py STOPWORDS_ISO.json UDHR2.zip

STOPWORDS_ISO.json is in the package stopwordsiso 0.7.1 (MIT); UDHR2.zip are translations of the Universal
Declaration of Human Rights (public domain), as NLTK has them. A word counts where it stands in both, so a
slip in the list or a word of the Declaration's own does not.
"""

import json
import re
import sys
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

from jaxtrain.clean.signals import UNITS, split_words

OUT = Path(__file__).parents[1] / "jaxtrain/clean/stop_words.txt"
MOST, FEWEST = 25, 10  # words of a language
FILES = {
    "af": "afr", "ar": "arb", "hy": "hye", "eu": "eus", "bn": "ben", "br": "bre", "bg": "bul", "ca": "cat",
    "zh": "cmn_hans", "hr": "hrv", "cs": "ces", "da": "dan", "nl": "nld", "eo": "epo", "et": "est", "fi":
    "fin", "fr": "fra", "gl": "glg", "de": "deu", "el": "ell_monotonic", "gu": "guj", "he": "heb", "hi":
    "hin", "hu": "hun", "id": "ind", "ga": "gle", "it": "ita", "ja": "jpn", "ko": "kor", "la": "lat", "lt":
    "lit", "lv": "lav", "ms": "mly_latn", "mr": "mar", "no": "nob", "fa": "pes_1", "pl": "pol", "pt":
    "por_BR", "ro": "ron", "ru": "rus", "sk": "slk", "sl": "slv", "so": "som", "es": "spa", "sw": "swh",
    "sv": "swe", "th": "tha", "tl": "tgl", "tr": "tur", "uk": "ukr", "ur": "urd", "vi": "vie", "yo": "yor",
}  # fmt: skip


def commonest(language: str, listed: list[str], text: str) -> list[str]:
    """The listed words that stand in the text twice at least, the commonest first."""
    words = {unicodedata.normalize("NFC", word.strip().lower()) for word in listed}
    words = {word for word in words if re.fullmatch(r"[^\d\s]*[^\W\d_][^\d\s]*", word)}
    text = unicodedata.normalize("NFC", text).lower()
    split = Counter(split_words(text))
    count = {word: text.count(word) if language in UNITS else split[word] for word in words}
    ordered = sorted(words, key=lambda word: (-count[word], word))
    return [word for word in ordered if count[word] > 1][:MOST]


def main(listed: str, declaration: str) -> None:
    lists = json.loads(Path(listed).read_text(encoding="utf-8"))
    lines = [
        "# The commonest stop words of each language, by its ISO 639-1 code: data/stop_words.py writes them.",
        "# From github.com/stopwords-iso/stopwords-iso, by Gene Diaz and contributors, MIT licence.",
    ]
    with zipfile.ZipFile(declaration) as archive:
        for language, name in sorted(FILES.items()):
            text = archive.read(f"udhr2/{name}.txt").decode("utf-8-sig")
            words = commonest(language, lists[language], text)
            if len(words) >= FEWEST:
                lines.append(f"{language}: {' '.join(words)}")
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
