"""Prose that the default filters keep and noise that they drop, in many languages.

    python benchmarks/languages.py [--handbook FOLDER] [--books eltec-eng.jsonl.xz …]

FOLDER is `usr/share/doc/debian-handbook/html` of Debian's package debian-handbook (a book in 25 languages;
what is not translated is left out). Books are JSON lines of `lang` (ISO 639-2) and `text`, a paragraph a
line: COST-ELTeC's novels, Thailand's government news (PyThaiNLP/thaigov-corpus), Chinese Markdown books.
Up to 400 paragraphs of 60 words or more a language: limits were chosen on those of even number, and the
figures are those of the others. `--out RESULT.json` writes them.
"""

import argparse
import json
import lzma
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from jaxtrain.clean import Normalize, judge, prose
from jaxtrain.clean.signals import UNITS, Words

LONG, MOST, FEWEST = 60, 400, 40  # words of a paragraph; paragraphs of a language
CODES = {"nb-NO": "no", "zh-TW": ""}  # the lists of words are of simplified Chinese
_PIECE = re.compile(r"\w{1,2}|[^\w\s]+|\s")


def noises(text: str, language: str, words: list[str], rng: random.Random) -> Iterator[tuple[str, str]]:
    """(kind, text): what is as long as `text` and no writing. words: of the language, to list."""
    space = "" if language in UNITS else " "
    pieces = _PIECE.findall(text) if language in UNITS else text.split()
    yield "shuffled characters", "".join(rng.sample(text, len(text)))
    yield "shuffled words", space.join(rng.sample(pieces, len(pieces)))
    yield "a dictionary", " ".join(sorted(rng.sample(words, min(len(words), len(pieces)))))
    start = rng.randrange(max(1, len(pieces) - 6))
    yield "repeated phrases", " ".join([space.join(pieces[start : start + 5])] * max(2, len(pieces) // 5))
    yield "mojibake", text.encode().decode("cp1252", "replace")


def vocabulary(texts: list[str], language: str) -> list[str]:
    """The different words of texts, without punctuation."""
    found = (
        piece for text in texts for piece in (_PIECE.findall(text) if language in UNITS else text.split())
    )
    return sorted({piece.strip(".,;:!?«»\"'()“”„ ") for piece in found} - {""})


def outcome(text: str, language: str, words: list[str], rng: random.Random) -> dict[str, bool]:
    """Whether the text is kept, and each noise dropped; mojibake may be mended instead."""
    filters = prose(language)
    found = {"prose": judge(text, *filters).keep}
    mended = judge(text, Normalize()).text
    for kind, noise in noises(text, language, words, rng):
        verdict = judge(noise, *filters)
        found[kind] = not verdict.keep or verdict.text == mended
    return found


def handbook(folder: Path) -> dict[str, list[str]]:
    from resiliparse.parse.html import HTMLTree

    found = {}
    for place in sorted(folder.iterdir()):
        paragraphs = [
            " ".join(element.text.split())
            for file in sorted(place.rglob("*.html"))
            for element in HTMLTree.parse_from_bytes(file.read_bytes()).body.get_elements_by_class_name(
                "para"
            )
        ]
        found[place.name] = list(dict.fromkeys(paragraphs))
    english = set(found["en-US"])
    return {
        CODES.get(name, name[:2]): [p for p in texts if name == "en-US" or p not in english]
        for name, texts in found.items()
    }


def paragraphs(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Of each language those that are long enough, in an order of chance."""
    texts: dict[str, list[str]] = defaultdict(list)
    if arguments.handbook:
        texts.update(handbook(arguments.handbook))
    for path in arguments.books:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for book in map(json.loads, lines):
                own = [" ".join(part.split()) for part in book["text"].split("\n")]
                own = [part for part in own if is_prose(part, book["lang"][:2])]
                texts[book["lang"][:2]] += random.Random(0).sample(own, min(8, len(own)))
    return {
        language: random.Random(1).sample(own, min(MOST, len(own)))
        for language, of in sorted(texts.items())
        if len(own := [text for text in of if is_prose(text, language)]) >= FEWEST and language
    }


def is_prose(text: str, language: str) -> bool:
    """Long enough, mostly letters, and not a paragraph that was left in English."""
    from jaxtrain.clean.language import detect

    size = 0.75 * len(text) / UNITS[language] if language in UNITS else len(text.split())
    if min(size, Words(text, language).count) < LONG or sum(map(str.isalpha, text)) < 0.6 * len(text):
        return False
    return language == "en" or next(iter(detect(text)), "") != "en"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--handbook", type=Path)
    parser.add_argument("--books", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    report = {}
    for language, texts in paragraphs(arguments).items():
        words, rng = vocabulary(texts, language), random.Random(2)
        halves = [outcome(text, language, words, rng) for text in texts]
        reported = halves[1::2]
        report[language] = {"paragraphs": len(reported)} | {
            kind: round(sum(row[kind] for row in reported) / len(reported), 3) for kind in reported[0]
        }
        kinds = [value for kind, value in report[language].items() if kind not in ("paragraphs", "prose")]
        report[language]["all noise"] = round(sum(kinds) / len(kinds), 3)
        sys.stderr.write(f"{language} {report[language]}\n")
    text = json.dumps(report, indent=1) + "\n"
    if arguments.out:
        arguments.out.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
