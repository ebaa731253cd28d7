"""What a source is. A class of one's own in the config file is a source like those of this room:

@dataclass(frozen=True, kw_only=True)
class Mail(FileSource):
    def read_file(self, path, unread):
        for number, text in enumerate(path.read_text().split("\\nFrom ")):
            yield self.document(f"{number}", text)
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from jaxtrain.document import Document, Record, record_id
from jaxtrain.formats.encoding import codec
from jaxtrain.formats.files import Unread, find, shown
from jaxtrain.runtime.errors import UserError


@dataclass(frozen=True)
class Step:
    """A part of the reading that may fail alone: a file, or one record of it (guard.py)."""

    place: str
    """What is read, as `a.warc.gz` or `record 17`."""
    run: Callable[[], Iterable["Item"]]
    size: int = 0
    """Bytes that it works on; its bound on processor time grows with them."""


Item = Record | Step | None
"""None: nothing yet, but another piece of the work is done, which had its own bounds."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Something that holds records."""

    record_type: ClassVar[type[Record]] = Document
    """What it gives: Document or Conversation."""

    name: str
    """Name of the source and of its file."""

    def fetch(self, unread: Unread) -> None:
        """Get over the network what is not there yet; called before `files` are read."""

    def files(self) -> list[Path]:
        """What it reads here, in order: the stage runs again when their contents change."""
        return []

    def read(self, unread: Unread) -> Iterator[Item]:
        """Its records, and steps that give such; `unread` counts by reason what cannot be read.

        An exception within a step costs that step, UserError the stage.
        """
        raise NotImplementedError

    def document(self, key: str, text: str, **fields: Any) -> Document:
        """A document of this source. key: its address or place, by which it has the same id in every run."""
        return Document(id=record_id(self.name, key), text=text, source=self.name, **fields)


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """Files, read one by one."""

    ends: ClassVar[tuple[str, ...]] = ()
    """How the names of its files end in a folder; empty: all of them count."""

    paths: tuple[str, ...]
    """Files, folders or glob patterns."""
    license: str = ""
    """SPDX identifier of records that do not state their own."""
    encoding: str = ""
    """Encoding of text files, as `windows-1252`; empty: by their mark, as UTF-8, else as detected."""

    def files(self) -> list[Path]:
        if self.encoding and not codec(self.encoding):
            known = "one is utf-8, windows-1252, gb18030, …"
            raise UserError(f"source {self.name!r}: no encoding {self.encoding!r}; {known}")
        return find(self.name, self.paths, self.ends)

    def read(self, unread: Unread) -> Iterator[Item]:
        for path in self.files():
            yield Step(shown(path), partial(self.read_file, path, unread), path.stat().st_size)

    def read_file(self, path: Path, unread: Unread) -> Iterable[Item]:
        """The records of one file, and steps that give such."""
        raise NotImplementedError
