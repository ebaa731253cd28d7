"""Input files: found by path or pattern, decompressed by their first bytes, read as JSON records."""

import bz2
import glob
import gzip
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from jaxtrain.runtime.errors import UserError

Unread = Counter[str]
"""Reason -> how many records were there and could not be read."""

_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
DAMAGED = (
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    UnicodeDecodeError,
)  # what a cut or garbled file raises


def find(source: str, paths: tuple[str, ...]) -> list[Path]:
    """The files that `paths` (files or glob patterns) name, sorted; UserError for one that names none."""
    found: set[str] = set()
    for pattern in paths:
        matches = [pattern, *glob.glob(pattern, recursive=True)]  # noqa: PTH207 (Path.glob: relative only)
        matches = [name for name in matches if Path(name).is_file()]
        if not matches:
            raise UserError(
                f"source {source!r}: no file at {pattern}; paths are relative to where you run jaxtrain"
            )
        found.update(matches)
    if not found:
        raise UserError(f"source {source!r} has no paths; name at least one file")
    return [Path(name) for name in sorted(found)]


def open_bytes(path: Path) -> IO[bytes]:
    """Open for reading; gzip, bzip2 and xz are told by their first bytes, not by the name."""
    with path.open("rb") as file:
        start = file.read(6)
    for magic, opener in _OPENERS.items():
        if start.startswith(magic):
            return cast(IO[bytes], opener(path, "rb"))
    return path.open("rb")


def json_records(path: Path, unread: Unread) -> Iterator[dict[str, Any]]:
    """The objects of a JSON array or of JSON lines; what is not an object is counted in `unread`."""
    try:
        with open_bytes(path) as file:
            start = file.read(1)
            while start.isspace():
                start = file.read(1)
            file.seek(0)
            records = json.load(file) if start == b"[" else map(_parse, filter(bytes.strip, file))
            for record in records:
                if isinstance(record, dict):
                    yield record
                else:
                    unread["not a JSON object"] += 1
    except (*DAMAGED, json.JSONDecodeError) as error:
        unread[f"{path.name} is damaged from here on: {type(error).__name__}"] += 1


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
