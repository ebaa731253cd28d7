"""Bad files and servers: the run ends, what is readable is kept, the rest is counted with a reason."""

import bz2
import gzip
import io
import json
import lzma
import threading
import time
import zipfile
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxtrain.collect.books import BookSource
from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.code import CodeSource
from jaxtrain.collect.crawl import CommonCrawlSource, SiteSource, crawl
from jaxtrain.collect.download import Politeness, Refused, fetch
from jaxtrain.collect.guard import read_here
from jaxtrain.collect.tables import TableSource
from jaxtrain.collect.web import WebSource
from jaxtrain.formats import files

CRAWL = Path("data/quickstart/web.warc.gz")
QUICK = Politeness(timeout=0.5, tries=3, pause=0.0)


def web(path: Path):
    unread = Counter()
    return list(read_here(WebSource(name="web", paths=(str(path),)), unread)), unread


def table(path: Path, **fields):
    unread = Counter()
    return list(read_here(TableSource(name="table", paths=(str(path),), **fields), unread)), unread


def books(path: Path):
    unread = Counter()
    return list(read_here(BookSource(name="books", paths=(str(path),)), unread)), unread


def test_behind_a_bad_gzip_member_the_reading_goes_on(tmp_path):
    raw = CRAWL.read_bytes()
    starts = [i for i in range(len(raw)) if raw.startswith(b"\x1f\x8b\x08", i)]
    middle = starts[len(starts) // 2]
    bad = bytearray(raw)
    bad[middle + 40 : middle + 80] = bytes(40)
    path = tmp_path / "bad.warc.gz"
    path.write_bytes(bad)
    pages, unread = web(path)
    assert len(pages) in (130, 131)  # all but the one in that member
    assert sum(n for reason, n in unread.items() if "is damaged at a place" in reason) == 1


def test_a_wet_file_gives_its_text(tmp_path):
    body = "Ein Satz über Käse.\nNoch einer.".encode()
    head = (
        "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://a.example/\r\n"
        "WARC-Date: 2020-01-01T00:00:00Z\r\n"
        "WARC-Record-ID: <urn:uuid:6f6ea9a0-0000-0000-0000-000000000001>\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    path = tmp_path / "a.warc.wet.gz"
    path.write_bytes(gzip.compress(head.encode() + body + b"\r\n\r\n"))
    pages, unread = web(path)
    assert [(page.text, page.url) for page in pages] == [(body.decode(), "http://a.example/")]
    assert not unread


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, bz2.compress, lzma.compress, lambda b: pa.compress(b, "zstd", asbytes=True)],
)
def test_tables_of_every_compression(tmp_path, pack):
    rows = [{"text": "one", "url": "http://a/1", "n": 3}, {"text": ""}, {"text": "two", "license": "MIT"}]
    rows.append({"body": "three", "id": 4})
    path = tmp_path / "rows.jsonl.packed"
    path.write_bytes(pack("\n".join(map(json.dumps, rows)).encode()))
    found, unread = table(path, meta=("n",))
    assert [(d.text, d.url, d.license, d.meta) for d in found] == [
        ("one", "http://a/1", "", {"n": 3}),
        ("two", "", "MIT", {}),
    ]
    assert unread == {"no text in column 'text'": 1, "no text in column 'text'; there are body, id": 1}


