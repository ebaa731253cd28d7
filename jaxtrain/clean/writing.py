"""Filter: is a text writing? What tells running text in any language from shuffled words and broken files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtrain.clean.filter import Filter, Range, Record, limit
from jaxtrain.clean.signals import CLAUSE_END, IDEOGRAPHIC, TERMINAL, UNMARKED, Words, common_words

_ENDS = (*TERMINAL, *"…:：\"'”’»«“›」』)）]")
_LINE = " \n "
_LONG = 100  # characters of a paragraph that ought to end a sentence
_SENTENCE = re.compile("[。！？]")
# No sentence of Japanese ends in these particles, in a noun hardly one.
_ODD_END = re.compile("[をはがにへっァ-ヺ一-鿿a-zA-Z]。")
_OPENING, _CLOSING = "「『（(《“", "」』）)》”"
_BRACKET = re.compile(f"[{_OPENING}{_CLOSING}]")
_MISPLACED = re.compile("[。！？，、；：][。！？，、；：]|^[。！？，、；：]")
# What is left of UTF-8 that was read as Latin: two-byte letters and the marks of three bytes.
_DEBRIS = re.compile("\ufffd|[ÃÂÐÑØÙÎÏ][\u0080-\u00bf\u0152-\u0192\u02c6-\u2122]|â€|ï¿½")


@dataclass(frozen=True)
class Writing(Filter):
    """Rules of ours for running text. What cannot be told of a text or language breaks none."""

    common_words: Range = limit("too few common words", low=0.17)
    """How much of the text is the commonest words of its language; 1 is as much as of the Declaration of
    Human Rights. Lists of words and shuffled letters have less than 0.15."""
    broken_sentences: Range = limit("sentences begin or end in their midst", high=0.4)
    """Share of the places where a sentence begins or ends at which letter or mark are those of a sentence's
    midst: of prose below a third, of shuffled words most."""
    broken_characters: Range = limit("broken encoding", high=0.001)
    """Share of characters that were lost or read in another encoding."""

    def measure(self, record: Record) -> Mapping[str, float | None]:
        return {
            "common_words": record.words.common(),
            "broken_sentences": broken_sentences(record.words),
            "broken_characters": len(_DEBRIS.findall(record.text)) / max(len(record.text), 1),
        }


def broken_sentences(words: Words) -> float | None:
    """See `Writing`; None where the script says too little."""
    text, language = words.text.strip(), words.language or "en"
    if not text or language in UNMARKED:
        return None
    ended = text.endswith(_ENDS) or "/" in text.rsplit(None, 1)[-1]  # an address may stand last
    if language in IDEOGRAPHIC and language != "ko":
        # Few marks come to stand side by side in shuffled text, so one counts for three.
        misplaced = 3 * (len(_MISPLACED.findall(text)) + _unpaired(text) + (not ended))
        misplaced += len(_ODD_END.findall(text)) if language == "ja" else 0
        spaces = len(CLAUSE_END.findall(text)) / len(text)  # a list has one behind each word, prose none
        return max(4 * spaces, misplaced / (len(_SENTENCE.findall(text)) + 2))
    if not _has_capitals(text, language):
        parts = [part for part in map(str.strip, text.split("\n")) if len(part) >= _LONG]
        return sum(not part.endswith(_ENDS) for part in parts) / len(parts) if parts else None
    known = common_words().get(language)
    capitals = {word.capitalize() for word in known.words} if known else set()
    tokens = [token for token in text.replace("\n", _LINE).split(" ") if token]
    pairs = list(zip(tokens, tokens[1:], strict=False))
    behind = [after[0].islower() for before, after in pairs if before[-1] == "." and len(before) > 4]
    inside = [before[-1].isalpha() or before[-1] == "," for before, after in pairs if after in capitals]
    begins_small = next((letter for letter in text if letter.isalpha()), "A").islower()
    return (sum(behind) + sum(inside) + begins_small + (not ended)) / (len(behind) + len(inside) + 2)


def _unpaired(text: str) -> int:
    """Brackets and quotation marks without their other half; one may be a slip."""
    depth = lonely = 0
    for mark in _BRACKET.findall(text):
        opens = mark in _OPENING
        lonely += not opens and not depth
        depth = max(0, depth + (1 if opens else -1))
    return max(0, lonely + depth - 1)


def _has_capitals(text: str, language: str) -> bool:
    """Whether its writing has small letters and capitals: Georgian has them in Unicode alone."""
    letters = [character for character in text[:1000] if character.isalpha()]
    return language != "ka" and 2 * sum(map(str.islower, letters)) > len(letters)
