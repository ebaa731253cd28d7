"""Listed words: the share of a text that stands on lists of dirty and abusive words, in many languages.

The lists count words and know no context, so they are a signal with a limit and no verdict of their own. What
a sentence says is for a classifier (jaxtrain.classify).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jaxtrain.classify.words import NO_SPACES
from jaxtrain.clean.filter import Filter, Range, Record, limit
from jaxtrain.runtime.errors import UserError

_WORD = re.compile(r"[^\W_]+")
_NO_SPACES = re.compile(f"[{NO_SPACES}]")


@dataclass(frozen=True)
class WordLists:
    """Entries of all lists, by how they are looked for."""

    words: frozenset[str]
    phrases: tuple[str, ...]
    """Of several words, with a space before and behind."""
    parts: re.Pattern[str] | None
    """Of scripts without spaces: anywhere in the text."""

    @classmethod
    def read(cls, paths: Iterable[str]) -> "WordLists":
        """Text files of one entry a line (the format of LDNOOBW); a folder stands for all files in it."""
        files = [
            file
            for path in map(Path, paths)
            for file in (sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path])
        ]
        entries: set[str] = set()
        for file in files:
            try:
                entries |= {line.strip().lower() for line in file.read_text(encoding="utf-8").splitlines()}
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"ListedWords: {file} cannot be read ({error}); mend its path") from error
        parts = sorted(entry for entry in entries if _NO_SPACES.search(entry))
        spaced = {" ".join(_WORD.findall(entry)) for entry in entries - set(parts)} - {""}
        return cls(
            words=frozenset(entry for entry in spaced if " " not in entry),
            phrases=tuple(sorted(f" {entry} " for entry in spaced if " " in entry)),
            parts=re.compile("|".join(map(re.escape, parts))) if parts else None,
        )

    def count(self, text: str) -> tuple[int, int]:
        """(words of listed entries, words)."""
        words = _WORD.findall(text.lower())
        spaced = f" {' '.join(words)} "
        found = sum(map(self.words.__contains__, words))
        found += sum(
            spaced.count(phrase) * (phrase.count(" ") - 1) for phrase in self.phrases if phrase in spaced
        )
        if self.parts is not None and _NO_SPACES.search(text):
            hits = self.parts.findall(text.lower())
            return found + sum(map(len, hits)), len(words) + len(_NO_SPACES.findall(text))
        return found, len(words)

    def share(self, text: str) -> float:
        """Listed words of all words, 0 to 1 where no entries overlap."""
        found, words = self.count(text)
        return min(found / max(words, 1), 1.0)


@dataclass(frozen=True)
class ListedWords(Filter):
    """Drops texts of which a larger share stands on a list."""

    paths: tuple[str, ...]
    """Text files, or folders of them, of one entry a line."""
    listed_words: Range = limit("too many listed words")
    """Share (0 to 1) of words that are listed. Without a limit it only measures."""

    def files(self) -> tuple[str, ...]:
        return self.paths

    def measure(self, record: Record) -> Mapping[str, float | None]:
        return {"listed_words": _read(self.paths).share(record.text)}


@cache
def _read(paths: tuple[str, ...]) -> WordLists:
    return WordLists.read(paths)