def test_csv_and_parquet(tmp_path):
    (tmp_path / "rows.csv").write_text('id,tweet\n1,"two\nlines, quoted"\n2,plain\n3\n')
    found, unread = table(tmp_path / "rows.csv", text="tweet")
    assert [d.text for d in found] == ["two\nlines, quoted", "plain"] and unread.total() == 1
    # Excel's first line; a Mac's ends of lines; UTF-16 without a mark; spaces round the names.
    for data in (
        b"sep=|\r\nid|text\r\n1|a;,b\r\n",
        b"id;text\r1;a\r",
        "id,text\n1,ä\n".encode("utf-16-le"),
        b'id , "text"\n1,a\n',
    ):
        (tmp_path / "odd.csv").write_bytes(data)
        found, unread = table(tmp_path / "odd.csv")
        assert len(found) == 1 and not unread, data
    pq.write_table(pa.table({"text": ["a", None, "b"]}), tmp_path / "rows.parquet")
    found, unread = table(tmp_path / "rows.parquet")
    assert [d.text for d in found] == ["a", "b"] and unread.total() == 1
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "rows.parquet").read_bytes()[:60])
    assert table(tmp_path / "cut.parquet") == ([], {"cut.parquet cannot be read: ArrowInvalid": 1})


def test_a_line_of_200_megabytes_is_passed_over(tmp_path):
    path = tmp_path / "long.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(200):
            file.write(b"a" * 1_000_000)
        file.write(b'"}\n{"text": "behind"}\nnot json\n[1]\n\xff\xfe\n' + b"[" * 100_000 + b"\n")
    found, unread = table(path)
    assert [d.text for d in found] == ["before", "behind"]
    assert unread == {files.TOO_LONG: 1, "not a JSON object": 4}


def test_a_bomb_of_a_text_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_RECORD", 1_000_000)
    (tmp_path / "bomb.txt").write_bytes(gzip.compress(b"a" * 20_000_000))
    assert books(tmp_path / "bomb.txt") == ([], {files.TOO_LONG: 1})


def epub(path: Path, pages: dict[str, bytes], spine: list[str], container: str = "OPS/package.opf") -> Path:
    items = "".join(f'<item id="i{n}" href="{name}"/>' for n, name in enumerate(spine))
    order = "".join(f'<itemref idref="i{n}"/>' for n in range(len(spine)))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<dc:title>A Book</dc:title><dc:creator>N. N.</dc:creator><dc:language>en</dc:language></metadata>"
        f"<manifest>{items}</manifest><spine>{order}</spine></package>"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "META-INF/container.xml",
            f'<container><rootfiles><rootfile full-path="{container}"/></rootfiles></container>',
        )
        archive.writestr("OPS/package.opf", package)
        for name, data in pages.items():
            archive.writestr(name, data)
    return path


def test_an_epub_in_its_reading_order(tmp_path):
    pages = {
        "OPS/b.xhtml": b"<html><body><h1>Chapter II</h1><p>Then it ended.</p></body></html>",
        "OPS/a 1.xhtml": "<html><body><h1>Chapter I</h1><p>It began in a café.</p></body></html>".encode(),
    }
    found, unread = books(epub(tmp_path / "good.epub", pages, ["a%201.xhtml", "b.xhtml"]))
    assert [d.text for d in found] == ["Chapter I\n\nIt began in a café.\n\nChapter II\n\nThen it ended."]
    assert found[0].meta["title"] == "A Book" and found[0].language == "en" and not unread


def test_bombs_and_paths_that_leave_an_epub(tmp_path):
    pages = {
        "OPS/good.xhtml": b"<html><body><p>Readable.</p></body></html>",
        "OPS/bomb.xhtml": b"<p>" + b" " * 100_000_000,
        "../../evil.xhtml": b"<p>Evil.</p>",
    }
    spine = ["good.xhtml", "bomb.xhtml", "../../evil.xhtml", "../../../../etc/passwd", "absent.xhtml"]
    begun = time.process_time()
    found, unread = books(epub(tmp_path / "bad.epub", pages, spine))
    assert [d.text for d in found] == ["Readable."]
    assert unread == {
        "a page that unpacks without end": 1,
        "a path that leaves the archive": 2,
        "a page that is not in the archive": 1,
    }
    assert not (tmp_path.parent / "evil.xhtml").exists() and time.process_time() - begun < 60
    (tmp_path / "cut.epub").write_bytes((tmp_path / "bad.epub").read_bytes()[:500])
    assert books(tmp_path / "cut.epub")[1] == {"cut.epub cannot be read: BadZipFile": 1}
    found, unread = books(epub(tmp_path / "out.epub", {}, [], container="../../etc/passwd"))
    assert unread == {"a path that leaves the archive": 1} and not found


