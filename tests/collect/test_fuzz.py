"""Files with bits flipped, parts cut out, put in or moved: what is whole is read, nothing ends the reading.

Each file comes with an oracle: the text of every record, and the bytes of the file that it needs.
"""

import bz2
import gzip
import json
import lzma
import random
import resource
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from reportlab.pdfgen.canvas import Canvas

from jaxtrain.collect import guard
from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.source import FileSource
from jaxtrain.collect.tables import TableSource
from jaxtrain.collect.web import WebSource
from jaxtrain.collect.wiki import WikiSource
from jaxtrain.collect.works import TextSource
from jaxtrain.document import Document

RECORDS = 12
COMPRESSIONS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}


@dataclass(frozen=True)
class File:
    """What is written, where each record lies in it, and whether records behind a damage can be found."""

    name: str
    source: type[FileSource]
    data: bytes
    records: list[tuple[str, int, int]]
    bounded: bool = True
    head: int = 0
    """Bytes at its beginning that all records need: the names of columns."""


def text_of(number: int) -> str:
    return (
        f"Record {number} says that it is the {number}th of several, each with words: "
        + "word, " * number
        + "end."
    )


def joined(name: str, source: type[FileSource], parts: list[tuple[str, bytes]], **more) -> File:
    """A file of parts, each with the text of the record that it is; empty for what is none."""
    records, at = [], 0
    for text, part in parts:
        if text:
            records.append((text, at, at + len(part)))
        at += len(part)
    return File(name, source, b"".join(part for _, part in parts), records, **more)


def packed(file: File, end: str, at_once: int) -> File:
    """The file in members of a compression, each with some of its records."""
    members, records, at = [], [], 0
    for n in range(0, len(file.records), at_once):
        group = file.records[n : n + at_once]
        begin = 0 if n == 0 else group[0][1]
        stop = len(file.data) if group[-1] is file.records[-1] else group[-1][2]
        members.append(COMPRESSIONS[end](file.data[begin:stop]))
        records += [(text, at, at + len(members[-1])) for text, _, _ in group]
        at += len(members[-1])
    return File(f"{file.name}.{end}", file.source, b"".join(members), records, file.bounded)


def lines(render: Callable[[str], object], name: str, source: type[FileSource]) -> File:
    texts = [text_of(n) for n in range(RECORDS)]
    return joined(name, source, [(t, json.dumps(render(t)).encode() + b"\n") for t in texts])


def warc() -> File:
    parts = []
    for n in range(RECORDS):
        html = f"<html><body><main><p>{text_of(n)}</p></main></body></html>".encode()
        block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + html
        head = f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/{n}\r\n"
        head += f"Content-Type: application/http\r\nContent-Length: {len(block)}\r\n\r\n"
        parts.append((text_of(n), head.encode() + block + b"\r\n\r\n"))
    return joined("a.warc", WebSource, parts)


def wiki() -> File:
    head = '<mediawiki xml:lang="en"><siteinfo><base>https://a.example/wiki/X</base></siteinfo>\n'
    page = "<page><title>{0}</title><ns>0</ns><revision><text>{1}</text></revision></page>\n"
    parts = [(f"{n}\n\n{text_of(n)}", page.format(n, text_of(n)).encode()) for n in range(RECORDS)]
    return joined("a.xml", WikiSource, [("", head.encode()), *parts, ("", b"</mediawiki>")])


