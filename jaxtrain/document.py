"""Document and Conversation: the records that flow from collect to tokenize, and their Parquet files.

A folder of records holds one Parquet file (zstd) a source: `<folder>/<source>.parquet`.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from jaxtrain import integrity
from jaxtrain.conversation import MESSAGES, Message, without_nulls
from jaxtrain.runtime.errors import UserError

ROWS_PER_GROUP = 1024
PARQUET = {"compression": "zstd", "write_page_checksum": True}
"""How Parquet is written."""


def record_id(source: str, key: str) -> str:
    """A stable 16-digit id: the same page, file or chapter has it in every run."""
    return hashlib.blake2b(f"{source}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text and where it came from."""

    id: str
    """16 hex digits, `record_id(source, key)`."""
    text: str
    source: str
    """Name of the source in the config, for example `wiki`; also the name of its file."""
    url: str = ""
    """Where a reader finds it. Documents cut from one work (chapters of a book) share it."""
    language: str = ""
    """ISO 639-1; for code the programming language (`python`). Empty: not known yet."""
    license: str = ""
    """SPDX identifier, or `public-domain`. Empty: not known."""
    created: str = ""
    """ISO 8601 date of the text, where the source has one."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Anything else; stored as a JSON string."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns of people, an assistant and its tools (TRL's `messages` and `tools`)."""

    id: str
    messages: list[Message]
    """`role`, `content`, and of tools `tool_calls` and `tool_call_id` (conversation.py)."""
    source: str
    license: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    tools: list[dict[str, Any]] = field(default_factory=list)
    """What the assistant may call, in OpenAI's form; stored as a JSON string."""


_TYPES = {"messages": MESSAGES}
Record = Document | Conversation
Kind = TypeVar("Kind", Document, Conversation)


def schema(kind: type[Record], signals: dict[str, pa.DataType] | None = None) -> pa.Schema:
    """The Parquet columns of `kind`, with signal columns (numbers measured by clean) behind them."""
    columns = [(f.name, _TYPES.get(f.name, pa.string())) for f in fields(kind)]
    return pa.schema(columns + list((signals or {}).items()))


def to_row(record: Record) -> dict[str, Any]:
    row = asdict(record)
    row["meta"] = json.dumps(record.meta, sort_keys=True, ensure_ascii=False)
    if isinstance(record, Conversation):
        row["tools"] = json.dumps(record.tools, ensure_ascii=False) if record.tools else ""
    return row


def write_records(path: Path, kind: type[Record], records: Iterable[Record]) -> int:
    """Write one Parquet file of `kind`, in the order given; returns the number of records."""
    return write_rows(path, schema(kind), map(to_row, records))


def write_rows(path: Path, columns: pa.Schema, rows: Iterable[dict[str, Any]]) -> int:
    """Write dictionaries as one Parquet file; returns their number."""
    with TableWriter(path, columns) as writer:
        for group in batched(rows, ROWS_PER_GROUP):
            writer.write(pa.Table.from_pylist(group, schema=columns))
    return writer.rows


class TableWriter(AbstractContextManager["TableWriter"]):
    """One Parquet file from tables of any length: the same rows give the same row groups, and so bytes."""

    def __init__(self, path: Path, columns: pa.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._columns, self._waiting, self.rows = columns, columns.empty_table(), 0
        self._writer = pq.ParquetWriter(path, columns, **PARQUET)

    def __exit__(self, *_: object) -> None:
        """Write what waits for a full row group."""
        if self._waiting.num_rows:
            self._writer.write_table(self._waiting.combine_chunks())
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Append rows; columns beyond those of the file are left out."""
        self.rows += table.num_rows
        table = table.select(self._columns.names).cast(self._columns)
        self._waiting = pa.concat_tables([self._waiting, table])
        while self._waiting.num_rows >= ROWS_PER_GROUP:
            self._writer.write_table(self._waiting.slice(0, ROWS_PER_GROUP).combine_chunks())
            self._waiting = self._waiting.slice(ROWS_PER_GROUP)


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


@contextmanager
def parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file, whose pages are compared with their checksums when they are read.

    Errors: UserError where it is not what was written, also while it is read.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if not _agrees(file):
                raise pa.ArrowInvalid("its columns are not those that were written")
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError, binascii.Error) as error:
        problem = str(error).splitlines()[0][:200]
        raise UserError(f"{path} is not a readable Parquet file ({problem}); run its stage again") from error


def _agrees(file: pq.ParquetFile) -> bool:
    """Whether the footer, which has no checksum, says the same where it says a thing twice."""
    stored = (file.metadata.metadata or {}).get(b"ARROW:schema")
    written = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(stored))) if stored else file.schema_arrow
    rows = sum(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
    return written.equals(file.schema_arrow) and rows == file.metadata.num_rows


def read_rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of one Parquet file, a row group in memory at a time; UserError where it was changed."""
    integrity.check_file(path)
    with parquet(path) as file:
        read = 0
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=columns):
            yield from batch.to_pylist()
            read += batch.num_rows
        if read != file.metadata.num_rows:
            raise pa.ArrowInvalid(f"it has {read} rows of {file.metadata.num_rows}")


def read_records(path: Path, kind: type[Kind]) -> Iterator[Kind]:
    """Records of one file; signal columns are left aside."""
    names = [f.name for f in fields(kind)]
    for row in read_rows(path, names):
        record = replace(kind(**row), meta=json.loads(row["meta"] or "{}"))
        if isinstance(record, Conversation):
            tools = json.loads(row.get("tools") or "[]")
            record = replace(record, messages=without_nulls(record.messages), tools=tools)
        yield record


def source_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder of records, by name; an absent folder has none."""
    return sorted(folder.glob("*.parquet"))
