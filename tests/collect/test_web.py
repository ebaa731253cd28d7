"""WARC reading, on the crawl in data/quickstart and on damaged copies of it."""

import bz2
import gzip
import io
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import brotli
import pytest
import zstandard
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from jaxtrain.collect import guard
from jaxtrain.collect.guard import read_here
from jaxtrain.collect.web import WebSource, stated_license

CRAWL = Path("data/quickstart/web.warc.gz")


def read(*paths: Path):
    unread = Counter()
    source = WebSource(name="web", paths=tuple(map(str, paths)), license="CC-BY-SA-3.0")
    return list(read_here(source, unread)), unread


def warc(kind: str, block: bytes, url: str = "http://a.example/") -> bytes:
    head = f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-01-02T03:04:05Z\r\n"
    kinds = {"response": "application/http; msgtype=response", "resource": "text/html"}
    head += f"WARC-Record-ID: <urn:uuid:6f6ea9a0-0000-0000-0000-{abs(len(block)):012d}>\r\n"
    head += f"Content-Type: {kinds[kind]}\r\nContent-Length: {len(block)}\r\n\r\n"
    return head.encode() + block + b"\r\n\r\n"


def response(body: bytes, content_type: str = "text/html", status: str = "200 OK") -> bytes:
    return warc("response", f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n\r\n".encode() + body)


def test_pages_of_the_crawl_read_like_pages():
    pages, unread = read(CRAWL)
    by_url = {page.url: page for page in pages}
    assert len(pages) == len(by_url) == 132
    assert unread == {"request record": 5, "warcinfo record": 3}
    mission = by_url["https://creativecommons.org/mission/"]
    assert mission.text.startswith("Who We Are\n\nCreative Commons (CC) is an international nonprofit")
    assert "Donate" not in mission.text  # the banner
    assert mission.license == "CC-BY-4.0" and mission.created == "2024-04-25T16:27:48Z"
    debian = by_url["file:///usr/share/doc/debian-handbook/html/en-US/sect.knoppix.html"]
    assert "first popular distribution to provide a live CD" in debian.text
    assert debian.license == "CC-BY-SA-3.0"
    assert not any(
        "</p>" in page.text for page in pages if "selinux" not in page.url
    )  # whose example has some


@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "plain"])
def test_a_cut_file_keeps_whole_pages_and_says_so(tmp_path, packed):
    whole = {page.id: page.text for page in read(CRAWL)[0]}
    raw = CRAWL.read_bytes() if packed else gzip.decompress(CRAWL.read_bytes())
    for share in (0.2, 0.5, 0.8):
        cut = tmp_path / "cut.warc"
        cut.write_bytes(raw[: int(len(raw) * share)])
        pages, unread = read(cut)
        assert 0 < len(pages) < len(whole)
        assert all(whole[page.id] == page.text for page in pages)
        assert any("damaged" in reason or "cut short" in reason for reason in unread), unread


@pytest.mark.parametrize("content", [b"", b"not a warc at all\n" * 400, bytes(range(256)) * 40])
def test_a_file_without_records_says_so(tmp_path, content):
    bad = tmp_path / "bad.warc.gz"
    bad.write_bytes(content)
    pages, unread = read(bad, CRAWL)
    assert len(pages) == 132, "one bad file must not take the others along"
    assert unread["bad.warc.gz holds no readable WARC record"] == 1


def test_a_flipped_block_is_told(tmp_path):
    raw = bytearray(CRAWL.read_bytes())
    raw[300_000:301_000] = bytes(1000)
    bad = tmp_path / "flipped.warc.gz"
    bad.write_bytes(raw)
    pages, unread = read(bad)
    assert 0 < len(pages) < 132
    assert any(reason.startswith("flipped.warc.gz is damaged") for reason in unread)


def test_other_content_is_counted_by_type_and_status(tmp_path):
    page = b"<html><body><main><p>Some words that stand on a page.</p></main></body></html>"
    crawl = tmp_path / "mixed.warc"
    crawl.write_bytes(
        response(page, status="404 Not Found")
        + response(b"\x89PNG", "image/png")
        + response(b"<html><body></body></html>")
        + warc("resource", page)
        + response(page, "text/html; charset=utf-8")
    )
    pages, unread = read(crawl)
    assert [p.text for p in pages] == ["Some words that stand on a page."] * 2
    assert unread == {"HTTP status 404": 1, "not HTML: image/png": 1, "no main text on the page": 1}


@pytest.mark.parametrize(
    ("content_type", "meta", "encoding"),
    [
        ("text/html; charset=windows-1251", "", "cp1251"),
        ("text/html", '<meta charset="iso-8859-2">', "iso-8859-2"),
        ("text/html", "", "utf-8"),
        ("text/html", '<meta charset="shift_jis">', "shift_jis"),
        ("text/html", "", "euc-kr"),
    ],
)
def test_encodings(tmp_path, content_type, meta, encoding):
    sentence = {
        "cp1251": "Съешь ещё этих мягких французских булок",
        "iso-8859-2": "Příliš žluťoučký kůň úpěl",
        "utf-8": "naïve façade — “quoted”",
        "shift_jis": "これは日本語の文章です。",
        "euc-kr": "이것은 한국어 문장입니다. 바다와 바람에 대해 씁니다.",
    }[encoding]
    html = f"<html><head>{meta}</head><body><main><p>{sentence}</p></main></body></html>"
    crawl = tmp_path / "page.warc"
    crawl.write_bytes(response(html.encode(encoding), content_type))
    pages, _ = read(crawl)
    assert [p.text for p in pages] == [sentence]


