"""A folder of source code to its files, one document each; generated, vendored and test files stay out."""

import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from jaxtrain.collect.files import Unread
from jaxtrain.document import Document, record_id
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
MAX_FILE_BYTES, HEAD = 400_000, 1000


@dataclass(frozen=True, kw_only=True)
class CodeSource:
    """Files of a folder."""

    name: str
    """Name of the source and of its file."""
    folder: str
    """Where the code is; `stdlib` is the standard library of the Python that runs."""
    license: str = ""
    """SPDX identifier of files that do not state their own."""
    max_bytes: int = 4_000_000
    """UTF-8 bytes to take. Which files: in the order of a hash of their paths, the same on every machine."""


def root_of(source: CodeSource) -> Path:
    """The folder to read."""
    root = Path(sysconfig.get_paths()["stdlib"] if source.folder == STDLIB else source.folder)
    if not root.is_dir():
        raise UserError(f"source {source.name!r}: no folder {root}")
    return root


def read_code(source: CodeSource, unread: Unread) -> Iterator[Document]:
    """A document a file, by path; `unread` counts the files left out by reason."""
    root = root_of(source)
    paths = [p.relative_to(root).as_posix() for p in _walk(root) if p.suffix in LANGUAGES]
    taken: dict[str, str] = {}
    left = source.max_bytes
    for path in sorted(paths, key=lambda p: blake2b(p.encode()).digest()):
        reason, text = _read(root, path)
        if not reason and len(text.encode()) > left:
            reason = f"beyond {source.max_bytes:,} bytes"
        if reason:
            unread[reason] += 1
        else:
            taken[path] = text
            left -= len(text.encode())
    for path, text in sorted(taken.items()):
        stated = SPDX.search(text[:HEAD])
        url = f"{Path(source.folder).name}/{path}"
        yield Document(
            id=record_id(source.name, path),
            text=text,
            source=source.name,
            url=url,
            language=LANGUAGES[Path(path).suffix],
            license=stated[1] if stated else source.license,
            meta={"path": path},
        )


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and path.name not in INSTALLED:
            yield from _walk(path)
        elif path.is_file():
            yield path


def _read(root: Path, path: str) -> tuple[str, str]:
    """(why the file is left out, "") or ("", its text)."""
    *folders, name = Path(path).parts
    named = set(folders)
    if any(folder.startswith(".") for folder in folders) or not named.isdisjoint(VENDORED):
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
    if GENERATED.search(text[:HEAD]) or max(map(len, text.splitlines()), default=0) > 1000:
        return "generated", ""
    return ("", text.strip("\n") + "\n") if text.strip() else ("empty", "")
