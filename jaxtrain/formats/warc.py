"""WARC records (ISO 28500) and the HTTP messages in them, as any writer made them.

Chunks and content encodings are undone here, because many archives keep the headers of a body that they had
decoded already: where a decoding fails, the body is taken as it is. Behind a record whose length is wrong the
reading goes on at the next one.
"""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import brotli
import zstandard

from jaxtrain.formats import files
from jaxtrain.formats.files import MAX_RECORD, TOO_LONG, Stretch, Unread, Unreadable, shown

_MAX_HEAD = 1 << 20
_BLANK = re.compile(rb"\r?\n\r?\n")
_NEXT = re.compile(rb"(?:\A|\n)(?=WARC/[01]\.\d+\r?\n)")
_ARC = re.compile(rb"[a-z]+:\S+ \S+ \d{14} \S+ \d+\r?\n")
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]{0,1000})?\r?\n")
_BEGINS = re.compile(rb"WARC/|[a-z]+:\S+ ")
CUT = "record cut short or wrongly encoded"


@dataclass(frozen=True)
class Warc:
    """One record: its type, its headers by lower-case name, and its block."""

    headers: dict[str, str]
    block: bytes

    @property
    def type(self) -> str:
        return self.headers.get("warc-type", "").lower()


@dataclass(frozen=True)
class Http:
    """A response: status, headers by lower-case name (the first of each), and the decoded body."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def records(path: Path, unread: Unread) -> Iterator[Warc]:
    """Every record that is whole, in the order of the file; of a WACZ file those of its archives."""
    if path.suffix.lower() != ".wacz":
        for stretch in files.stretches(path, unread):
            yield from _records(_Buffer(stretch), shown(path), unread)
        return
    with zipfile.ZipFile(path) as package:
        for member in sorted(name for name in package.namelist() if files.kind_of(name) == ".warc"):
            name = f"{shown(path)} {member}"
            with package.open(member) as file:
                for stretch in files.stretches_of(file, name, unread):
                    yield from _records(_Buffer(stretch), name, unread)


class _Buffer:
    """A stream to which something can be put back."""

    def __init__(self, stream: Stretch) -> None:
        self.stream, self._back = stream, list[memoryview]()

    def read(self, size: int) -> bytes:
        pieces: list[bytes] = []
        while self._back and size:
            top = self._back.pop()
            pieces.append(bytes(top[:size]))
            self.put_back(top[size:])
            size -= len(pieces[-1])
        return b"".join([*pieces, self.stream.read(size)])

    def put_back(self, data: bytes | memoryview) -> None:
        if data:
            self._back.append(memoryview(data))


def _records(file: _Buffer, name: str, unread: Unread) -> Iterator[Warc]:
    sound = True
    while data := file.read(1 << 12):
        data = data.lstrip(b"\r\n")
        if not data:
            continue
        if line := _ARC.match(data):
            headers, data = _of_arc(line), data[line.end() :]
        elif data.startswith(b"WARC/"):
            head, data = _head(file, data)
            headers = _headers(head)
        else:
            if sound:
                unread[f"{name} is damaged at a place: no record begins there"] += 1
                sound = False
            found = _NEXT.search(data)
            # The last bytes may be the beginning of a record.
            file.put_back(data[found.start() :] if found else data[-16:] if len(data) > 16 else b"")
            continue
        file.put_back(data)
        length = headers.get("content-length", "")
        if sound := length.isascii() and length.isdigit():
            yield from _with_block(file, headers, int(length), unread)
        else:
            unread[f"{name} is damaged at a place: a record without its length"] += 1


def _with_block(file: _Buffer, headers: dict[str, str], length: int, unread: Unread) -> Iterator[Warc]:
    """The record with its block of `length` bytes. What follows tells whether the length is right."""
    block = file.read(min(length, MAX_RECORD + 1))
    left = length - len(block)
    while left and (skipped := file.read(min(left, 1 << 20))):
        left -= len(skipped)
    trailer = file.read(64)
    file.put_back(trailer)
    ended = trailer.startswith(b"\r\n\r\n") and not trailer.strip(b"\r\n")
    if left or not ended and not _BEGINS.match(trailer.lstrip(b"\r\n")):
        # The length is wrong if a record begins within what was taken for this one.
        following = _NEXT.search(block + trailer)
        if following and following.start() < len(block):
            file.put_back(block[following.start() :])
            block, left = block[: following.start()].rstrip(b"\r\n"), 0
    if left or not trailer and file.stream.damage:
        unread[CUT] += 1
    elif len(block) > MAX_RECORD:
        unread[TOO_LONG] += 1
    else:
        yield Warc(headers, block)


def _of_arc(line: re.Match[bytes]) -> dict[str, str]:
    """The headers of a record of WARC's forerunner, which has one line: url, address, date, type, length."""
    url, _, date, kind, length = _text(line[0]).split()
    return {
        "warc-type": "filedesc" if url.startswith("filedesc:") else "response",
        "warc-target-uri": url,
        "warc-date": f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[8:10]}:{date[10:12]}:{date[12:14]}Z",
        "content-type": kind,
        "content-length": length,
    }