def whole(name: str, source: type[FileSource], data: bytes) -> File:
    return File(name, source, data, [], bounded=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[File]:
    folder = tmp_path_factory.mktemp("files")
    texts = [text_of(n) for n in range(RECORDS)]
    table = lines(lambda text: {"text": text}, "a.jsonl", TableSource)
    said = lines(lambda t: {"prompt": "Say it.", "response": t}, "chats.jsonl", ChatSource)
    array = [("", b"["), *((t, json.dumps({"text": t}).encode() + b",\n") for t in texts), ("", b"{}]")]
    rows = [("", b"text,number\n"), *((t, f'"{t}",{n}\n'.encode()) for n, t in enumerate(texts))]
    pq.write_table(pa.table({"text": texts}), folder / "a.parquet", row_group_size=4)
    with zipfile.ZipFile(folder / "a.epub", "w", zipfile.ZIP_DEFLATED) as book:
        container = '<container><rootfiles><rootfile full-path="p.opf"/></rootfiles></container>'
        book.writestr("META-INF/container.xml", container)
        items = '<manifest><item id="a" href="a.xhtml"/></manifest><spine><itemref idref="a"/></spine>'
        book.writestr("p.opf", f"<package>{items}</package>")
        book.writestr("a.xhtml", f"<html><body><p>{texts[3]}</p></body></html>")
    canvas = Canvas(str(folder / "a.pdf"), pageCompression=1)
    for n in range(3):
        canvas.drawString(50, 700, texts[n])
        canvas.showPage()
    canvas.save()
    tei = f"<TEI><text><body><p>{texts[2]}</p><lg><l>{texts[1]}</l></lg></body></text></TEI>"
    return [
        table,
        *(packed(table, end, 3) for end in COMPRESSIONS),
        said,
        joined("a.json", TableSource, array, bounded=False),
        joined("a.csv", TableSource, rows, head=len(rows[0][1])),
        warc(),
        packed(warc(), "gz", 1),
        packed(warc(), "zst", 1),
        wiki(),
        packed(wiki(), "bz2", 4),
        *(whole(f"a{end}", TextSource, (folder / f"a{end}").read_bytes()) for end in (".epub", ".pdf")),
        whole("a.parquet", TableSource, (folder / "a.parquet").read_bytes()),
        whole("b.xml", TextSource, tei.encode()),
        whole("a.html", WebSource, warc().data.partition(b"\r\n\r\n")[2]),
        whole("a.txt", TextSource, "\n\n".join(texts).encode()),
    ]


def mutated(data: bytes, rng: random.Random) -> tuple[bytes, int, int]:
    """Another file, the first byte in which it differs, and that behind which it is the same again."""
    at, size = rng.randrange(len(data)), rng.choice((1, 2, 8, 64))
    match rng.randrange(6):
        case 0:
            new = bytes(b ^ (1 << rng.randrange(8)) for b in data[at : at + size])
        case 1:
            return data[:at], at, len(data)
        case 2:
            new = b""
        case 3:
            return data[:at] + rng.randbytes(size) + data[at:], at, at
        case 4:  # a length, a date, a size
            digits = [n for n, byte in enumerate(data) if 48 <= byte < 58]
            at, size = rng.choice(digits or [at]), 1
            new = rng.choice((b"9", b"0", b"99999", b""))
        case _:
            new = "Käse — “ß” 日本".encode(rng.choice(("latin-1", "utf-16", "utf-8", "gb18030")), "replace")
    return data[:at] + new + data[at + size :], at, at + size


def fuzz_all_at_once(file: File, folder: Path, rng: random.Random, times: int) -> None:
    """What a library of C reads may end the process, so it is read in one of its own."""
    folder.mkdir(exist_ok=True)
    for turn in range(times):
        (folder / f"{turn}{file.name}").write_bytes(mutated(file.data, rng)[0])
    unread = Counter()
    records = list(guard.read(file.source(name="f", paths=(str(folder / f"*{file.name}"),)), unread))
    assert records and unread and not any("took more" in reason for reason in unread)


def fuzz(files: list[File], folder: Path, seed: int, times: int) -> dict[str, list[int]]:
    """Of each file: records behind a damage, and how many of them were found."""
    found: dict[str, list[int]] = {}
    for number, file in enumerate(files):
        rng = random.Random(f"{seed} {number}")
        path = folder / file.name
        if file.name.endswith((".parquet", ".pdf")):
            fuzz_all_at_once(file, folder / "all", rng, times)
            continue
        count = found.setdefault(file.name, [0, 0])
        for turn in range(times):
            data, first, last = mutated(file.data, rng)
            path.write_bytes(data)
            unread = Counter()
            records = list(guard.read_here(file.source(name="f", paths=(str(path),)), unread))
            texts = {r.text if isinstance(r, Document) else r.messages[-1]["content"] for r in records}
            missing = [text[:9] for text, _, end in file.records if end <= first and text not in texts]
            assert not missing, (file.name, seed, turn, first, missing, unread)
            if not (records or unread or not data.strip()):
                assert file.bounded or not file.records, (file.name, seed, turn, "lost without a word")
            # The end of the line before a record is its boundary: it has to stand, too.
            behind = [text for text, begin, _ in file.records if begin > last]
            if file.bounded and first >= file.head:
                count[0] += len(behind)
                count[1] += sum(text in texts for text in behind)
            assert not any("took more" in reason or "memory" in reason for reason in unread), unread
    return found


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 21))])
def test_damaged_files_keep_what_is_whole(files, tmp_path, seed):
    times = -(-2000 // len(files))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = fuzz(files, tmp_path, seed, times)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    shares = {name: got / behind for name, (behind, got) in found.items() if behind}
    low = {name: share for name, share in shares.items() if share < 0.99}
    assert len(shares) == 12 and not low, low
