"""Files of many gzip members, as WARC has one a record: read on behind a member that is damaged.

FastWARC's own reader takes a cut file for its end, and Python's stops at the first damage.
"""

import zlib
from pathlib import Path
from types import TracebackType
from typing import IO

MAGIC = b"\x1f\x8b"
_HEADER = b"\x1f\x8b\x08"
_GZIP = 16 + zlib.MAX_WBITS
_CHUNK = 1 << 18
_FIRST = 512  # compressed bytes that surely hold the first line of a record


class Plain:
    """A file as it is; `start` is where a damage would be looked for."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("rb")
        self.start = 0

    def __enter__(self) -> "Plain":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell()


class Members(Plain):
    """The decompressed bytes from the member at `offset` on; EOFError or zlib.error where one is damaged."""

    def __init__(self, path: Path, offset: int) -> None:
        super().__init__(path)
        self._file.seek(offset)
        self.start = offset
        """Place in the file of the member that is being read."""
        self._member = zlib.decompressobj(_GZIP)
        self._waiting = b""
        self._told = 0
        self._fresh = True  # nothing of this member was read yet

    def read(self, size: int = -1) -> bytes:
        pieces: list[bytes] = []
        while size != 0:
            if not self._waiting:
                self._waiting = self._file.read(_CHUNK)
            if not self._waiting:
                if not self._fresh:
                    raise EOFError("the last gzip member is cut")
                break
            self._fresh = False
            piece = self._member.decompress(self._waiting, max(size, 0))
            self._waiting = self._member.unconsumed_tail
            if self._member.eof:
                self._waiting = self._member.unused_data.lstrip(b"\0")  # padding between members
                self._member, self._fresh = zlib.decompressobj(_GZIP), True
                self.start = self._file.tell() - len(self._waiting)
            pieces.append(piece)
            if size > 0 and piece:
                break
        self._told += sum(map(len, pieces))
        return b"".join(pieces)

    def tell(self) -> int:
        return self._told


def next_record(path: Path, offset: int) -> int | None:
    """Place of the first gzip member at or behind `offset` that begins with a WARC record; None: no more."""
    with path.open("rb") as file:
        while True:
            file.seek(offset)
            data = file.read(_CHUNK + _FIRST)
            at = data.find(_HEADER)
            while 0 <= at < _CHUNK:
                if _begins_record(data[at : at + _FIRST]):
                    return offset + at
                at = data.find(_HEADER, at + 1)
            if len(data) < _CHUNK + _FIRST:
                return None
            offset += _CHUNK


def _begins_record(member: bytes) -> bool:
    try:
        return zlib.decompressobj(_GZIP).decompress(member, 64).startswith(b"WARC/")
    except zlib.error:
        return False
