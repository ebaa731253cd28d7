"""What the `.gitattributes` of a repository say of its files: generated or vendored (GitHub's linguist).

Patterns are git's: without a slash they match a name at any depth below their file, with one a path from
there on. Of several lines that match the last counts, and files deeper down count after those above.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

NAMES = {"linguist-generated": "generated", "linguist-vendored": "vendored"}
FILE = ".gitattributes"
MOST_BYTES = 1_000_000
_GLOB = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]]+\]|\\.|.", re.S)


class Attributes:
    """Of the files of one folder and of those in it."""

    def __init__(self, root: Path):
        self._root = root
        self._lines = cache(self._read)

    def of(self, path: str) -> dict[str, bool]:
        """`generated` and `vendored` of a file by its path from the root; absent where nothing is said."""
        found: dict[str, bool] = {}
        parts = path.split("/")
        for depth in range(len(parts)):
            below = "/".join(parts[depth:])
            for pattern, said in self._lines("/".join(parts[:depth])):
                if pattern.fullmatch(below):
                    found |= said
        return found

    def _read(self, folder: str) -> list[tuple[re.Pattern[str], dict[str, bool]]]:
        path = self._root / folder / FILE
        if path.is_symlink() or not path.is_file():
            return []
        text = path.read_bytes()[:MOST_BYTES].decode("utf-8", "replace")
        return list(_parsed(text))


def _parsed(text: str) -> Iterator[tuple[re.Pattern[str], dict[str, bool]]]:
    for line in text.splitlines():
        pattern, *words = line.split() or [""]
        said = dict(filter(None, map(_said, words)))
        if said and not pattern.startswith(("#", "[attr]")):
            yield _regex(pattern.strip('"')), said


def _said(word: str) -> tuple[str, bool] | None:
    """`linguist-generated`, `linguist-generated=true`, `-linguist-generated`, `linguist-generated=false`."""
    name, _, value = word.lstrip("-").partition("=")
    if name not in NAMES:
        return None
    return NAMES[name], not word.startswith("-") and value not in ("false", "0", "no")


def _regex(pattern: str) -> re.Pattern[str]:
    parts = []
    for glob in _GLOB.findall(pattern.lstrip("/")):
        if glob == "**/":
            parts.append("(?:.*/)?")
        elif glob == "**":
            parts.append(".*")
        elif glob == "*":
            parts.append("[^/]*")
        elif glob == "?":
            parts.append("[^/]")
        elif glob.startswith("[") and len(glob) > 1:
            inside = glob[1:-1].replace("\\", "\\\\")
            parts.append("[" + ("^" + inside[1:] if inside.startswith("!") else inside) + "]")
        else:
            parts.append(re.escape(glob[-1]))
    anywhere = "" if "/" in pattern.rstrip("/") else "(?:.*/)?"
    try:
        return re.compile(anywhere + "".join(parts), re.S)
    except re.error:  # a class that is none: the pattern as it is written
        return re.compile(anywhere + re.escape(pattern))
