"""A folder of source code to its files, one document each; generated, vendored and test files stay out."""

import fnmatch
import os
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import accumulate
from operator import or_
from pathlib import Path

from jaxtrain.collect.source import Item, Source
from jaxtrain.formats.files import Unread, Unreadable
from jaxtrain.runtime.errors import UserError

STDLIB = "stdlib"
_ENDINGS = """
python .py; c .c .h; c++ .cc .cpp .hpp; c# .cs; rust .rs; go .go; java .java; javascript .js; typescript .ts
ruby .rb; shell .sh; sql .sql; julia .jl; lua .lua; scala .scala; kotlin .kt; haskell .hs; ocaml .ml; lisp .el
perl .pl; php .php; swift .swift
"""
LANGUAGES = {end: name for name, *ends in map(str.split, re.split("[;\n]", _ENDINGS.strip())) for end in ends}
TESTS = {"test", "tests", "testing", "idle_test", "testdata"}
VENDORED = {"vendor", "_vendor", "vendored", "third_party", "node_modules", "_bundled", "build", "dist"}
INSTALLED = {"site-packages", "dist-packages", "__pycache__"}  # beside the folder's code, not of it
APPLICATIONS = {"idlelib", "turtledemo", "lib2to3"}  # of the standard library: no library code
GENERATED = re.compile(r"generated (?:by|from|using)|auto-?generated|do not edit|generated and used by", re.I)
SPDX = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+-]+)")
LICENSES = (  # words near the beginning of a licence file, the more special first
    (r"Apache License,? Version 2\.0", "Apache-2.0"),
    (r"Mozilla Public License,? version 2\.0", "MPL-2.0"),
    (r"GNU AFFERO GENERAL PUBLIC LICENSE Version 3", "AGPL-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE Version 3", "LGPL-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE Version 2\.1", "LGPL-2.1"),
    (r"GNU GENERAL PUBLIC LICENSE Version 3", "GPL-3.0"),
    (r"GNU GENERAL PUBLIC LICENSE Version 2", "GPL-2.0"),
    (r"PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2", "PSF-2.0"),
    (r"Permission is hereby granted, free of charge", "MIT"),
    (r"Permission to use, copy, modify, and(?:/or)? distribute this software", "ISC"),
    (r"Redistributions in binary form.{0,400}Neither the name", "BSD-3-Clause"),
    (r"Redistributions in binary form", "BSD-2-Clause"),
    (r"This is free and unencumbered software released into the public domain", "Unlicense"),
)
MAX_FILE_BYTES, HEAD = 400_000, 1000
ATTRIBUTES, MOST_ATTRIBUTES = ".gitattributes", 100_000  # bytes that are read of one
# `linguist-generated`, `linguist-generated=true`, `-linguist-generated`, `linguist-generated=false`
_SAID = re.compile(r"(?<!\S)(-?)linguist-(generated|vendored)(?:=(\S*))?(?!\S)")
Pattern = list[re.Pattern[str] | None]
"""None: any number of folders, `**`."""


@dataclass(frozen=True, kw_only=True)
class CodeSource(Source):
    """Files of a folder."""

    folder: str
    """Where the code is; `stdlib` is the standard library of the Python that runs."""
    license: str = ""
    """SPDX identifier of files that do not state their own; empty: that of the folder's licence file."""
    max_bytes: int = 4_000_000
    """UTF-8 bytes to take. Which files: in the order of a hash of their paths, the same on every machine."""

    def files(self) -> list[Path]:
        root = Path(sysconfig.get_paths()["stdlib"] if self.folder == STDLIB else self.folder)
        if not root.is_dir():
            raise UserError(f"source {self.name!r}: no folder {root}")
        return [root]

    def read(self, unread: Unread) -> Iterator[Item]:
        """A document a file, by path; `unread` counts the files left out by reason."""
        (root,) = self.files()
        paths = [p.relative_to(root).as_posix() for p in _walk(root, unread) if language_of(p.name)]
        attributes, own = attributes_of(root), _license_of(root)
        taken: dict[str, str] = {}
        left = self.max_bytes
        for path in sorted(paths, key=lambda p: blake2b(os.fsencode(p)).digest()):
            yield None
            try:
                text = _read(root, path, attributes(path))
                if len(text.encode()) > left:
                    raise Unreadable(f"beyond {self.max_bytes:,} bytes")
            except Unreadable as error:
                unread[str(error)] += 1
                continue
            taken[path] = text
            left -= len(text.encode())
        for path, text in sorted(taken.items()):
            stated = SPDX.search(text[:HEAD])
            named = path.encode("utf-8", "backslashreplace").decode()
            place = {"url": f"{Path(self.folder).name}/{named}", "meta": {"path": named}}
            license = stated[1] if stated else self.license or own
            yield self.document(named, text, **place, language=language_of(path), license=license)


