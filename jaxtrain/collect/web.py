"""WARC crawls (ISO 28500) to the main text of their HTML pages; WET files to their text.

Main content is found by Resiliparse's rules (Bevendorff et al., ECIR 2018), which drop navigation, headers,
footers and advertisements; nothing is judged here beyond that: quality is the next stage's work.
"""

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding
from resiliparse.parse.html import HTMLTree

from jaxtrain.collect import gzip_members
from jaxtrain.collect.files import DAMAGED, MAX_RECORD, TOO_LONG, Unread, find
from jaxtrain.collect.gzip_members import Plain
from jaxtrain.document import Document, record_id
from jaxtrain.runtime.errors import UserError

Page = tuple[str, str]
"""(main text, title)"""
HTML = ("text/html", "application/xhtml+xml")
PAGES = WarcRecordType.response | WarcRecordType.resource
_DEED = r"(licenses|publicdomain)/([a-z-]+)/(\d\.\d)"
LICENSE_LINK = re.compile(
    rf"""<(?:a|link)\b(?=[^>]*\brel=["']?[^"'>]*\blicense\b)[^>]*href=["']?[^"'> ]*/{_DEED}"""
)
LICENSE_SENTENCE = re.compile(
    rf"""(?:site|page|content|text|work|book)[^<>]{{0,40}}\slicensed\sunder[^<>]{{0,40}}<a\b[^>]*/{_DEED}"""
)


@dataclass(frozen=True, kw_only=True)
class WebSource:
    """Pages of a crawl."""

    name: str
    """Name of the source and of its file."""
    paths: tuple[str, ...]
    """WARC or WET files or glob patterns (`crawl/*.warc.gz`)."""
    license: str = ""
    """SPDX identifier of pages that do not state a Creative Commons licence of their own."""
    extractor: Literal["resiliparse", "trafilatura"] = "resiliparse"
    """What finds the main text; trafilatura needs the extra of its name."""


def read_web(source: WebSource, unread: Unread) -> Iterator[Document]:
    """A document a page, in the order of the files; `unread` counts the rest by reason."""
    for path in find(source.name, source.paths):
        yield from read_archive(path, source, unread)


def read_archive(path: Path, source: WebSource, unread: Unread) -> Iterator[Document]:
    """The pages of one WARC or WET file."""
    extract = EXTRACTORS[source.extractor]
    records = 0
    for record in _records(path, unread):
        records += 1
        if record.record_type & PAGES:
            page = _page(record, source, extract, unread)
        elif record.record_type & WarcRecordType.conversion:
            page = _plain_text(record, source, unread)
        else:
            unread[f"{record.headers.get('WARC-Type')} record"] += 1
            continue
        if page is not None:
            yield page
    if not records:
        unread[f"{path.name} holds no readable WARC record"] += 1


def _records(path: Path, unread: Unread) -> Iterator[WarcRecord]:
    """Every record that is whole: behind damage the reading goes on at the next gzip member of a record."""
    with path.open("rb") as file:
        packed = file.read(2) == gzip_members.MAGIC
    at: int | None = 0
    while at is not None:
        stream = gzip_members.Members(path, at) if packed else Plain(path)
        try:
            with stream:
                yield from ArchiveIterator(stream, auto_decode="all", stream_detect=False)
            return
        except DAMAGED as error:
            reason = type(error).__name__
        at = gzip_members.next_record(path, stream.start + 1) if packed else None
        unread[f"{path.name} is damaged {'at a place' if at else 'from here on'}: {reason}"] += 1


def _page(
    record: WarcRecord, source: WebSource, extract: Callable[[str], Page], unread: Unread
) -> Document | None:
    status = record.http_headers.status_code if record.http_headers else 200
    kind = record.http_content_type if record.http_headers else record.headers.get("Content-Type")
    kind = (kind or "no content type").split(";")[0].strip().lower()
    if status != 200 or kind not in HTML:
        unread[f"HTTP status {status}" if status != 200 else f"not HTML: {kind}"] += 1
        return None
    encoded = record.http_headers and not {"transfer-encoding", "content-encoding"}.isdisjoint(
        key.lower()
        for key in record.http_headers.keys()  # noqa: SIM118 (no dictionary)
    )
    body = _body(record, bool(encoded), unread)
    if body is None:
        return None
    page = bytes_to_str(body, record.http_charset or detect_encoding(body, from_html_meta=True) or "utf-8")
    text, title = extract(page)
    if not text:
        unread["no main text on the page"] += 1
        return None
    return _document(record, source, text, license=stated_license(page) or source.license, title=title)


def _plain_text(record: WarcRecord, source: WebSource, unread: Unread) -> Document | None:
    """A record of a WET file: the text of a page, without its markup."""
    body = _body(record, False, unread)
    text = body.decode("utf-8", "replace").strip() if body else ""
    if not text:
        unread["no text in the record"] += int(body is not None)
        return None
    return _document(record, source, text, license=source.license)


def _body(record: WarcRecord, encoded: bool, unread: Unread) -> bytes | None:
    declared = record.content_length
    try:
        body = record.reader.read(MAX_RECORD + 1)
    except DAMAGED:
        body = b""
    if len(body) > MAX_RECORD:
        unread[TOO_LONG] += 1
        return None
    if len(body) < declared and (not encoded or not body):  # an encoded body has its own end mark
        unread["record cut short or wrongly encoded"] += 1
        return None
    return body


def _document(record: WarcRecord, source: WebSource, text: str, license: str, title: str = "") -> Document:
    url = record.headers.get("WARC-Target-URI", "").strip("<>")  # WARC 1.0 tools wrote the brackets
    return Document(
        id=record_id(source.name, url),
        text=text,
        source=source.name,
        url=url,
        license=license,
        created=record.headers.get("WARC-Date", ""),
        meta={"title": title},
    )


def main_text(page: str) -> Page:
    """Resiliparse's main content of an HTML page, and its title."""
    tree = HTMLTree.parse(page)
    text = extract_plain_text(tree, main_content=True, alt_texts=False, comments=False).strip()
    return text, (tree.title or "").strip()


def main_text_trafilatura(page: str) -> Page:
    """Trafilatura's; ten times slower, and stricter about what is an article."""
    try:
        trafilatura = importlib.import_module("trafilatura")
    except ImportError as error:
        raise UserError("extractor 'trafilatura' needs pip install 'jaxtrain[trafilatura]'") from error
    # deduplicate=False: with it the text of a page would depend on the pages before it
    text = trafilatura.extract(page, include_comments=False, deduplicate=False) or ""
    return text.strip(), (HTMLTree.parse(page).title or "").strip()


EXTRACTORS: dict[str, Callable[[str], Page]] = {
    "resiliparse": main_text,
    "trafilatura": main_text_trafilatura,
}


def stated_license(page: str) -> str:
    """SPDX identifier of the Creative Commons licence that a page states for itself, or an empty string."""
    match = LICENSE_LINK.search(page) or LICENSE_SENTENCE.search(page)
    if match is None:
        return ""
    kind, name, version = match.groups()
    if kind == "licenses":
        return f"CC-{name.upper()}-{version}"
    return "CC0-1.0" if name == "zero" else "public-domain"
