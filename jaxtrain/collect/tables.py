"""Tables to documents: JSON lines, Parquet and CSV, plain or gzip, bzip2, xz, Zstandard.

From paths and from any URL that fsspec reads: s3://, gs://, https://, and hf:// for the data sets of a hub.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import fsspec

from jaxtrain.collect.source import FileSource, Item, Step
from jaxtrain.document import Document
from jaxtrain.formats.encoding import codec
from jaxtrain.formats.files import Unread, Unreadable, is_url, shown
from jaxtrain.formats.rows import ENDS, Row, rows
from jaxtrain.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TableSource(FileSource):
    """Rows with a text.

    JSON, JSON lines, Parquet, CSV or TSV files, compressed or not, folders, glob patterns or URLs; of a hub
    `hf://datasets/OWNER/NAME/**/*.parquet`. Without a `folder`, what a URL names is read and not kept.
    """

    ends: ClassVar = ENDS

    text: str = "text"
    """Column of the text."""
    url: str = "url"
    """Column of the URL; its rows need not have it."""
    meta: tuple[str, ...] = ()
    """Columns to keep as `meta`."""

    def fetched(self) -> dict[str, Path]:
        return super().fetched() if self.folder else {}

    def read(self, unread: Unread) -> Iterator[Item]:
        yield from super().read(unread)
        for url in () if self.folder else self._urls():
            yield Step(shown(url), partial(self.read_file, url, unread))

    def _urls(self) -> Iterator[str]:
        for url in filter(is_url, self.paths):
            try:
                filesystem, pattern = fsspec.core.url_to_fs(url)
                matches = sorted(filesystem.glob(pattern)) if "*" in pattern else [pattern]
            except Exception as error:  # each file system has its own
                raise UserError(f"source {self.name!r}: {url} cannot be reached ({error})") from error
            if not matches:
                raise UserError(f"source {self.name!r}: no file at {url}")
            yield from map(filesystem.unstrip_protocol, matches)

    def read_file(self, path: Path | str, unread: Unread) -> Iterator[Item]:
        fixed = (self.text, self.url, "language", "license", "created", "date")
        for number, row in enumerate(rows(path, unread, (*fixed, *self.meta), codec(self.encoding))):
            yield Step(f"row {number + 1}", partial(self._document, row, f"{shown(path)}\0{number}"))

    def _document(self, row: Row, place: str) -> Iterator[Document]:
        text, url = row.get(self.text), str(row.get(self.url) or "")
        if not isinstance(text, str) or not text.strip():
            there = "" if self.text in row else f"; there are {', '.join(sorted(map(str, row))[:6])}"
            raise Unreadable(f"no text in column {self.text!r}{there}")
        yield self.document(
            f"{url or place}\0{text}",
            text,
            url=url,
            language=str(row.get("language") or ""),
            license=str(row.get("license") or self.license),
            created=str(row.get("created") or row.get("date") or ""),
            meta={
                key: value if isinstance(value, str | int | float) else str(value)
                for key in self.meta
                if (value := row.get(key)) is not None
            },
        )
