"""MediaWiki XML dumps (export format 0.10 and 0.11) to the text of their articles.

Names of namespaces come from the dump itself, so any language works. Each page is cut out of the dump by its
tags, so that a damage costs the page it lies in.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, ClassVar, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

from jaxtrain.collect.source import FileSource, Item, Step
from jaxtrain.document import Document
from jaxtrain.formats.files import Unread, Unreadable, as_utf8, shown, stretches
from jaxtrain.formats.wikitext import plain_text

ENGLISH_NAMESPACES = {"file", "image", "media", "category"}  # understood by the MediaWiki of every language
_TITLES = "see also|references|external links|further reading|notes|footnotes|citations|notes and references"
APPARATUS = {*_TITLES.split("|"), "sources"}
REDIRECT = re.compile(r"\s*#[^\W\d_][\w-]*\s*(?::\s*)?\[\[")
"""`#REDIRECT [[Page]]` in any language."""
MAY_REFER_TO = re.compile(r"^(?=.*'{3}).*[:：]\s*\n[*#]", re.M)
"""`'''Ada''' may refer to:` in any language, and its list."""
MAX_PAGE = 8_000_000  # bytes; MediaWiki's own bound is 2 MB of markup
_CHUNK = 1 << 16
_BEGIN, _END = re.compile(rb"<page[\s>]"), b"</page>"
_LANGUAGE = re.compile(r"""<mediawiki\b[^>]*\bxml:lang=["']([\w-]+)""")
_BASE = re.compile(r"<base>([^<]*)</base>")
_NAMESPACE = re.compile(r"""<namespace\b[^>]{0,99}\bkey=["'](?:6|14)["'][^>]{0,99}>([^<]+)</namespace>""")
NO_PAGE = "a page that is no XML"


@dataclass(frozen=True, kw_only=True)
class WikiSource(FileSource):
    """Articles of a wiki: dump files (`pages-articles.xml.bz2`)."""

    ends: ClassVar = (".xml",)

    license: str = "CC-BY-SA-3.0"
    """SPDX identifier of the wiki's text."""

    def read_file(self, path: Path, unread: Unread) -> Iterator[Item]:
        """A document an article (namespace 0), in the order of the dump."""
        pages = chain.from_iterable(_pages(as_utf8(part), unread) for part in stretches(path, unread))
        wiki: _Wiki | None = None
        for number, (head, page) in enumerate(pages, 1):
            wiki = wiki or _siteinfo(head)
            yield Step(f"page {number}", partial(_article, page, wiki, self), len(page))
        if wiki is None:
            raise Unreadable(f"{shown(path)} holds no page of MediaWiki")


class _Wiki(NamedTuple):
    """What the siteinfo at the beginning of a dump says."""

    base: str
    language: str
    hidden: set[str]
    """Namespaces, in lower case, links to which show no text."""


def _siteinfo(head: str) -> _Wiki:
    base, language = _BASE.search(head), _LANGUAGE.search(head)
    hidden = ENGLISH_NAMESPACES | {name.lower() for name in _NAMESPACE.findall(head)}
    return _Wiki(base[1].rpartition("/")[0] if base else "", language[1] if language else "", hidden)


def _pages(file: IO[bytes], unread: Unread) -> Iterator[tuple[str, bytes]]:
    """(what stands before the first page, a page from its begin to its end), each bounded."""
    head, data, is_long = "", b"", False
    while more := file.read(_CHUNK):
        *pages, data = (data + more).split(_END)
        for page in pages:
            # Of several begins the last: in front of it are pages whose end was damaged.
            begins = [match.start() for match in _BEGIN.finditer(page)]
            for _ in begins[:-1]:
                unread[NO_PAGE] += 1
            if is_long:
                unread[f"a page longer than {MAX_PAGE // 1_000_000} MB"] += 1
            elif begins:
                head = head or page[: begins[0]][:_CHUNK].decode("utf-8", "replace")
                yield head, page[begins[-1] :] + _END
            is_long = False
        if is_long or len(data) > MAX_PAGE:
            head, data, is_long = head or data[:_CHUNK].decode("utf-8", "replace"), data[-len(_END) :], True
    if is_long or _BEGIN.search(data):
        unread["a page that is cut"] += 1


def _article(data: bytes, wiki: _Wiki, source: WikiSource) -> Iterator[Document]:
    if b"<!ENTITY" in data:
        raise Unreadable("an XML file that defines entities")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        raise Unreadable(NO_PAGE) from None
    page = {child.tag.rpartition("}")[2]: child.text or "" for child in root.iter()}
    markup, title = page.get("text", ""), page.get("title", "")
    if root.find("redirect") is not None or REDIRECT.match(markup):
        raise Unreadable("redirect")
    if page.get("ns", "0") != "0":
        raise Unreadable(f"namespace {page['ns'][:20]}")
    if not title:
        raise Unreadable("a page without a title")
    text = article_text(markup, wiki.hidden)
    if not text:
        raise Unreadable("no prose: a disambiguation or empty page")
    yield source.document(
        title,
        f"{title}\n\n{text}",
        url=f"{wiki.base}/{quote(title.replace(' ', '_'))}",
        language=wiki.language,
        license=source.license,
        created=page.get("timestamp", ""),
        meta={"title": title},
    )


def article_text(markup: str, hidden_namespaces: set[str]) -> str:
    """Plain text of an article, without its apparatus; empty for a disambiguation."""
    text = plain_text(markup, hidden_namespaces)
    lead, *rest = re.split(r"^\x02(\d)(.*)$", text, flags=re.MULTILINE)
    kept: list[tuple[int, str]] = []
    for level, title, body in reversed(list(zip(rest[::3], rest[1::3], rest[2::3], strict=True))):
        body = body.strip("\n")
        has_prose = any(line and not line.startswith("- ") for line in body.split("\n"))
        # Without prose it is a link list at the end, whatever its language.
        apparatus = not kept and not has_prose or title.strip().lower() in APPARATUS
        above_kept = bool(kept) and kept[-1][0] > int(level)
        if not apparatus and (body or above_kept):
            kept.append((int(level), f"{title.strip()}\n\n{body}"))
    if not kept and (not lead.strip() or lead.rstrip().endswith((":", "：")) or MAY_REFER_TO.search(markup)):
        return ""
    joined = "\n\n".join([lead, *(section for _, section in reversed(kept))])
    return re.sub(r"\n{3,}", "\n\n", joined).strip("\n").rstrip()
