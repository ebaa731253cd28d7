"""What a source is. A class of one's own in the config file is a source like those of this room:

@dataclass(frozen=True, kw_only=True)
class Mail(FileSource):
    def read_file(self, path, unread):
        for number, text in enumerate(path.read_text().split("\\nFrom ")):
            yield self.document(f"{number}", text)
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from jaxtrain.collect.download import Politeness, Refused, fetch
from jaxtrain.document import Document, Record, record_id
from jaxtrain.fields import Operational
from jaxtrain.formats.encoding import codec
from jaxtrain.formats.files import Unread, find, is_url, shown
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import track


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
    """Files, folders, glob patterns; or addresses, which are fetched to `folder` and count by their name."""
    folder: Operational[str] = ""
    """Where what was fetched is kept: a whole file is not asked for again, and a part of one goes on."""
    politeness: Operational[Politeness] = Politeness()
    """How the servers are asked."""
    license: str = ""
    """SPDX identifier of records that do not state their own."""
    encoding: str = ""
    """Encoding of text files, as `windows-1252`; empty: by their mark, as UTF-8, else as detected."""

    def files(self) -> list[Path]:
        if self.encoding and not codec(self.encoding):
            known = "one is utf-8, windows-1252, gb18030, …"
            raise UserError(f"source {self.name!r}: no encoding {self.encoding!r}; {known}")
        local = tuple(path for path in self.paths if not is_url(path))
        return find(self.name, local, self.ends) if local or not self.paths else []

    def fetched(self) -> dict[str, Path]:
        """The addresses among the paths, and where each is kept."""
        urls = [path for path in self.paths if is_url(path)]
        if urls and not self.folder:
            raise UserError(f"source {self.name!r}: {urls[0]} is an address; give a `folder` to keep it in")
        names = {url: re.sub(r"[^\w.-]+", "_", url.partition("?")[0].partition("://")[2]) for url in urls}
        return {url: Path(self.folder) / name for url, name in names.items()}

    def fetch(self, unread: Unread) -> None:
        """UserError where an address cannot be had: what came of it stays, and the next run goes on."""
        for url, file in track(self.fetched().items(), f"fetch {self.name}"):
            try:
                fetch(url, file, self.politeness)
            except Refused as error:
                again = "the same command again goes on with what is missing"
                raise UserError(f"source {self.name!r}: {url} cannot be had ({error}); {again}") from error

    def read(self, unread: Unread) -> Iterator[Item]:
        for path in [*self.files(), *self.fetched().values()]:
            yield Step(shown(path), partial(self.read_file, path, unread), path.stat().st_size)

    def read_file(self, path: Path, unread: Unread) -> Iterable[Item]:
        """The records of one file, and steps that give such."""
        raise NotImplementedError
