"""Input files: found by path, decompressed by their first bytes, read as lines, JSON records or whole texts.

Every reader here is bounded: a record or file beyond `MAX_RECORD` is counted and skipped, however small it
was while compressed.
"""

import codecs
import glob
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from jaxtrain.formats import encoding as encodings
from jaxtrain.formats.members import Members, codec_of, named, next_member
from jaxtrain.runtime.errors import UserError

Unread = Counter[str]
"""Reason -> how many records were there and could not be read."""

MAX_RECORD = 64_000_000  # bytes of one record, page or text file
TOO_LONG = f"longer than {MAX_RECORD // 1_000_000} MB"
_NO_TEXT = re.compile(rb"[\0-\x08\x0e-\x1f]")
_HIDDEN = (".", "_")  # how names of files begin that belong to a program


class Unreadable(ValueError):
    """A record or file that is left out; the message is the reason that is counted."""


def find(source: str, paths: tuple[str, ...], ends: tuple[str, ...] = ()) -> list[Path]:
    """The files that `paths` (files, folders, glob patterns) name, sorted; UserError for one that names none.

    ends: how the names of a folder's files end, compressed or not; empty: all of them count.
    """
    found: set[str] = set()
    for pattern in paths:
        matches = {pattern, *glob.glob(pattern, recursive=True)}  # noqa: PTH207 (Path.glob: relative only)
        files = {name for name in matches if Path(name).is_file()}
        for folder in filter(os.path.isdir, matches if not files else ()):
            files |= {str(path) for path in _in_folder(Path(folder), ends)}
        if not files:
            kinds = f" that ends in {', '.join(ends)}" if ends and Path(pattern).is_dir() else ""
            where = "paths are relative to where you run jaxtrain"
            raise UserError(f"source {source!r}: no file at {pattern}{kinds}; {where}")
        found |= files
    if not found:
        raise UserError(f"source {source!r} has no paths; name at least one file or folder")
    return [Path(name) for name in sorted(found)]


def _in_folder(folder: Path, ends: tuple[str, ...]) -> Iterator[Path]:
    for path in folder.rglob("*"):
        is_hidden = any(part.startswith(_HIDDEN) for part in path.relative_to(folder).parts)
        if not is_hidden and path.is_file() and (not ends or kind_of(path.name) in ends):
            yield path


def kind_of(name: str) -> str:
    """The ending of a file's name in lower case, without that of its compression: `.xml` of `a.XML.bz2`."""
    path = Path(name.lower())
    return path.with_suffix("").suffix if path.suffix in (".gz", ".bz2", ".xz", ".zst") else path.suffix


def shown(path: Path | str) -> str:
    """The name of a file as text; bytes that are no UTF-8 become `\\udc..`."""
    return Path(path).name.encode("utf-8", "backslashreplace").decode()


def is_url(path: str) -> bool:
    return "://" in path


class _Stream(io.RawIOBase):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self._piece = iter(pieces), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b""))
        size = min(len(buffer), len(self._piece))
        buffer[:size], self._piece = self._piece[:size], self._piece[size:]
        return size


