"""WARC crawls (ISO 28500) to the main text of their HTML pages.

Main content is found by Resiliparse's rules (Bevendorff et al., ECIR 2018), which drop navigation, headers,
footers and advertisements; nothing is judged here beyond that: quality is the next stage's work.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding
from resiliparse.parse.html import HTMLTree

from jaxtrain.collect.files import DAMAGED, Unread, find, open_bytes
from jaxtrain.document import Document, record_id

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
    """WARC files or glob patterns (`crawl/*.warc.gz`)."""
    license: str = ""
    """SPDX identifier of pages that do not state a Creative Commons licence of their own."""


def read_web(source: WebSource, unread: Unread) -> Iterator[Document]:
    """A document a page, in the order of the files; `unread` counts the rest by reason."""
    for path in find(source.name, source.paths):
        records = 0
        for record in _records(path, unread):
            records += 1
            if record.record_type & PAGES:
                page = _page(record, source, unread)
                if page is not None:
                    yield page
            else:
                unread[f"{record.headers.get('WARC-Type')} record"] += 1
        if not records:
            unread[f"{path.name} holds no readable WARC record"] += 1


def _records(path: Path, unread: Unread) -> Iterator[WarcRecord]:
    """Records up to the first damage: behind it the borders of records cannot be trusted."""
    try:
        with open_bytes(path) as file:  # Python's gzip tells a cut file; FastWARC's own takes it for the end
            yield from ArchiveIterator(file, auto_decode="all", stream_detect=False)
    except DAMAGED as error:
        unread[f"{path.name} is damaged from here on: {type(error).__name__}"] += 1


def _page(record: WarcRecord, source: WebSource, unread: Unread) -> Document | None:
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
    declared = record.content_length
    try:
        body = record.reader.read()
    except DAMAGED:
        body = b""
    if len(body) < declared and (not encoded or not body):  # an encoded body has its own end mark
        unread["record cut short or wrongly encoded"] += 1
        return None
    page = bytes_to_str(body, record.http_charset or detect_encoding(body, from_html_meta=True) or "utf-8")
    tree = HTMLTree.parse(page)
    text = extract_plain_text(tree, main_content=True, alt_texts=False, comments=False).strip()
    if not text:
        unread["no main text on the page"] += 1
        return None
    url = record.headers.get("WARC-Target-URI", "").strip("<>")  # WARC 1.0 tools wrote the brackets
    return Document(
        id=record_id(source.name, url),
        text=text,
        source=source.name,
        url=url,
        license=stated_license(page) or source.license,
        created=record.headers.get("WARC-Date", ""),
        meta={"title": (tree.title or "").strip()},
    )


def stated_license(page: str) -> str:
    """SPDX identifier of the Creative Commons licence that a page states for itself, or an empty string."""
    match = LICENSE_LINK.search(page) or LICENSE_SENTENCE.search(page)
    if match is None:
        return ""
    kind, name, version = match.groups()
    if kind == "licenses":
        return f"CC-{name.upper()}-{version}"
    return "CC0-1.0" if name == "zero" else "public-domain"
