"""What a record is ruled out by before it is read: blocked domains and words of its URL, and its licence."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from jaxtrain.clean.filter import Filter, Record
from jaxtrain.runtime.errors import UserError

_WORDS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Blocklist:
    """Domains and words of a URL to drop."""

    domains: frozenset[str]
    words: frozenset[str]

    @classmethod
    def read(cls, paths: Iterable[str]) -> "Blocklist":
        """Text files of one domain (it has a dot) or word a line; `#` begins a comment."""
        entries: set[str] = set()
        for path in paths:
            try:
                lines = Path(path).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"BlockedUrls: {path} cannot be read ({error}); mend its path") from error
            entries |= {line.partition("#")[0].strip().lower() for line in lines} - {""}
        domains = {entry.removeprefix("www.") for entry in entries if "." in entry}
        return cls(frozenset(domains), frozenset(entry for entry in entries if "." not in entry))

    def holds(self, url: str) -> bool:
        """Whether the domain, one above it, or a word of the URL is blocked."""
        try:
            host = (urlsplit(url).hostname or "").lower()
        except ValueError:  # no URL: [::1
            return False
        parts = host.split(".")
        if any(".".join(parts[i:]) in self.domains for i in range(len(parts))):
            return True
        return bool(self.words) and not self.words.isdisjoint(_WORDS.findall(url.lower()))


@dataclass(frozen=True)
class BlockedUrls(Filter):
    """Drops pages whose URL has a blocked domain or word."""

    paths: tuple[str, ...]
    """Text files of domains and words, one a line."""

    def files(self) -> tuple[str, ...]:
        return self.paths

    def judge(self, record: Record) -> str:
        return "blocked url" if _read(self.paths).holds(record.row.get("url", "")) else ""


@cache
def _read(paths: tuple[str, ...]) -> Blocklist:
    return Blocklist.read(paths)


@dataclass(frozen=True)
class License(Filter):
    """Keeps records of some licences; those of an unknown one too where `""` is named."""

    identifiers: tuple[str, ...]
    """SPDX identifiers, or `public-domain`."""

    def judge(self, record: Record) -> str:
        return "" if record.row["license"] in self.identifiers else "license"