def test_tei_without_its_notes_and_entities_that_grow(tmp_path):
    (tmp_path / "work.xml").write_text(
        '<TEI xmlns="http://www.tei-c.org/ns/1.0"><teiHeader><fileDesc><titleStmt><title>Ode</title>'
        "<author>A. B.</author></titleStmt></fileDesc></teiHeader><text><body><head>I</head>"
        "<p>One <hi>line</hi><note>no</note>, and<lb/>more, <quote>as said</quote>.</p>"
        "<item>Of a list<list><item>in a list</item></list></item>"
        "<lg><l>A verse,</l><l>another.</l></lg></body></text></TEI>"
    )
    found, unread = books(tmp_path / "work.xml")
    assert [d.text for d in found] == [
        "I\n\nOne line, and more, as said.\n\nOf a list\n\nin a list\n\nA verse,\n\nanother."
    ] and not unread
    assert found[0].meta["title"] == "Ode"
    (tmp_path / "laughs.xml").write_text(
        '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><TEI><text><p>&b;</p></text></TEI>'
    )
    assert books(tmp_path / "laughs.xml")[1] == {"an XML file that defines entities": 1}


def test_wrong_encodings(tmp_path):
    (tmp_path / "sixteen.txt").write_bytes("Ein Käse.".encode("utf-16"))
    assert [d.text for d in books(tmp_path / "sixteen.txt")[0]] == ["Ein Käse."]
    (tmp_path / "latin.txt").write_bytes("Ein Käse.".encode("latin-1"))
    assert [d.text for d in books(tmp_path / "latin.txt")[0]] == ["Ein Käse."]


def test_links_in_a_code_folder_are_not_followed(tmp_path):
    root = tmp_path / "repository"
    (root / "src").mkdir(parents=True)
    (root / "LICENSE").write_text(
        "MIT License\n\nPermission is hereby granted, free of\ncharge, to any person"
    )
    (root / "src/a.py").write_text("x = 1\n")
    (root / "src/loop").symlink_to(root)
    (tmp_path / "secret.py").write_text("password = 1\n")
    (root / "src/out.py").symlink_to(tmp_path / "secret.py")
    (root / "src/gone.py").symlink_to(tmp_path / "nowhere.py")
    unread = Counter()
    found = list(read_here(CodeSource(name="code", folder=str(root)), unread))
    assert [(f.meta["path"], f.license) for f in found] == [("src/a.py", "MIT")]
    assert unread == {"a symbolic link": 3}