def _head(file: _Buffer, data: bytes) -> tuple[bytes, bytes]:
    """The lines up to an empty one, and what was read behind it."""
    while not (end := _BLANK.search(data)) and len(data) < _MAX_HEAD and (more := file.read(1 << 14)):
        data += more
    return (data[: end.start()], data[end.end() :]) if end else (data, b"")


def _headers(head: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    name = ""
    for line in _text(head).split("\n")[1:]:
        if line[:1] in (" ", "\t") and name:  # a folded line
            headers[name] += " " + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            headers.setdefault(name, value.strip())
    return headers


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def http(block: bytes) -> Http:
    """The response in a record's block; Unreadable where its body cannot be decoded."""
    end = _BLANK.search(block, 0, _MAX_HEAD)
    head, body = (block[: end.start()], block[end.end() :]) if end else (block[:_MAX_HEAD], b"")
    status = re.match(rb"HTTP/[\d.]+ +(\d{3})\b", head)
    headers = _headers(head)
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _dechunked(body)
    codings = [headers.get(name, "") for name in ("content-encoding", "transfer-encoding")]
    for label in reversed(",".join(codings).lower().split(",")):
        body = _decoded(body, label.strip())
    return Http(int(status[1]) if status else 0, body, headers)


def _dechunked(body: bytes) -> bytes:
    """The chunks of a body joined; what are no chunks stays as it is, of a cut one what is there."""
    chunks: list[bytes] = []
    at = 0
    while at < len(body):
        size = _CHUNK.match(body, at)
        if size is None:
            return b"".join(chunks) + body[at:] if chunks else body
        at, length = size.end(), int(size[1], 16)
        if not length:
            break
        chunks.append(body[at : at + length])
        at += length
        at += 2 if body[at : at + 2] == b"\r\n" else body[at : at + 1] == b"\n"
    return b"".join(chunks)


def _decoded(body: bytes, label: str) -> bytes:
    """The body without one content encoding (RFC 9110); as it is where that is unknown or not there."""
    decoders = _DECODERS.get(label.removeprefix("x-"), ())
    for decoder in decoders:
        if data := decoder(body):
            if len(data) > MAX_RECORD:
                raise Unreadable(TOO_LONG)
            return data
    # Decoded by the archive already, or of another encoding: text is told by what markup begins with.
    if label not in _PLAIN and body and (b"\0" in body[:1000] or b"<" not in body[:4000]):
        raise Unreadable(CUT)
    return body


def _inflate(bits: int) -> Callable[[bytes], bytes]:
    def inflate(body: bytes) -> bytes:
        data = b""
        while body and len(data) <= MAX_RECORD:
            member = zlib.decompressobj(bits)
            try:
                data += member.decompress(body, MAX_RECORD + 1 - len(data))
            except zlib.error:
                break
            body = member.unused_data
        return data

    return inflate


def _brotli(body: bytes) -> bytes:
    member, data, more = brotli.Decompressor(), b"", body
    try:
        while piece := member.process(more, output_buffer_limit=MAX_RECORD + 1):
            data, more = data + piece, b""
            if len(data) > MAX_RECORD or member.is_finished():
                break
    except brotli.error:
        return b""
    return data


def _zstandard(body: bytes) -> bytes:
    try:
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as stream:
            return stream.read(MAX_RECORD + 1)
    except zstandard.ZstdError:
        return b""


_PLAIN = ("", "identity", "none", "chunked")
_DECODERS: dict[str, tuple[Callable[[bytes], bytes], ...]] = {
    "gzip": (_inflate(16 + zlib.MAX_WBITS),),
    # By the standard with zlib's frame; many servers leave it away.
    "deflate": (_inflate(zlib.MAX_WBITS), _inflate(-zlib.MAX_WBITS)),
    "br": (_brotli,),
    "zstd": (_zstandard,),
}