def language_of(path: str) -> str:
    """The programming language of a file by its name; empty where it is none that is known."""
    return LANGUAGES.get(Path(path).suffix.lower(), "")


def _walk(folder: Path, unread: Unread) -> Iterator[Path]:
    """Files of the folder itself; links are not followed: they may leave it, or lead round in a circle."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            unread["a symbolic link"] += bool(language_of(path.name)) or path.is_dir()
        elif path.is_dir() and path.name not in INSTALLED and path.name != ".git":
            yield from _walk(path, unread)
        elif path.is_file():
            yield path


def _license_of(root: Path) -> str:
    """SPDX identifier of the licence file in the folder; empty where there is none that is known."""
    for path in sorted(root.iterdir()):
        if path.is_file() and re.match(r"(?i)licen[sc]e|copying", path.name):
            start = " ".join(path.read_bytes()[:8000].decode("utf-8", "replace").split())
            if known := next((name for words, name in LICENSES if re.search(words, start, re.I)), ""):
                return known
    return ""


def _read(root: Path, path: str, said: dict[str, bool]) -> str:
    """The text of a file, or Unreadable with why it is left out. What `.gitattributes` say comes first."""
    *folders, name = Path(path).parts
    looks_vendored = any(folder.startswith(".") for folder in folders) or VENDORED.intersection(folders)
    if said.get("vendored", looks_vendored):
        raise Unreadable("vendored")
    if TESTS.intersection(folders) or name.startswith("test_") or Path(name).stem.endswith("_test"):
        raise Unreadable("test")
    if APPLICATIONS.intersection(folders):
        raise Unreadable("application")
    if (root / path).stat().st_size > MAX_FILE_BYTES:
        raise Unreadable(f"longer than {MAX_FILE_BYTES:,} bytes")
    try:
        text = (root / path).read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise Unreadable(f"not readable as UTF-8: {type(error).__name__}") from None
    looks_generated = GENERATED.search(text[:HEAD]) or max(map(len, text.splitlines()), default=0) > 1000
    if said.get("generated", looks_generated):
        raise Unreadable("generated")
    if not text.strip():
        raise Unreadable("empty")
    return text.strip("\n") + "\n"


def attributes_of(root: Path) -> Callable[[str], dict[str, bool]]:
    """What the `.gitattributes` of a folder say of a file, by its path from there: `generated`, `vendored`.

    Patterns are git's: without a slash they match a name at any depth below their file, with one a path from
    there on. Of several lines that match the last counts, and files deeper down count after those above.
    """
    lines = cache(lambda folder: _attribute_lines(root / folder / ATTRIBUTES))

    def said_of(path: str) -> dict[str, bool]:
        found: dict[str, bool] = {}
        parts = path.split("/")
        for depth in range(len(parts)):
            for pattern, said in lines("/".join(parts[:depth])):
                if _matches(pattern, parts[depth:]):
                    found |= said
        return found

    return said_of


def _attribute_lines(path: Path) -> list[tuple[Pattern, dict[str, bool]]]:
    if path.is_symlink() or not path.is_file():
        return []
    lines = []
    for line in path.read_bytes()[:MOST_ATTRIBUTES].decode("utf-8", "replace").splitlines():
        pattern, words = [*line.split(None, 1), "", ""][:2]
        said = {n: not off and value not in ("false", "0", "no") for off, n, value in _SAID.findall(words)}
        if said and not pattern.startswith(("#", "[attr]")):
            lines.append((_pattern(pattern.strip('"')), said))
    return lines


def _pattern(text: str) -> Pattern:
    r"""A regular expression a folder, of git's `[^a]` and `\*` in the words of fnmatch.

    Those of fnmatch take time that grows with the name alone.
    """
    parts = text.removeprefix("/").split("/") if "/" in text.rstrip("/") else ["**", text]
    if parts[-1] == "**":  # what is in the folder, not the folder
        parts.append("*")
    plain = [re.sub(r"\\(.)", r"[\1]", part.replace("[^", "[!")) for part in parts]
    return [None if part == "**" else re.compile(fnmatch.translate(part)) for part in plain]


def _matches(pattern: Pattern, names: list[str]) -> bool:
    """Whether the pattern fits all the names; each part is compared with each name once."""
    fits = [True] + [False] * len(names)  # how many of the names the parts up to here may stand for
    for part in pattern:
        if part is None:
            fits = list(accumulate(fits, or_))
        else:
            pairs = zip(fits, names, strict=False)
            fits = [False, *(fit and bool(part.match(name)) for fit, name in pairs)]
    return fits[-1]