class Site(BaseHTTPRequestHandler):
    """A site with every fault; what was asked for is in `asked`."""

    asked: list[str] = []
    crawl = CRAWL.read_bytes()
    flaky = 0

    def do_GET(self) -> None:
        Site.asked.append(self.path)
        links = {
            "/": [
                "/a",
                "/private/x",
                "/stalls",
                "/gone",
                "http://other.example/",
                "/b#part",
                "http://[",
                "/big",
            ],
            "/a": ["/", "/c"],
            "/c": ["/d"],
        }
        match self.path:
            case "/robots.txt":
                odd = b"Crawl-delay: \xc2\xb2\nRequest-rate: \xc2\xb2/1\nAllow: //[\n"
                self.answer(b"User-agent: *\n" + odd + b"Disallow: /private\n", "text/plain")
            case "/gone":
                self.send_error(404)
            case "/stalls":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                Site.done.wait(20)
            case "/trickles":
                self.send_response(200)
                self.send_header("Content-Length", "1000000000")
                self.end_headers()
                with suppress(OSError):  # until the other side has had enough
                    while not Site.done.is_set():
                        self.wfile.write(b".")
            case "/crawl-data/CC-TEST/warc.paths.gz":
                self.answer(gzip.compress(b"seg/one.warc.gz\nseg/absent.warc.gz\n"), "application/gzip")
            case "/seg/one.warc.gz":
                self.part()
            case path if path in links or path in ("/b", "/d"):
                body = "".join(f'<a href="{link}">x</a>' for link in links.get(path, []))
                page = f"<main><p>This is the text of page {path} here.</p></main>{body}"
                self.answer(f"<html><body>{page}</body></html>".encode(), "text/html")
            case _:
                self.send_error(404)

    def answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def part(self) -> None:
        """Breaks off after a third the first time; then goes on from where it is asked to."""
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        Site.flaky += 1
        if Site.flaky == 1:
            self.send_error(503)
            return
        body = Site.crawl[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(Site.crawl) // 3] if Site.flaky == 2 else body)

    def log_message(self, *_: object) -> None:
        pass

    done = threading.Event()


@pytest.fixture
def site():
    Site.asked, Site.flaky, Site.done = [], 0, threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Site.done.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_crawl_keeps_to_robots_depth_and_site_and_survives_a_server_that_stalls(site, tmp_path):
    source = SiteSource(name="site", start=(f"{site}/",), depth=2, folder=str(tmp_path), politeness=QUICK)
    unread = Counter()
    pages = {page.url.removeprefix(site): page.text for page in read_here(source, unread)}
    assert set(pages) == {"/", "/a", "/b", "/c"}
    assert pages["/c"].startswith("This is the text of page /c here.")
    assert unread["robots.txt does not allow it"] == 1 and "/private/x" not in Site.asked
    assert unread["no answer: TimeoutError"] == 1 and unread["HTTP status 404"] == 2
    asked = len(Site.asked)
    assert {page.url.removeprefix(site) for page in read_here(source, Counter())} == set(pages)
    assert len(Site.asked) == asked, "a crawl that is there is not made again"
    bytes_ = (tmp_path / "crawl.warc.gz").read_bytes()
    crawl(source, tmp_path / "again" / "crawl.warc.gz")
    assert (tmp_path / "again" / "crawl.warc.gz").read_bytes() == bytes_


def test_common_crawl_with_retry_resume_and_a_file_that_is_not_there(site, tmp_path):
    source = CommonCrawlSource(
        name="cc", crawl="CC-TEST", count=2, folder=str(tmp_path), server=site, politeness=QUICK
    )
    unread = Counter()
    pages = list(read_here(source, unread))
    assert len(pages) == 132
    assert (tmp_path / "CC-TEST/one.warc.gz").read_bytes() == Site.crawl
    assert Site.flaky == 3, "a refusal, a cut answer, and its rest"
    assert unread["absent.warc.gz: HTTP status 404"] == 1
    asked = len(Site.asked)
    list(read_here(source, Counter()))
    assert len(Site.asked) == asked + 1, "only what is missing is asked for again"


def test_a_file_that_never_ends_has_a_limit_of_time(site, tmp_path):
    """No pause of the server is long, and still the download ends; what came stays to go on from."""
    politeness = Politeness(timeout=5.0, tries=2, pause=0.0, longest=0.1)
    with pytest.raises(Refused, match="no answer after 2 tries: TimeoutError"):
        fetch(f"{site}/trickles", tmp_path / "file", politeness)
    assert not (tmp_path / "file").exists() and (tmp_path / "file.part").stat().st_size > 0


def test_arrays_of_chats_that_are_cut(tmp_path):
    (tmp_path / "chats.json").write_bytes(io.BytesIO(b'  [{"prompt": "a", "response": "b"}, {"pro').read())
    unread = Counter()
    found = list(read_here(ChatSource(name="c", paths=(str(tmp_path / "chats.json"),)), unread))
    assert [c.messages[1]["content"] for c in found] == ["b"]
    assert unread == {"an element of chats.json that is no JSON": 1}
