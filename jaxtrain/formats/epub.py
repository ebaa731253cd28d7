"""EPUB and TEI to the text of a work, without trusting the file: nothing is unpacked to disk.

EPUB is a zip of XHTML pages whose order the package file gives (EPUB 3.3, W3C); TEI is the XML of scholarly
editions (TEI P5).
"""

import posixpath
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from resiliparse.extract.html2text import extract_plain_text

from jaxtrain.formats import encoding as encodings
from jaxtrain.formats.files import MAX_RECORD, TOO_LONG, Unread, Unreadable, read_bytes, shown

MAX_RATIO = 200  # a page that unpacks to more than this many times its size is a bomb
_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_PARAGRAPHS = {"p", "head", "l", "sp", "ab", "quote", "item", "stage", "speaker"}
_APPARATUS = {"note", "fw", "figDesc", "bibl", "gap", "orig", "sic", "abbr"}
_XML_ENCODING = re.compile(rb"""\A<\?xml[^>]{0,200}?encoding=["']([\w.:-]+)""")
# XHTML may close any element so, HTML none of those that have an end tag.
_SELF_CLOSED = re.compile(
    r"<(?!(?:br|hr|img|link|meta|input|col|area|base)\b)([A-Za-z][\w:.-]*)([^<>]*)/>", re.I
)


def read_epub(path: Path, unread: Unread) -> Iterator[dict[str, Any]]:
    """The work in an EPUB file as a record; pages that cannot be read are counted."""
    with zipfile.ZipFile(path) as archive:
        package_name = _package_name(_member(archive, _CONTAINER))
        package = _xml(_member(archive, package_name))
        locked = _encrypted(archive)
        pages: list[str] = []
        size = 0
        # A page that is named twice is one page.
        for name in dict.fromkeys(_spine(package, posixpath.dirname(package_name))):
            try:
                if name in locked:
                    raise Unreadable("an encrypted page of a book")
                pages.append(_page(_member(archive, name)))
            except Unreadable as error:
                unread[str(error)] += 1
            except Exception as error:  # whatever is wrong with one page, the others can be read
                unread[f"{shown(path)}, a page: {type(error).__name__}"] += 1
            size += len(pages[-1]) if pages else 0
            if size > MAX_RECORD:
                raise Unreadable(TOO_LONG)
    yield {
        "title": _metadata(package, "title") or Path(shown(path)).stem,
        "author": _metadata(package, "creator"),
        "lang": _metadata(package, "language"),
        "text": "\n\n".join(filter(None, pages)),
    }


def _encrypted(archive: zipfile.ZipFile) -> set[str]:
    """Names of what rights management has encrypted."""
    if _ENCRYPTION not in archive.namelist():
        return set()
    found = _xml(_member(archive, _ENCRYPTION)).iter()
    return {unquote(e.get("URI", "")) for e in found if e.tag.endswith("CipherReference")}


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of the archive, never more of it than is allowed, whatever its header says."""
    if name.startswith(("/", "..")) or "\\" in name or ".." in name.split("/"):
        raise Unreadable("a path that leaves the archive")
    try:
        entry = archive.getinfo(name)
    except KeyError:
        # Some writers made them on file systems that do not tell letters apart.
        same = (entry for entry in archive.infolist() if entry.filename.lower() == name.lower())
        if (entry := next(same, None)) is None:
            raise Unreadable("a page that is not in the archive") from None
    limit = min(MAX_RECORD, max(entry.compress_size * MAX_RATIO, 1 << 16))
    with archive.open(entry) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Unreadable("a page that unpacks without end")
    return data


def _package_name(container: bytes) -> str:
    root = _xml(container)
    found = next(
        (element.get("full-path") for element in root.iter() if element.tag.endswith("rootfile")), None
    )
    if not found:
        raise Unreadable("no package file")
    return found


def _xml(data: bytes) -> ElementTree.Element:
    if b"<!ENTITY" in data:
        raise Unreadable("an XML file that defines entities")  # they can grow without end
    return ElementTree.fromstring(data)


def _spine(package: ElementTree.Element, folder: str) -> Iterator[str]:
    """Names of the pages in reading order, without the table of contents."""
    items = {
        element.get("id"): element.get("href", "")
        for element in package.iter()
        if _name(element) == "item" and "nav" not in element.get("properties", "").split()
    }
    for element in package.iter():
        if _name(element) == "itemref" and element.get("idref") in items:
            href = unquote(items[element.get("idref")]).partition("#")[0]
            yield posixpath.normpath(posixpath.join(folder, href))


def _metadata(package: ElementTree.Element, name: str) -> str:
    return next(((e.text or "").strip() for e in package.iter() if e.tag.rpartition("}")[2] == name), "")


def _page(data: bytes) -> str:
    declared = _XML_ENCODING.match(data)
    text = encodings.decode(data, encodings.codec(declared[1].decode()) if declared else "", html=True)
    page = _SELF_CLOSED.sub(r"<\1\2></\1>", text)
    return extract_plain_text(page, main_content=False, alt_texts=False).strip()


def read_tei(path: Path, unread: Unread) -> dict[str, Any]:
    """The work in a TEI file: its paragraphs, heads and verses, without notes and apparatus."""
    root = _xml(read_bytes(path, unread))
    body = next((element for element in root.iter() if _name(element) == "text"), root)
    return {
        "title": next((_text(e) for e in root.iter() if _name(e) == "title"), "") or Path(shown(path)).stem,
        "author": next((_text(e) for e in root.iter() if _name(e) == "author"), ""),
        "lang": root.get("{http://www.w3.org/XML/1998/namespace}lang", ""),
        "text": "\n\n".join(filter(None, _paragraphs(body))),
    }


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _paragraphs(body: ElementTree.Element) -> Iterator[str]:
    """Texts of the paragraphs that have none within them, in order."""
    outer = set[ElementTree.Element]()
    for element in reversed(list(body.iter())):  # children before their parents
        if any(_name(child) in _PARAGRAPHS or child in outer for child in element):
            outer.add(element)
    waiting = [body]
    while waiting:
        element = waiting.pop()
        if _name(element) in _PARAGRAPHS and element not in outer:
            yield _text(element)
        elif _name(element) not in _APPARATUS:
            waiting += reversed(element)


def _text(element: ElementTree.Element) -> str:
    return " ".join("".join(_pieces(element)).split())


def _pieces(element: ElementTree.Element) -> Iterator[str]:
    """The text of an element without its apparatus; without recursion, so that any depth will do."""
    waiting: list[ElementTree.Element | str] = [element]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
            continue
        yield item.text or ""
        for child in reversed(item):
            waiting.append(child.tail or "")
            if _name(child) in ("lb", "pb"):
                waiting.append(" ")
            elif _name(child) not in _APPARATUS:
                waiting.append(child)
