"""Normal forms of text: repaired encoding, Unicode NFC, plain whitespace. Each is idempotent."""

import re
import unicodedata

import ftfy

# Curly quotes are meant. A conversation may be about HTML entities, so it keeps them.
_REPAIR = ftfy.TextFixerConfig(uncurl_quotes=False, normalization=None, explain=False)
_REPAIR_TURN = _REPAIR._replace(unescape_html=False)
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u2060\ufeff]"
)  # soft hyphen, zero-width space, word joiner, byte order mark
_SPACES = re.compile(r"[^\S\n]+")
_NEWLINES = re.compile(r"\r\n?|[\u0085\u2028\u2029\v\f\x1c-\x1e]")
_BLANK_LINES = re.compile(r"\n{3,}")

# C4 (Raffel et al. 2020, section 2.2, arXiv 1910.10683): lines of warnings and policies, and lines of menus.
_POLICY = re.compile(
    r"javascript|terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies", re.I
)
SHORTEST_LINE = 3  # words


def normalize_prose(text: str) -> str:
    """Repaired text: single spaces, none at the ends of lines, at most one blank line between paragraphs."""
    text = _SPACES.sub(" ", _NEWLINES.sub("\n", _repair(text, _REPAIR)))
    text = "\n".join(line.strip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip()


def normalize_code(text: str) -> str:
    """Only line ends change: code may mean every other character."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def normalize_turn(text: str) -> str:
    """A turn of a conversation: repaired, with its indentation and blank lines, since it may hold code."""
    return normalize_code(_repair(text, _REPAIR_TURN)).strip()


def _repair(text: str, config: ftfy.TextFixerConfig) -> str:
    """Until nothing changes: an invisible character may have hidden a fault."""
    while (repaired := unicodedata.normalize("NFC", _INVISIBLE.sub("", ftfy.fix_text(text, config)))) != text:
        text = repaired
    return text


def remove_boilerplate(text: str) -> str:
    """Without C4's lines: those of fewer than three words, and those on cookies, policies or JavaScript.

    C4's demand that each line ends in punctuation is left out: it costs 30 % of the web for little
    (FineWeb, arXiv 2406.17557, section 3.5).
    """
    kept = [line for line in text.split("\n") if not line or _is_content(line)]
    return _BLANK_LINES.sub("\n\n", "\n".join(kept)).strip()


def _is_content(line: str) -> bool:
    return len(line.split(None, SHORTEST_LINE)) >= SHORTEST_LINE and not _POLICY.search(line)
