"""WARC crawls (ISO 28500) to the main text of their HTML pages; WET files to their text.

Main content is found by Resiliparse's rules (Bevendorff et al., ECIR 2018), which drop navigation, headers,
footers and advertisements; nothing is judged here beyond that: quality is the next stage's work.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from jaxtrain.collect.source import FileSource, Item, Step
from jaxtrain.document import Document
from jaxtrain.formats import encoding as encodings
from jaxtrain.formats.files import Unread, Unreadable, kind_of, read_bytes, shown
from jaxtrain.formats.warc import CUT, Http, Warc, http, records

Extractor = Literal["resiliparse", "trafilatura"]
HTML = ("text/html", "application/xhtml+xml")
_DEED = re.compile(r"/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)")
_TAG, _BEFORE = 1000, 120  # characters of a tag, and before it, in which a licence is looked for
_REL = re.compile(r"""\brel=("[^"]*"|'[^']*'|[^\s>]*)""")
_SENTENCE = re.compile(r"(?:site|page|content|text|work|book)[^<>]{0,40}\slicensed\sunder[^<>]{0,40}\Z")
_MANY, _DEEP = 2000, 300  # tags in a page whose depth does not matter; and containers within each other
_CONTAINER = re.compile(r"<(/?)(?:div|article)\b[^>]{0,10000}>", re.I)


@dataclass(frozen=True, kw_only=True)
class WebSource(FileSource):
    """Pages of a crawl (WARC or WET files), or HTML files of a folder."""

    ends: ClassVar = (".warc", ".wacz", ".wet", ".arc", ".html", ".htm", ".xhtml")

    extractor: Extractor = "resiliparse"
    """What finds the main text; trafilatura needs the extra of its name, ten times as long, and is stricter
    about what is an article."""

    def read_file(self, path: Path, unread: Unread) -> Iterator[Item]:
        if kind_of(path.name) in (".html", ".htm", ".xhtml"):
            page = Http(200, read_bytes(path, unread), {"content-type": HTML[0]})
            yield from _page(page, {"warc-target-uri": shown(path)}, self)
            return
        readers = {"response": _response, "resource": _response, "conversion": _plain_text}
        number = 0
        for number, record in enumerate(records(path, unread), 1):
            if reader := readers.get(record.type):
                yield Step(f"record {number}", partial(reader, record, self), len(record.block))
            else:
                unread[f"{record.type or 'unnamed'} record"] += 1
        if not number:
            unread[f"{shown(path)} holds no readable WARC record"] += 1


def _response(record: Warc, source: WebSource) -> Iterator[Document]:
    is_http = record.type == "response" and record.block.startswith(b"HTTP/")
    response = http(record.block) if is_http else Http(200, record.block, record.headers)
    kind = response.headers.get("content-type", "").split(";")[0].strip().lower() or "no content type"
    if response.status != 200:
        raise Unreadable(f"HTTP status {response.status}")
    if kind not in HTML:
        raise Unreadable(f"not HTML: {kind}")
    if not response.body.strip():
        raise Unreadable(CUT)
    yield from _page(response, record.headers, source)


def _page(response: Http, headers: dict[str, str], source: WebSource) -> Iterator[Document]:
    label = re.search(r"""charset\s*=\s*["']?([^\s"';,]+)""", response.headers.get("content-type", ""), re.I)
    charset = encodings.codec(source.encoding or (label[1] if label else ""))
    page = encodings.decode(response.body, charset, html=True)
    text, title = main_text(_flat(page), source.extractor)
    if not text:
        raise Unreadable("no main text on the page")
    yield _document(headers, source, text, stated_license(page) or source.license, title)


def _flat(page: str) -> str:
    """The page without containers nested beyond any sense: time grows with the square of their depth."""
    if page.count("<") < _MANY:
        return page
    depth = 0

    def within(tag: re.Match[str]) -> str:
        nonlocal depth
        if tag[1]:
            depth -= depth > 0
            return tag[0] if depth < _DEEP else " "
        depth += 1
        return tag[0] if depth <= _DEEP else " "

    return _CONTAINER.sub(within, page)


def _plain_text(record: Warc, source: WebSource) -> Iterator[Document]:
    """A record of a WET file: the text of a page, without its markup."""
    text = encodings.decode(record.block, "utf-8", html=True).strip()
    if not text:
        raise Unreadable("no text in the record")
    yield _document(record.headers, source, text, source.license, "")


def _document(headers: dict[str, str], source: WebSource, text: str, license: str, title: str) -> Document:
    url = headers.get("warc-target-uri", "").strip("<>")  # WARC 1.0 tools wrote the brackets
    about = {"license": license, "created": headers.get("warc-date", ""), "meta": {"title": title}}
    return source.document(url, text, url=url, **about)


def main_text(page: str, extractor: Extractor = "resiliparse") -> tuple[str, str]:
    """The main content of an HTML page, and its title."""
    tree = HTMLTree.parse(page)
    if extractor == "trafilatura":
        import trafilatura  # pyrefly: ignore[missing-import]

        # deduplicate=False: with it the text of a page would depend on the pages before it
        text = trafilatura.extract(page, include_comments=False, deduplicate=False) or ""
    else:
        text = extract_plain_text(tree, main_content=True, alt_texts=False, comments=False)
    return text.strip(), (tree.title or "").strip()


def stated_license(page: str) -> str:
    """SPDX identifier of the Creative Commons licence that a page states for itself, or an empty string."""
    sentence = ""
    for deed in _DEED.finditer(page):
        start = page.rfind("<", max(0, deed.start() - _TAG), deed.start())
        tag = page[start : deed.end()] + page[deed.end() : deed.end() + _TAG].partition(">")[0]
        if start < 0 or not re.match(r"<(?:a|link)\b", tag):
            continue
        kind, name, version = deed.groups()
        public = "CC0-1.0" if name == "zero" else "public-domain"
        identifier = f"CC-{name.upper()}-{version}" if kind == "licenses" else public
        rel = _REL.search(tag)
        if rel and re.search(r"\blicense\b", rel[1]) and "href=" in tag[: deed.start() - start]:
            return identifier
        if not sentence and tag.startswith("<a") and _SENTENCE.search(page[max(0, start - _BEFORE) : start]):
            sentence = identifier
    return sentence
