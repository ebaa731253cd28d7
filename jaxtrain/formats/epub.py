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
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
# Elements of TEI that stand alone, and those that are no text of the work.
_PARAGRAPHS = {"p", "head", "l", "lg", "sp", "ab", "item", "stage", "speaker", "div", "row", "trailer"}
_APPARATUS = {"note", "fw", "figDesc", "bibl", "gap", "orig", "sic", "abbr"}
_BREAK = "\0"  # which no XML can hold
_XML_ENCODING = re.compile(rb"""\A<\?xml[^>]{0,200}?encoding=["']([\w.:-]+)""")
# XHTML may close any element so, HTML none of those that have an end tag.
_SELF_CLOSED = re.compile(
    r"<(?!(?:br|hr|img|link|meta|input|col|area|base)\b)([A-Za-z][\w:.-]*+)([^<>]*)/>", re.I
)


def read_epub(path: Path, unread: Unread) -> Iterator[dict[str, Any]]:
    """The work in an EPUB file as a record; pages that cannot be read are counted."""
    with zipfile.ZipFile(path) as archive:
        container = _all(_xml(_member(archive, _CONTAINER)), "rootfile")
        package_name = next((found.get("full-path") for found in container), None)
        if not package_name:
            raise Unreadable("no package file")
        package = _xml(_member(archive, package_name))
        is_locked = _ENCRYPTION in archive.namelist()
        encrypted = _all(_xml(_member(archive, _ENCRYPTION)), "CipherReference") if is_locked else ()
        locked = {unquote(found.get("URI", "")) for found in encrypted}  # by rights management
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
    title, author, language = (
        next(((found.text or "").strip() for found in _all(package, name)), "")
        for name in ("title", "creator", "language")
    )
    text = "\n\n".join(filter(None, pages))
    yield {"title": title or Path(shown(path)).stem, "author": author, "lang": language, "text": text}


def _all(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (element for element in root.iter() if _name(element) == name)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of the archive, never more of it than is allowed, whatever its header says."""
    if name.startswith(("/", "..")) or "\\" in name or ".." in name.split("/"):
        raise Unreadable("a path that leaves the archive")
    entry = archive.NameToInfo.get(name)
    if entry is None:  # some writers made them on file systems that do not tell letters apart
        entry = next((e for e in archive.infolist() if e.filename.lower() == name.lower()), None)
    if entry is None:
        raise Unreadable("a page that is not in the archive")
    limit = min(MAX_RECORD, max(entry.compress_size * MAX_RATIO, 1 << 16))
    with archive.open(entry) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Unreadable("a page that unpacks without end")
    return data


def _xml(data: bytes) -> ElementTree.Element:
    if b"<!ENTITY" in data:
        raise Unreadable("an XML file that defines entities")  # they can grow without end
    return ElementTree.fromstring(data)


def _spine(package: ElementTree.Element, folder: str) -> Iterator[str]:
    """Names of the pages in reading order, without the table of contents."""
    items = {
        element.get("id"): element.get("href", "")
        for element in _all(package, "item")
        if "nav" not in element.get("properties", "").split()
    }
    for element in _all(package, "itemref"):
        if element.get("idref") in items:
            href = unquote(items[element.get("idref")]).partition("#")[0]
            yield posixpath.normpath(posixpath.join(folder, href))


def _page(data: bytes) -> str:
    declared = _XML_ENCODING.match(data)
    text = encodings.decode(data, encodings.codec(declared[1].decode()) if declared else "", html=True)
    page = _SELF_CLOSED.sub(r"<\1\2></\1>", text)
    return extract_plain_text(page, main_content=False, alt_texts=False).strip()


def read_tei(path: Path, unread: Unread) -> Iterator[dict[str, Any]]:
    """The work in a TEI file as a record: all of its text without notes and apparatus."""
    root = _xml(read_bytes(path, unread))
    title, author = (" ".join(_paragraphs(next(_all(root, name), None))) for name in ("title", "author"))
    body = next(_all(root, "text"), root)
    is_tei = any(_name(element) in _PARAGRAPHS for element in body.iter())
    yield {
        "title": title or Path(shown(path)).stem,
        "author": author,
        "lang": root.get(_LANGUAGE, ""),
        "text": "\n\n".join(_paragraphs(body)) if is_tei else "",
    }


def _paragraphs(element: ElementTree.Element | None) -> list[str]:
    """What stands alone in an element, in order; without recursion, so that any depth will do."""
    waiting: list[ElementTree.Element | str] = [] if element is None else [element]
    pieces: list[str] = []
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            pieces.append(item)
            continue
        pieces.append(item.text or "")
        for child in reversed(item):
            name = _name(child)
            around = _BREAK if name in _PARAGRAPHS else " " * (name in ("lb", "pb", "cell"))
            waiting += [child.tail or "", around, *[child] * (name not in _APPARATUS), around]
    return [" ".join(part.split()) for part in "".join(pieces).split(_BREAK) if part.strip()]
