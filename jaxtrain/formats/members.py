"""Compressed files of several members (gzip, bzip2, xz, Zstandard): reading goes on behind a damaged one.

WARC files have a gzip member a record, dumps of Wikipedia a bzip2 stream for a hundred pages, pzstd a frame
for a few megabytes. All that stands before a damage is given, however much was decompressed at once.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import IO, Any, NamedTuple

_PIECE = 1 << 12  # decompressed bytes that are asked for at once
_TRIED = 1 << 14  # compressed bytes by which a member is told from bytes that only look like one
_DICTIONARY = b"\x5d\x2a\x4d\x18"  # the frame in front of a WARC file of Zstandard that holds its dictionary


class Codec(NamedTuple):
    """A compression: how a member begins, what decompresses one, how many bytes that takes at once."""

    end: str
    """Of the names of its files."""
    magic: bytes
    new: Callable[[IO[bytes]], Any]
    chunk: int


def _zstandard(file: IO[bytes]) -> Any:
    import zstandard  # of an extra

    dictionary, at = b"", file.tell()
    file.seek(0)
    if file.read(4) == _DICTIONARY:
        dictionary = file.read(struct.unpack("<I", file.read(4))[0])
        if dictionary.startswith(_ZSTANDARD):
            dictionary = zstandard.ZstdDecompressor().decompressobj().decompress(dictionary)
    file.seek(at)
    return zstandard.ZstdDecompressor(zstandard.ZstdCompressionDict(dictionary)).decompressobj()


_ZSTANDARD = b"\x28\xb5\x2f\xfd"
# A kilobyte of Zstandard may hold 32 MB: the object has no other bound.
CODECS = (
    Codec(".gz", b"\x1f\x8b\x08", lambda file: zlib.decompressobj(16 + zlib.MAX_WBITS), 1 << 16),
    Codec(".bz2", b"BZh", lambda file: bz2.BZ2Decompressor(), 1 << 10),
    Codec(".xz", b"\xfd7zXZ\x00", lambda file: lzma.LZMADecompressor(memlimit=1 << 28), 1 << 12),
    Codec(".zst", _ZSTANDARD, _zstandard, 1 << 10),
    *(Codec("", struct.pack("<I", 0x184D2A50 + n), _zstandard, 1 << 10) for n in range(16)),
)


def codec_of(start: bytes) -> Codec | None:
    """The compression of a file, by its first bytes; None: it is not compressed."""
    return next((codec for codec in CODECS if start.startswith(codec.magic)), None)


def named(name: str) -> Codec | None:
    """The compression that the ending of a file's name speaks for."""
    return next((codec for codec in CODECS if codec.end and name.lower().endswith(codec.end)), None)


class Members:
    """Iterates over the decompressed bytes from the member at `offset` on, up to the end or a damage."""

    def __init__(self, file: IO[bytes], codec: Codec, offset: int) -> None:
        self._file, self._codec = file, codec
        self.start = offset
        """Place in the file of the member that is being read."""
        self.damage = ""
        """What is wrong with that member, once the iteration has ended; empty at the end of the file."""

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self.start)
        waiting = self._file.read(self._codec.chunk)
        while waiting:
            member = self._codec.new(self._file)
            while not member.eof and waiting:
                try:
                    yield from self._pieces(member, waiting)
                except Exception as error:  # each library has its own
                    self.damage = type(error).__name__
                    return
                waiting = b"" if member.eof else self._file.read(self._codec.chunk)
            if not member.eof:
                self.damage = "EOFError"
                return
            waiting = member.unused_data
            self.start = self._file.tell() - len(waiting)
            if not waiting.strip(b"\0"):  # padding between members
                waiting = self._file.read(self._codec.chunk)
            waiting = waiting.lstrip(b"\0")
            if waiting and len(waiting) < 8:
                waiting += self._file.read(self._codec.chunk)
            if waiting and codec_of(waiting) is None:
                self.damage = "bytes behind the last member"
                return

    def _pieces(self, member: Any, data: bytes) -> Iterator[bytes]:
        before, given = member.copy() if hasattr(member, "copy") else None, 0
        try:
            for piece in _pieces(member, data, _PIECE):
                given += len(piece)
                yield piece
        except zlib.error:
            # The piece in which the damage lies is lost with the error: byte by byte it is not.
            with suppress(zlib.error):
                yield from islice(_pieces(before, data, 1), given, None)
            raise


def _pieces(member: Any, data: bytes, most: int) -> Iterator[bytes]:
    """What a decompressor makes of some bytes, `most` at a time; that of Zstandard knows no bound."""
    bound = (most,) if hasattr(member, "copy") or hasattr(member, "needs_input") else ()
    while True:
        if piece := member.decompress(data, *bound):
            yield piece
        data = getattr(member, "unconsumed_tail", b"")
        if member.eof or not bound or getattr(member, "needs_input", not data and len(piece) < most):
            return


def next_member(file: IO[bytes], codec: Codec, offset: int) -> int | None:
    """Place of the first member at or behind `offset` that can be read a while; None: there is no more."""
    while True:
        file.seek(offset)
        data = file.read((1 << 18) + _TRIED)
        at = data.find(codec.magic)
        while 0 <= at < 1 << 18:
            member = codec.new(file)
            with suppress(Exception):  # each library has its own
                if sum(map(len, _pieces(member, data[at : at + _TRIED], _PIECE))) or not member.eof:
                    return offset + at
            at = data.find(codec.magic, at + 1)
        if len(data) < (1 << 18) + _TRIED:
            return None
        offset += 1 << 18
