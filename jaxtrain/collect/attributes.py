"""What the `.gitattributes` of a repository say of its files: generated or vendored (GitHub's linguist).

Patterns are git's: without a slash they match a name at any depth below their file, with one a path from
there on. Of several lines that match the last counts, and files deeper down count after those above.
"""

import fnmatch
import re
from functools import cache
from pathlib import Path

NAMES = {"linguist-generated": "generated", "linguist-vendored": "vendored"}
FILE = ".gitattributes"
MOST_BYTES = 100_000
_ANY = None
"""In a pattern: any number of folders, `**`."""
Pattern = list[re.Pattern[str] | None]


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
            for pattern, said in self._lines("/".join(parts[:depth])):
                if _matches(pattern, parts[depth:]):
                    found |= said
        return found

    def _read(self, folder: str) -> list[tuple[Pattern, dict[str, bool]]]:
        path = self._root / folder / FILE
        if path.is_symlink() or not path.is_file():
            return []
        lines = []
        for line in path.read_bytes()[:MOST_BYTES].decode("utf-8", "replace").splitlines():
            pattern, *words = line.split() or [""]
            said = dict(filter(None, map(_said, words)))
            if said and not pattern.startswith(("#", "[attr]")):
                lines.append((_pattern(pattern.strip('"')), said))
        return lines


def _said(word: str) -> tuple[str, bool] | None:
    """`linguist-generated`, `linguist-generated=true`, `-linguist-generated`, `linguist-generated=false`."""
    name, _, value = word.lstrip("-").partition("=")
    is_so = not word.startswith("-") and value not in ("false", "0", "no")
    return (NAMES[name], is_so) if name in NAMES else None


def _pattern(text: str) -> Pattern:
    r"""A regular expression a folder, of git's `[^a]` and `\*` in the words of fnmatch.

    Those of fnmatch take time that grows with the name alone.
    """
    parts = text.removeprefix("/").split("/") if "/" in text.rstrip("/") else ["**", text]
    if parts[-1] == "**":  # what is in the folder, not the folder
        parts.append("*")
    plain = [re.sub(r"\\(.)", r"[\1]", part.replace("[^", "[!")) for part in parts]
    return [_ANY if part == "**" else re.compile(fnmatch.translate(part)) for part in plain]


def _matches(pattern: Pattern, names: list[str]) -> bool:
    """Whether the pattern fits all the names; each is looked at once for each part that may be next."""
    states = {0}
    for name in [*names, None]:
        for state in sorted(states):
            while state < len(pattern) and pattern[state] is _ANY:  # a `**` may stand for no folder
                state += 1
                states.add(state)
        if name is not None:
            parts = [(state, pattern[state]) for state in states if state < len(pattern)]
            states = {n if part is _ANY else n + 1 for n, part in parts if part is _ANY or part.match(name)}
    return len(pattern) in states
