"""Novels to chapters: JSON records (`title`, `author`, `text`, …), text, Markdown, EPUB, TEI or PDF files."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from jaxtrain.collect.works import ENDS, TextSource, Work
from jaxtrain.document import Document

MIN_BYTES, MAX_BYTES = 8_000, 20_000  # of a section: short chapters are joined, long ones cut at a paragraph
HEADING = re.compile(
    r"(?:chapter|book|part|volume|letter|stave|canto|act|scene|prologue|epilogue|chapitre|kapitel|buch|livre)\b"
    r"[^\n]{0,80}|[IVXLC]+\.?(?: [^a-z\n]{1,60})?|\d{1,3}\.?",
    re.IGNORECASE,
)
PROJECT_GUTENBERG = re.compile(r"\*\*\* ?(?:START|END) OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*\n?")
_SENTENCE = re.compile(r"(?<=[.!?…。！？])[\"'”’»)\]]*\s+|(?<=[。！？])")


@dataclass(frozen=True, kw_only=True)
class BookSource(TextSource):
    """Works long enough to have chapters: a document a section of 8 to 20 kB, with the url of its work."""

    ends: ClassVar = ENDS

    license: str = "public-domain"
    """SPDX identifier, or `public-domain`."""

    def documents(self, work: Work, file: str) -> Iterator[Document]:
        """The sections of one work in the file of this name."""
        # Many books have one title, and many authors.
        url = str(work.get("url") or work.get("id") or f"{file}: {work.get('title') or work['number']}")
        for number, text in enumerate(sections(work["text"]), 1):
            yield self.document(
                f"{url}\0{number}\0{text}",
                text,
                url=url,
                language=work["language"],
                license=self.license,
                created=str(work.get("first_edition") or ""),
                meta={**work["meta"], "section": number},
            )


def sections(text: str) -> list[str]:
    """Cut a work at its chapter headings, and where a chapter is long at a paragraph, a line, a sentence."""
    body = PROJECT_GUTENBERG.split(text.replace("\r\n", "\n"))
    found = re.split(r"\n\s*\n", body[1] if len(body) > 2 else body[0])
    cut: list[list[str]] = []
    size = MAX_BYTES
    for paragraph in (part for p in found if p.strip() for part in _parts(p.strip("\n"))):
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


def _parts(text: str) -> list[str]:
    """The text itself, or, longer than a section, its lines joined to such as are not; then its sentences."""
    if len(text.encode()) <= MAX_BYTES:
        return [text]
    lines = _joined(text.split("\n"), "\n")
    texts = ([line] if len(line.encode()) <= MAX_BYTES else _joined(_sentences(line), " ") for line in lines)
    return [part for parts in texts for part in parts]


def _joined(pieces: list[str], between: str) -> list[str]:
    """Pieces one after the other, joined to texts of half a section's bytes."""
    texts: list[list[str]] = []
    size = MAX_BYTES
    for piece in pieces:
        bytes_ = len(piece.encode()) + 1
        if size + bytes_ > MAX_BYTES // 2:
            texts.append([])
            size = 0
        texts[-1].append(piece)
        size += bytes_
    return [between.join(text) for text in texts]


def _sentences(text: str) -> list[str]:
    """The sentences; of one that is longer than a section the pieces, at a space where there is one."""
    pieces: list[str] = []
    for sentence in _SENTENCE.split(text):
        while len(sentence) > MAX_BYTES // 4:
            at = max(sentence.rfind(" ", 1, MAX_BYTES // 4), 0) or MAX_BYTES // 4
            pieces.append(sentence[:at])
            sentence = sentence[at:].lstrip(" ")
        pieces.append(sentence)
    return pieces