@pytest.mark.parametrize(
    ("html", "license"),
    [
        (
            '<a href="https://creativecommons.org/licenses/by-sa/4.0/" rel="license noopener">x</a>',
            "CC-BY-SA-4.0",
        ),
        ('<link rel="license" href="https://creativecommons.org/publicdomain/zero/1.0/">', "CC0-1.0"),
        ('content on this site is licensed under a <a href="/licenses/by/4.0/">Creative', "CC-BY-4.0"),
        ('the photo “Cats” is by <a href="https://creativecommons.org/licenses/by-nc/2.0/">CC BY-NC</a>', ""),
        ("<p>All rights reserved</p>", ""),
    ],
)
def test_only_a_licence_for_the_page_itself_counts(html, license):
    assert stated_license(html) == license


def archive(path: Path, packed: bool, headers: list[tuple[str, str]], encode, version: str = "1.0") -> None:
    """Three pages as warcio writes them, their bodies encoded behind some headers."""
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=packed, warc_version=version)
        for n in range(3):
            page = f"<html><body><main><p>Page {n} says some words – in order.</p></main></body></html>"
            http = StatusAndHeaders("200 OK", [("Content-Type", "text/html"), *headers], protocol="HTTP/1.1")
            body = io.BytesIO(encode(page.encode()))
            record = writer.create_warc_record(
                f"http://a.example/{n}", "response", payload=body, http_headers=http
            )
            writer.write_record(record)


def in_chunks(body: bytes) -> bytes:
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def deflated(body: bytes) -> bytes:
    return zlib.compress(body)[2:-4]


CHUNKED, GZIP = ("Transfer-Encoding", "chunked"), ("Content-Encoding", "gzip")


@pytest.mark.parametrize(
    ("packed", "headers", "encode"),
    [
        (True, [], bytes),
        (False, [], bytes),
        (True, [CHUNKED], in_chunks),
        (True, [CHUNKED], bytes),  # pywb and WACZ keep headers of a body that they decoded
        (True, [CHUNKED, GZIP], lambda b: in_chunks(gzip.compress(b))),
        (False, [CHUNKED, GZIP], gzip.compress),
        (False, [GZIP], bytes),
        (True, [("Content-Encoding", "br")], brotli.compress),
        (True, [("Content-Encoding", "zstd")], zstandard.compress),
        (True, [("Content-Encoding", "deflate")], zlib.compress),
        (False, [("Content-Encoding", "deflate")], deflated),
        (False, [("Content-Encoding", "none")], bytes),
        (True, [("Transfer-Encoding", "gzip, chunked")], lambda b: in_chunks(gzip.compress(b))),
        (True, [("Content-Encoding", "x-gzip")], gzip.compress),
        (True, [("Content-Type", "text/html; charset=utf8mb4")], bytes),
    ],
)
@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")  # of warcio's writer
def test_as_many_pages_as_warcio_reads(tmp_path, packed, headers, encode):
    archive(tmp_path / "a.warc.gz", packed, headers, encode)
    with (tmp_path / "a.warc.gz").open("rb") as file:
        theirs = sum(record.rec_type == "response" for record in ArchiveIterator(file))
    pages, unread = read(tmp_path / "a.warc.gz")
    assert len(pages) == theirs == 3 and not unread
    assert [page.text for page in pages] == [f"Page {n} says some words – in order." for n in range(3)]


@pytest.mark.parametrize("pack", [bz2.compress, zstandard.compress])
@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")
def test_archives_of_other_compressions_and_in_wacz(tmp_path, pack):
    archive(tmp_path / "plain.warc", False, [], bytes)
    (tmp_path / "a.warc.packed").write_bytes(pack((tmp_path / "plain.warc").read_bytes()))
    with zipfile.ZipFile(tmp_path / "a.wacz", "w") as package:
        package.write(tmp_path / "plain.warc", "archive/data.warc")
    for name in ("a.warc.packed", "a.wacz"):
        pages, unread = read(tmp_path / name)
        assert len(pages) == 3 and not unread, name


@pytest.mark.parametrize("size", [10_000, 100_000, 1_000_000])
@pytest.mark.parametrize(
    "part", ["<a ", "<div>", "<article><p>", "/licenses/by/4.0 ", '<a rel="license" ', "<b>"]
)
def test_hostile_pages_of_any_size_are_read_or_counted(tmp_path, part, size):
    """Each within the processor time of one record; with the square of their size these would take hours."""
    page = b"<html><body><main><p>Some words that stand here.</p>" + part.encode() * (size // len(part))
    (tmp_path / "a.warc").write_bytes(response(page))
    unread = Counter()
    pages = list(guard.read(WebSource(name="web", paths=(str(tmp_path / "a.warc"),)), unread))
    assert len(pages) == 1 and not unread
