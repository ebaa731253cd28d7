"""Input files: found by path or URL, decompressed by their first bytes, read as JSON records or whole texts.

Every reader here is bounded: a record or file beyond `MAX_RECORD` is counted and skipped, however small it
was while compressed.
"""

import bz2
import codecs
import glob
import gzip
import io
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import fsspec
import pyarrow as pa

from jaxtrain.runtime.errors import UserError

Unread = Counter[str]
"""Reason -> how many records were there and could not be read."""

MAX_RECORD = 64_000_000  # bytes of one record, page or text file
TOO_LONG = f"longer than {MAX_RECORD // 1_000_000} MB"
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# What a cut or garbled file raises.
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, UnicodeDecodeError, pa.ArrowException)


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


def is_url(path: str) -> bool:
    return "://" in path


def open_bytes(path: Path | str) -> io.BufferedReader:
    """Open a file or fsspec URL for reading; gzip, bzip2, xz and Zstandard are told by their first bytes."""
    url = is_url(str(path))
    raw = cast(IO[bytes], fsspec.open(str(path), "rb").open()) if url else Path(path).open("rb")  # noqa: SIM115
    try:
        start = raw.read(6)
        raw.seek(0)
    except BaseException:
        raw.close()
        raise
    if start.startswith(_ZSTANDARD):
        return io.BufferedReader(_Closing(pa.CompressedInputStream(raw, "zstd"), raw))
    for magic, opener in _OPENERS.items():
        if start.startswith(magic):
            return io.BufferedReader(_Closing(opener(raw, "rb"), raw))
    return raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(_Closing(raw, raw))


class _Closing(io.RawIOBase):
    """A decompressing stream that closes the file below it too."""

    def __init__(self, stream: Any, below: IO[bytes]) -> None:
        self._stream, self._below = stream, below

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._stream.close()
            self._below.close()


def read_text(path: Path, unread: Unread) -> str | None:
    """A whole text file as UTF-8, or as its byte order mark says; None, and a reason, where that fails."""
    try:
        with open_bytes(path) as file:
            data = file.read(MAX_RECORD + 1)
    except DAMAGED as error:
        unread[f"{path.name} is damaged: {type(error).__name__}"] += 1
        return None
    if len(data) > MAX_RECORD:
        unread[TOO_LONG] += 1
        return None
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        unread[f"{path.name} is damaged: {type(error).__name__}"] += 1
        return None


def lines(file: IO[bytes], unread: Unread) -> Iterator[bytes]:
    """Lines that are not blank; one beyond `MAX_RECORD` is counted and passed over without holding it."""
    while line := file.readline(MAX_RECORD):
        if len(line) == MAX_RECORD and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_RECORD)) and not rest.endswith(b"\n"):
                pass
            unread[TOO_LONG] += 1
        elif line.strip():
            yield line


def json_records(path: Path | str, unread: Unread) -> Iterator[dict[str, Any]]:
    """The objects of a JSON array or of JSON lines; what is not an object is counted in `unread`."""
    name = Path(path).name
    try:
        with open_bytes(path) as file:
            if file.peek(4096).lstrip(codecs.BOM_UTF8 + b" \t\r\n").startswith(b"["):
                data = file.read(MAX_RECORD * 4 + 1)
                if len(data) > MAX_RECORD * 4:
                    unread[f"{name} is an array of more than 256 MB; make it JSON lines"] += 1
                    return
                records: Iterator[Any] = iter(json.loads(data))
            else:
                records = map(_parse, lines(file, unread))
            for record in records:
                if isinstance(record, dict):
                    yield record
                else:
                    unread["not a JSON object"] += 1
    except (*DAMAGED, json.JSONDecodeError) as error:
        unread[f"{name} is damaged from here on: {type(error).__name__}"] += 1


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