class Stretch(io.BufferedReader):
    """The decompressed bytes of a file up to its end or its next damage."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__(_Stream(pieces), 1 << 16)
        self._of = pieces

    @property
    def damage(self) -> str:
        """What ended it, once it has been read; empty: the end of the file."""
        return self._of.damage if isinstance(self._of, Members) else ""


def stretches(path: Path | str, unread: Unread) -> Iterator[Stretch]:
    """A file or fsspec URL, decompressed: one stretch, and another behind each damage, which is counted."""
    with opened(path) as file:
        yield from stretches_of(file, shown(path), unread)


def stretches_of(file: IO[bytes], name: str, unread: Unread) -> Iterator[Stretch]:
    """The stretches of a file that is open, as of one within a zip archive."""
    start = file.read(128)  # behind as many bytes a plain WARC file may hold a packed page
    codec, at = codec_of(start), cast(int | None, 0)
    if codec is None and _NO_TEXT.search(start) and (codec := named(name)):
        # The first bytes may be what is damaged.
        at = next_member(file, codec, 0)
        if at is not None:
            unread[f"{name} is damaged at a place: its beginning"] += 1
    file.seek(0)
    if codec is None or at is None:
        yield Stretch(iter(lambda: file.read(1 << 16), b""))
        return
    while at is not None:
        members = Members(file, codec, at)
        stretch = Stretch(members)
        yield stretch
        while stretch.read(1 << 16):
            pass
        if not members.damage:
            return
        at = next_member(file, codec, members.start + 1)
        unread[f"{name} is damaged {'at a place' if at else 'from here on'}: {members.damage}"] += 1


@contextmanager
def open_bytes(path: Path | str) -> Iterator[Stretch]:
    """A file decompressed up to its end or its first damage."""
    with closing(stretches(path, Unread())) as found:
        yield next(found)


def opened(path: Path | str) -> IO[bytes]:
    """A file or fsspec URL as it is."""
    if not is_url(str(path)):
        return Path(path).open("rb")
    import fsspec

    return cast(IO[bytes], fsspec.open(str(path), "rb").open())


def read_bytes(path: Path | str, unread: Unread) -> bytes:
    """A whole file, decompressed; Unreadable where it is too long or its first member is damaged."""
    for stretch in stretches(path, unread):
        data = stretch.read(MAX_RECORD + 1)
        if len(data) > MAX_RECORD or stretch.read(1):
            raise Unreadable(TOO_LONG)
        if stretch.damage and stretch.damage != "bytes behind the last member":
            raise Unreadable(f"{shown(path)} is damaged: {stretch.damage}")
        return data
    return b""


def lines(file: IO[bytes], unread: Unread) -> Iterator[bytes]:
    """Lines that are not blank; one beyond `MAX_RECORD` is counted and passed over without holding it."""
    while line := file.readline(MAX_RECORD):
        if len(line) == MAX_RECORD and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_RECORD)) and not rest.endswith(b"\n"):
                pass
            unread[TOO_LONG] += 1
        elif line.strip():
            yield line


def as_utf8(file: Stretch, encoding: str = "") -> Stretch:
    """The stretch without its byte order mark; recoded where that, or `encoding`, says UTF-16 or UTF-32."""
    mark = encodings.mark_of(file.peek(4)[:4])
    if mark == "utf-8-sig":
        file.read(3)
    if not (mark or encoding).startswith(("utf-16", "utf-32")):
        return file
    pieces = codecs.iterdecode(iter(lambda: file.read(1 << 16), b""), mark or encoding, "replace")
    return Stretch(filter(None, (piece.encode("utf-8", "replace") for piece in pieces)))


def json_records(path: Path | str, unread: Unread) -> Iterator[dict[str, Any]]:
    """The objects of a JSON array or of JSON lines; what is not an object is counted in `unread`."""
    for stretch in stretches(path, unread):
        text = as_utf8(stretch)
        is_array = text.peek(4096).lstrip(b" \t\r\n").startswith(b"[")
        for record in _array(text, shown(path), unread) if is_array else map(_value, lines(text, unread)):
            if isinstance(record, dict):
                yield record
            else:
                unread["not a JSON object"] += 1


def _value(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _array(file: Stretch, name: str, unread: Unread) -> Iterator[Any]:
    """The elements of a JSON array, one in memory at a time; behind a bad one those like the first."""
    decoder, reading = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text, at, size, ended = "", 0, 1 << 16, False
    known: set[str] = set()
    opening = re.compile(r"\s*\[?[\s,]*")
    while True:
        at += len(opening.match(text, at)[0])  # type: ignore[index]
        element, end = None, 0
        with suppress(ValueError, RecursionError):
            element, end = decoder.raw_decode(text, at)
        if end and (end < len(text) or ended):
            names = set(element) if isinstance(element, dict) else set[str]()
            if not known or not isinstance(element, dict) or known & names:
                yield element
            known, at, size, opening = known or names, end, 1 << 16, re.compile(r"[\s,]*")
        elif not ended and len(text) - at <= MAX_RECORD:
            data = file.read(size)
            text, at = text[at:] + reading.decode(data, not data), 0
            # Twice as much each time, so that an element of any length is begun a few times only.
            ended, size = not data, size * 2
        elif text[at : at + 1] in ("]", "") and not text[at + 1 :].strip():
            return
        else:
            following = re.compile(r"\}\s*,\s*(?=\{)").search(text, at)
            unread[f"an element of {name} that is no JSON"] += 1
            at = following.end() if following else len(text)
