"""Novels to chapters: JSON records (`title`, `author`, `text`, …), or plain text, EPUB or TEI files."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jaxtrain.collect.epub import read_epub, read_tei
from jaxtrain.collect.files import Unread, find, json_records, read_text
from jaxtrain.document import Document, record_id

MIN_BYTES, MAX_BYTES = 8_000, 20_000  # of a section: short chapters are joined, long ones cut at a paragraph
HEADING = re.compile(
    r"(?:chapter|book|part|volume|letter|stave|canto|act|scene|prologue|epilogue|chapitre|kapitel|buch|livre)\b"
    r"[^\n]{0,80}|[IVXLC]+\.?(?: [^a-z\n]{1,60})?|\d{1,3}\.?",
    re.IGNORECASE,
)
PROJECT_GUTENBERG = re.compile(r"\*\*\* ?(?:START|END) OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*\n?")


@dataclass(frozen=True, kw_only=True)
class BookSource:
    """Works long enough to have chapters."""

    name: str
    """Name of the source and of its file."""
    paths: tuple[str, ...]
    """`.jsonl` files (plain or compressed) of records with `text`; `.txt`, `.epub`, TEI (`.xml`)."""
    license: str = "public-domain"
    """SPDX identifier, or `public-domain`."""


def read_books(source: BookSource, unread: Unread) -> Iterator[Document]:
    """A document a section of 8 to 20 kB; the sections of a work share its url."""
    for path in find(source.name, source.paths):
        works: Iterable[dict[str, Any]]
        match path.suffix.lower():
            case ".txt":
                text = read_text(path, unread)
                works = [] if text is None else [{"title": path.stem, "text": text}]
            case ".epub":
                works = read_epub(path, unread)
            case ".xml" | ".tei":
                works = read_tei(path, unread)
            case _:
                works = json_records(path, unread)
        for work in works:
            text = work.get("text")
            if not isinstance(text, str) or not text.strip():
                unread["a work without text"] += 1
                continue
            yield from _sections_of(work, source)


def _sections_of(work: dict[str, Any], source: BookSource) -> Iterator[Document]:
    url = str(work.get("url") or work.get("id") or work.get("title") or record_id(source.name, work["text"]))
    meta = {key: work[key] for key in ("title", "author") if work.get(key)}
    for number, text in enumerate(sections(work["text"]), 1):
        yield Document(
            id=record_id(source.name, f"{url}\0{number}"),
            text=text,
            source=source.name,
            url=url,
            language=str(work.get("lang", ""))[:2],
            license=source.license,
            created=str(work.get("first_edition") or ""),
            meta={**meta, "section": number},
        )


def sections(text: str) -> list[str]:
    """Cut a work at its chapter headings, and where a chapter is long at a paragraph."""
    body = PROJECT_GUTENBERG.split(text.replace("\r\n", "\n"))
    paragraphs = [
        p.strip("\n") for p in re.split(r"\n\s*\n", body[1] if len(body) > 2 else body[0]) if p.strip()
    ]
    cut: list[list[str]] = []
    size = MAX_BYTES
    for paragraph in paragraphs:
        after_heading = bool(cut) and HEADING.fullmatch(cut[-1][-1]) is not None
        starts = HEADING.fullmatch(paragraph) is not None and size >= MIN_BYTES and not after_heading
        bytes_ = len(paragraph.encode())
        if starts or size + bytes_ > MAX_BYTES and not after_heading:
            cut.append([])
            size = 0
        cut[-1].append(paragraph)
        size += bytes_ + 2
    if len(cut) > 1 and size < MIN_BYTES // 2:
        cut[-2:] = [cut[-2] + cut[-1]]
    return ["\n\n".join(section) for section in cut]
