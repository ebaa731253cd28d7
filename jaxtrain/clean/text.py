"""Filters that mend: encoding, Unicode NFC, whitespace; lines of menus and warnings. Each is idempotent."""

import re
import unicodedata
from dataclasses import dataclass

import ftfy

from jaxtrain.classify.words import NO_SPACES
from jaxtrain.clean.filter import Filter, Record
from jaxtrain.clean.signals import TERMINAL

# Curled quotes and the wide marks of Chinese and Japanese are meant.
_REPAIR = ftfy.TextFixerConfig(
    uncurl_quotes=False, fix_character_width=False, normalization=None, explain=False
)
_PLAIN = re.compile("[\n\t -%'-~“”‘’–—…]*")  # nothing to repair: spares nine lines of ten the search
# Soft hyphen, zero-width space, word joiner, byte order mark.
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")
_SPACES = re.compile(r"[^\S\n]+")
_NEWLINES = re.compile(r"\r\n?|[\u0085\u2028\u2029\v\f\x1c-\x1e]")
_BLANK_LINES = re.compile(r"\n{3,}")

# C4 (Raffel et al. 2020, section 2.2, arXiv 1910.10683): lines of warnings and policies, and lines of menus.
_POLICY_WORDS = ("terms of use", "privacy policy", "cookie policy")
_POLICY_WORDS += ("uses cookies", "use of cookies", "use cookies")
_POLICY = re.compile("|".join(("javascript", *_POLICY_WORDS)), re.I)
SHORTEST_LINE = 3  # words
LONGEST_WORD = 1000  # characters
_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
_SENTENCE_ENDS = (".", "?", "!", '"', "'")
_ANY_ENDS = (*TERMINAL, *"\"'”’»」』）")
_UNSPACED = re.compile(f"[{NO_SPACES}]{{6}}")  # says what three words do


def normalize_prose(text: str) -> str:
    """Repaired text: single spaces, none at the ends of lines, at most one blank line between paragraphs."""
    text = _SPACES.sub(" ", _NEWLINES.sub("\n", _repair(text)))
    text = "\n".join(line.strip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip()


def normalize_code(text: str) -> str:
    """Only line ends change: code may mean every other character."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def normalize_turn(text: str) -> str:
    """A turn of a conversation: repaired, with its indentation and blank lines, since it may hold code."""
    return normalize_code(_repair(text, entities=False)).strip()


def _repair(text: str, entities: bool = True) -> str:
    """Each line without mojibake and invisible characters.

    entities: whether `&eacute;` becomes é; never where the text has tags. A conversation keeps what it may
    be about.
    """
    if _PLAIN.fullmatch(text):
        return text
    config = _REPAIR._replace(unescape_html=entities and "<" not in text)
    return "\n".join(_repair_line(line, config) for line in text.split("\n"))


def _repair_line(line: str, config: ftfy.TextFixerConfig) -> str:
    """Until nothing changes: an invisible character may have hidden a fault."""
    if _PLAIN.fullmatch(line):
        return line
    while (repaired := unicodedata.normalize("NFC", _INVISIBLE.sub("", ftfy.fix_text(line, config)))) != line:
        line = repaired
    return line


def remove_boilerplate(text: str) -> str:
    """Without C4's lines: those of fewer than three words, and those on cookies, policies or JavaScript.

    C4's demand that each line ends in punctuation is left out: it costs 30 % of the web for little
    (FineWeb, arXiv 2406.17557, section 3.5).
    """
    lines = text.split("\n")
    kept = [line for line in lines if not line or _is_long(line) and not _POLICY.search(line)]
    return _BLANK_LINES.sub("\n\n", "\n".join(kept)).strip()


def _is_long(line: str) -> bool:
    return len(line.split(None, SHORTEST_LINE)) >= SHORTEST_LINE or _UNSPACED.search(line) is not None


def c4_lines(text: str, language: str = "") -> str:
    """The lines that C4 keeps: of three words or more that end a sentence, without policies or JavaScript.

    A line that would have C4 drop its page stays, so that the page's limits see it. In other languages than
    English the marks of all scripts end a sentence.
    """
    kept = []
    ends = _SENTENCE_ENDS if language in ("", "en") else _ANY_ENDS
    for line in map(str.strip, text.splitlines()):
        longest = max(map(len, line.split()), default=0)
        line = _CITATION.sub("", line)
        if not _is_long(line) or not line.endswith(ends) or line.endswith("..."):
            continue
        low = line.lower()
        warns = "javascript" in low or "{" not in low and any(words in low for words in _POLICY_WORDS)
        is_word = longest <= LONGEST_WORD or _UNSPACED.search(line)
        if is_word and (not warns or "lorem ipsum" in low):
            kept.append(line)
    return "\n".join(kept).strip()


@dataclass(frozen=True)
class Normalize(Filter):
    """Repaired encoding, Unicode NFC and plain whitespace; turns of a conversation keep their indentation."""

    code: bool = False
    """Change line ends alone: code may mean every other character."""

    def change(self, record: Record) -> None:
        if record.messages is not None:
            record.edit(normalize_turn)
        else:
            record.edit(normalize_code if self.code else normalize_prose)


@dataclass(frozen=True)
class Boilerplate(Filter):
    """Takes out lines of fewer than three words, and those on cookies, policies or JavaScript."""

    def change(self, record: Record) -> None:
        record.edit(remove_boilerplate)


@dataclass(frozen=True)
class C4Lines(Filter):
    """Takes out the lines that C4 takes out: those of `Boilerplate`, and those that end no sentence."""

    def change(self, record: Record) -> None:
        record.edit(lambda text: c4_lines(text, record.language))
