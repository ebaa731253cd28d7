"""A folder of source code to its files, one document each; generated, vendored and test files stay out."""

import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from jaxtrain.collect.attributes import Attributes
from jaxtrain.collect.source import Item, Source
from jaxtrain.document import Document, record_id
from jaxtrain.formats.files import Unread
from jaxtrain.runtime.errors import UserError

STDLIB = "stdlib"
LANGUAGES = {
    ".py": "python",
    ".c": "c",
    ".h": "c",
    ".cc": "c++",
    ".cpp": "c++",
    ".hpp": "c++",
    ".rs": "rust",
    ".go": "go",
    ".java": "java",
    ".js": "javascript",
    ".ts": "typescript",
    ".rb": "ruby",
    ".sh": "shell",
    ".sql": "sql",
    ".jl": "julia",
    ".lua": "lua",
    ".scala": "scala",
    ".kt": "kotlin",
    ".cs": "c#",
    ".hs": "haskell",
    ".ml": "ocaml",
    ".el": "lisp",
    ".pl": "perl",
    ".php": "php",
    ".swift": "swift",
}
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
        return read_code(self, unread)


def read_code(source: CodeSource, unread: Unread) -> Iterator[Item]:
    """A document a file, by path; `unread` counts the files left out by reason."""
    (root,) = source.files()
    paths = [p.relative_to(root).as_posix() for p in _walk(root, unread) if language_of(p.name)]
    own_license = source.license or _license_of(root)
    attributes = Attributes(root)
    taken: dict[str, str] = {}
    left = source.max_bytes
    for path in sorted(paths, key=lambda p: blake2b(os.fsencode(p)).digest()):
        yield None
        reason, text = _read(root, path, attributes.of(path))
        if not reason and len(text.encode()) > left:
            reason = f"beyond {source.max_bytes:,} bytes"
        if reason:
            unread[reason] += 1
        else:
            taken[path] = text
            left -= len(text.encode())
    for path, text in sorted(taken.items()):
        stated = SPDX.search(text[:HEAD])
        named = path.encode("utf-8", "backslashreplace").decode()
        yield Document(
            id=record_id(source.name, named),
            text=text,
            source=source.name,
            url=f"{Path(source.folder).name}/{named}",
            language=language_of(path),
            license=stated[1] if stated else own_license,
            meta={"path": named},
        )


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
    names = (p for p in sorted(root.iterdir()) if p.is_file() and re.match(r"(?i)licen[sc]e|copying", p.name))
    for path in names:
        start = " ".join(path.read_bytes()[:8000].decode("utf-8", "replace").split())
        for pattern, identifier in LICENSES:
            if re.search(pattern, start, re.I):
                return identifier
    return ""


def _read(root: Path, path: str, said: dict[str, bool]) -> tuple[str, str]:
    """(why the file is left out, "") or ("", its text). said: what `.gitattributes` say comes first."""
    *folders, name = Path(path).parts
    named = set(folders)
    looks_vendored = any(folder.startswith(".") for folder in folders) or not named.isdisjoint(VENDORED)
    if said.get("vendored", looks_vendored):
        return "vendored", ""
    if not named.isdisjoint(TESTS) or name.startswith("test_") or Path(name).stem.endswith("_test"):
        return "test", ""
    if not named.isdisjoint(APPLICATIONS):
        return "application", ""
    if (root / path).stat().st_size > MAX_FILE_BYTES:
        return f"longer than {MAX_FILE_BYTES:,} bytes", ""
    try:
        text = (root / path).read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        return f"not readable as UTF-8: {type(error).__name__}", ""
    looks_generated = GENERATED.search(text[:HEAD]) or max(map(len, text.splitlines()), default=0) > 1000
    if said.get("generated", looks_generated):
        return "generated", ""
    return ("", text.strip("\n") + "\n") if text.strip() else ("empty", "")
