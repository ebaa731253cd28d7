"""Filters by lists of the user: blocked domains and words of a URL, licences, listed words, benchmarks."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from jaxtrain.clean.filter import Filter, Range, Record, limit, read_texts
from jaxtrain.clean.signals import UNSPACED
from jaxtrain.tasks.overlap import Phrases, read_items

QUOTED = "benchmark overlap"
_WORD, _LETTERS = re.compile(r"[^\W_]+"), re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class BlockedUrls(Filter):
    """Drops pages of a blocked domain or one below it, and those whose URL has a blocked word."""

    paths: tuple[str, ...]
    """Text files of domains (with a dot) and words, one a line; `#` begins a comment."""

    def files(self) -> tuple[str, ...]:
        return self.paths

    def judge(self, record: Record) -> str:
        url = record.row.get("url", "")
        try:
            parts = (urlsplit(url).hostname or "").lower().split(".")
        except ValueError:  # no URL: [::1
            return ""
        domains = {".".join(parts[i:]) for i in range(len(parts))}
        blocked = _blocked(self.paths)
        return "" if blocked.isdisjoint(domains.union(_LETTERS.findall(url.lower()))) else "blocked url"


@cache
def _blocked(paths: tuple[str, ...]) -> frozenset[str]:
    lines = "\n".join(read_texts("BlockedUrls", paths)).lower().splitlines()
    return frozenset(line.partition("#")[0].strip().removeprefix("www.") for line in lines) - {""}


@dataclass(frozen=True)
class License(Filter):
    """Keeps records of some licences; those of an unknown one too where `""` is named."""

    identifiers: tuple[str, ...]
    """SPDX identifiers, or `public-domain`."""

    def judge(self, record: Record) -> str:
        return "" if record.row["license"] in self.identifiers else "license"


@dataclass(frozen=True)
class ListedWords(Filter):
    """Drops texts of which a larger share stands on lists of dirty and abusive words.

    The lists count words and know no context. What a sentence says is for a `Classifier`.
    """

    paths: tuple[str, ...]
    """Text files, or folders of them, of one entry a line (the format of LDNOOBW)."""
    listed_words: Range = limit("too many listed words")
    """Share (0 to 1) of words that are listed. Without a limit it only measures."""

    def files(self) -> tuple[str, ...]:
        return self.paths

    def measure(self, record: Record) -> Mapping[str, float | None]:
        found, words = self.count(record.text)
        return {"listed_words": min(found / max(words, 1), 1.0)}

    def count(self, text: str) -> tuple[int, int]:
        """(words of listed entries, words)."""
        listed, phrases, parts = _listed(self.paths)
        words = _WORD.findall(text.lower())
        spaced = f" {' '.join(words)} "
        found = sum(map(listed.__contains__, words))
        found += sum(spaced.count(phrase) * (phrase.count(" ") - 1) for phrase in phrases if phrase in spaced)
        if parts is not None and (unspaced := len(UNSPACED.findall(text))):
            return found + sum(map(len, parts.findall(text.lower()))), len(words) + unspaced
        return found, len(words)


@cache
def _listed(paths: tuple[str, ...]) -> tuple[frozenset[str], list[str], re.Pattern[str] | None]:
    """Words; phrases, with a space around; and what is looked for anywhere, of scripts without spaces."""
    lines = "\n".join(read_texts("ListedWords", paths)).lower().splitlines()
    entries = {line.strip() for line in lines}
    parts = sorted(filter(UNSPACED.search, entries))
    spaced = {" ".join(_WORD.findall(entry)) for entry in entries.difference(parts)} - {""}
    phrases = sorted(f" {entry} " for entry in spaced if " " in entry)
    anywhere = re.compile("|".join(map(re.escape, parts))) if parts else None
    return frozenset(entry for entry in spaced if " " not in entry), phrases, anywhere


@dataclass(frozen=True)
class Quotes(Filter):
    """Drops texts that quote an item of a benchmark: a score on what was read before means nothing."""

    benchmarks: tuple[str, ...]
    """Files of its items, of any kind that evaluate reads (docs/formats.md, 9 evaluate)."""

    def files(self) -> tuple[str, ...]:
        return self.benchmarks

    def judge(self, record: Record) -> str:
        """`detail` becomes the name of the first benchmark that is quoted."""
        every, known = self.phrases()
        if every.find(record.text) is not None:
            record.detail = next(name for name, own in known.items() if own.find(record.text) is not None)
        return QUOTED if record.detail else ""

    def phrases(self) -> tuple[Phrases, dict[str, Phrases]]:
        """Of all benchmarks, and of each by its file's name, or path where two share one."""
        return _phrases(tuple(dict.fromkeys(self.benchmarks)))


@cache
def _phrases(paths: tuple[str, ...]) -> tuple[Phrases, dict[str, Phrases]]:
    stems = {path: Path(path).name.split(".")[0] for path in paths}
    count = Counter(stems.values())
    names = {path: stem if count[stem] == 1 else path for path, stem in stems.items()}
    items = {name: list(read_items(path)) for path, name in names.items()}
    every = Phrases(item for found in items.values() for item in found)
    return every, {name: Phrases(found) for name, found in items.items()}
