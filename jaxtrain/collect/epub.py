"""EPUB and TEI to the text of a work, without trusting the file: nothing is unpacked to disk.

EPUB is a zip of XHTML pages whose order the package file gives (EPUB 3.3, W3C); TEI is the XML of scholarly
editions (TEI P5).
"""

import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from resiliparse.extract.html2text import extract_plain_text

from jaxtrain.collect.files import MAX_RECORD, TOO_LONG, Unread, open_bytes

MAX_RATIO = 200  # a page that unpacks to more than this many times its size is a bomb
_CONTAINER = "META-INF/container.xml"
_BROKEN = (zipfile.BadZipFile, zlib.error, ElementTree.ParseError, EOFError, OSError, ValueError)
_PARAGRAPHS = {"p", "head", "l", "sp", "ab", "quote", "item", "stage", "speaker"}
_APPARATUS = {"note", "fw", "figDesc", "bibl", "gap", "orig", "sic", "abbr"}


class Refused(ValueError):
    """A part of the file is not safe or not there; the message is the reason that is counted."""


def read_epub(path: Path, unread: Unread) -> Iterator[dict[str, Any]]:
    """The work in an EPUB file as a record; pages that cannot be read are counted."""
    try:
        with zipfile.ZipFile(path) as archive:
            package_name = _package_name(_member(archive, _CONTAINER))
            package = ElementTree.fromstring(_member(archive, package_name))
            pages = []
            for name in _spine(package, posixpath.dirname(package_name)):
                try:
                    pages.append(_page(_member(archive, name)))
                except _BROKEN as error:
                    unread[
                        str(error) if isinstance(error, Refused) else f"a page: {type(error).__name__}"
                    ] += 1
    except _BROKEN as error:
        reason = str(error) if isinstance(error, Refused) else type(error).__name__
        unread[f"{path.name} is no readable EPUB: {reason}"] += 1
        return
    yield {
        "title": _metadata(package, "title") or path.stem,
        "author": _metadata(package, "creator"),
        "lang": _metadata(package, "language"),
        "text": "\n\n".join(filter(None, pages)),
    }


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of the archive, never more of it than is allowed, whatever its header says."""
    if name.startswith(("/", "..")) or "\\" in name or ".." in name.split("/"):
        raise Refused("a path that leaves the archive")
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise Refused("a page that is not in the archive") from None
    limit = min(MAX_RECORD, max(entry.compress_size * MAX_RATIO, 1 << 16))
    with archive.open(entry) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Refused("a page that unpacks without end")
    return data


def _package_name(container: bytes) -> str:
    root = _xml(container)
    found = next(
        (element.get("full-path") for element in root.iter() if element.tag.endswith("rootfile")), None
    )
    if not found:
        raise Refused("no package file")
    return found


def _xml(data: bytes) -> ElementTree.Element:
    if b"<!ENTITY" in data:
        raise Refused("an XML file that defines entities")  # they can grow without end
    return ElementTree.fromstring(data)


def _spine(package: ElementTree.Element, folder: str) -> Iterator[str]:
    """Names of the pages in reading order."""
    items = {
        element.get("id"): element.get("href", "")
        for element in package.iter()
        if element.tag.endswith("}item") or element.tag == "item"
    }
    for element in package.iter():
        if element.tag.rpartition("}")[2] == "itemref" and element.get("idref") in items:
            href = unquote(items[element.get("idref")]).partition("#")[0]
            yield posixpath.normpath(posixpath.join(folder, href))


def _metadata(package: ElementTree.Element, name: str) -> str:
    return next(((e.text or "").strip() for e in package.iter() if e.tag.rpartition("}")[2] == name), "")


def _page(data: bytes) -> str:
    return extract_plain_text(data.decode("utf-8", "replace"), main_content=False, alt_texts=False).strip()


def read_tei(path: Path, unread: Unread) -> Iterator[dict[str, Any]]:
    """The work in a TEI file: its paragraphs, heads and verses, without notes and apparatus."""
    try:
        with open_bytes(path) as file:
            data = file.read(MAX_RECORD + 1)
        if len(data) > MAX_RECORD:
            raise Refused(TOO_LONG)
        root = _xml(data)
    except _BROKEN as error:
        reason = str(error) if isinstance(error, Refused) else type(error).__name__
        unread[f"{path.name} is no readable TEI: {reason}"] += 1
        return
    body = next((element for element in root.iter() if _name(element) == "text"), root)
    yield {
        "title": next((_text(e) for e in root.iter() if _name(e) == "title"), "") or path.stem,
        "author": next((_text(e) for e in root.iter() if _name(e) == "author"), ""),
        "lang": root.get("{http://www.w3.org/XML/1998/namespace}lang", ""),
        "text": "\n\n".join(filter(None, _paragraphs(body))),
    }


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _paragraphs(element: ElementTree.Element) -> Iterator[str]:
    if _name(element) in _PARAGRAPHS and not any(
        _name(child) in _PARAGRAPHS for child in element.iter() if child is not element
    ):
        yield _text(element)
    elif _name(element) not in _APPARATUS:
        for child in element:
            yield from _paragraphs(child)


def _text(element: ElementTree.Element) -> str:
    pieces = [element.text or ""]
    for child in element:
        if _name(child) not in _APPARATUS:
            pieces.append(" " if _name(child) in ("lb", "pb") else _text(child))
        pieces.append(child.tail or "")
    return " ".join("".join(pieces).split())
