"""Language identification on lines of the Universal Declaration of Human Rights (public domain)."""

import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from jaxtrain.clean.language import detect

UDHR = Path(__file__).parents[3] / "shared/material/text/nltk-udhr2.zip"
LANGUAGES = {
    "en": "eng", "es": "spa", "fr": "fra", "de": "deu", "ru": "rus", "pt": "por_BR", "it": "ita", "nl": "nld",
    "pl": "pol", "ja": "jpn", "zh": "cmn_hans", "ko": "kor", "ar": "arb", "hi": "hin", "tr": "tur",
    "vi": "vie", "id": "ind", "uk": "ukr", "sv": "swe", "el": "ell_monotonic",
}  # fmt: skip
SHORTEST = Counter(dict.fromkeys(("zh", "ja", "ko"), 15))  # characters of a line; 40 elsewhere


def measure() -> dict[str, tuple[int, int]]:
    """Language → (lines told right, lines)."""
    found = {}
    with zipfile.ZipFile(UDHR) as archive:
        for language, name in LANGUAGES.items():
            text = archive.read(f"udhr2/{name}.txt").decode("utf-8-sig")
            text = unicodedata.normalize("NFC", text)
            lines = [
                line for line in map(str.strip, text.splitlines()) if len(line) >= (SHORTEST[language] or 40)
            ]
            right = sum(next(iter(detect(line)), "") == language for line in lines)
            found[language] = (right, len(lines))
    return found


@pytest.mark.skipif(not UDHR.exists(), reason="needs the UDHR texts of ../shared/material")
def test_97_of_100_lines_of_twenty_languages_are_told_right():
    table = measure()
    lines = sum(total for _, total in table.values())
    assert len(table) == 20 and lines > 1000
    assert sum(right for right, _ in table.values()) / lines >= 0.97, table
    assert all(right / total >= 0.9 for right, total in table.values()), table
