"""Rows of JSON, JSON lines, Parquet and CSV files as dictionaries; a bad row costs itself alone."""

import csv
import io
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jaxtrain.formats import encoding as encodings
from jaxtrain.formats import files
from jaxtrain.formats.files import MAX_RECORD, TOO_LONG, Unread, Unreadable, shown, stretches

Row = dict[str, Any]
ENDS = (".jsonl", ".json", ".ndjson", ".parquet", ".csv", ".tsv")
_OTHERS = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\x04\x22\x4d\x18": "compressed by LZ4; unpack it",
    b"ARROW1": "an Arrow file; write it as Parquet",
    b"%PDF-": "a PDF file, which TextSource reads",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"SQLite": "a database; write its table as Parquet or CSV",
}
_SHORTEST_LOOK = 1 << 16  # bytes in which the end of a quoted field is looked for after it was missed often


def rows(path: Path | str, unread: Unread, columns: Collection[str], encoding: str = "") -> Iterator[Row]:
    """The rows of a file or URL; of a Parquet file the `columns` alone, which need not be there.

    encoding: Python's name of that of a CSV file; empty: it is detected.
    """
    with files.open_bytes(path) as file:
        start = file.peek(8)[:8]
    if other := next((what for magic, what in _OTHERS.items() if start.startswith(magic)), ""):
        raise Unreadable(f"{shown(path)} is {other}")
    kind = files.kind_of(PurePosixPath(str(path).partition("?")[0]).name)
    if start.startswith(b"PAR1"):
        yield from _parquet(path, unread, columns)
    elif kind in (".csv", ".tsv"):
        yield from _csv(path, kind, unread, columns, encoding)
    else:
        yield from files.json_records(path, unread)


def _parquet(path: Path | str, unread: Unread, columns: Collection[str]) -> Iterator[Row]:
    """Row by row: neither a column that is not asked for nor a bad cell costs another."""
    with files.opened(path) as file, pq.ParquetFile(file) as table:
        known = set(table.schema_arrow.names)
        wanted = [name for name in dict.fromkeys(columns) if name in known]
        for group in range(table.num_row_groups):
            try:
                # One thread: the reader may be a process that was forked.
                for batch in table.iter_batches(256, row_groups=[group], columns=wanted, use_threads=False):
                    yield from _cells(batch, unread)
            except (pa.ArrowException, OSError) as error:
                unread[f"{shown(path)} is damaged at a place: {type(error).__name__}"] += 1


def _cells(batch: pa.RecordBatch, unread: Unread) -> Iterator[Row]:
    names = batch.schema.names
    columns = [[_cell(value, name, unread) for value in batch[n]] for n, name in enumerate(names)]
    for number in range(batch.num_rows):
        yield {name: values[number] for name, values in zip(names, columns, strict=True)}


def _cell(value: pa.Scalar, name: str, unread: Unread) -> Any:
    """What Python cannot say is counted, and null. Bytes are text that a writer left unmarked."""
    try:
        found = value.as_py()
        return found.decode() if isinstance(found, bytes) else found
    except (ValueError, OverflowError) as error:
        unread[f"a cell of column {name!r}: {type(error).__name__}"] += 1
        return None


def _csv(
    path: Path | str, kind: str, unread: Unread, columns: Collection[str], encoding: str
) -> Iterator[Row]:
    encoding = encoding or _encoding_of(path)
    header: list[str] = []
    for stretch in stretches(path, unread):
        utf8 = files.as_utf8(stretch, encoding)
        text = _decoded(utf8, encoding if utf8 is stretch else "utf-8", unread)
        if not header and not (header := _header(text, "\t" if kind == ".tsv" else ",", columns)):
            return
        delimiter, *names = header
        for cells in _records(text, delimiter, unread):
            yield dict(zip(names, cells, strict=False))


def _encoding_of(path: Path | str) -> str:
    """UTF-8, or what speaks out of the lines that are none."""
    sample = b""
    with closing(stretches(path, Unread())) as found:
        for stretch in found:
            if mark := encodings.mark_of(stretch.peek(4)[:4]):
                return mark
            for line in files.lines(stretch, Unread()):
                if not line.isascii() and len(sample) < 1 << 17:
                    sample += line
    try:
        sample.decode()
        return "utf-8"
    except UnicodeDecodeError as error:
        whole = encodings.is_mostly_utf8(sample, error)
        return "utf-8" if whole else encodings.detect(sample) or "utf-8"


def _decoded(stretch: io.BufferedReader, encoding: str, unread: Unread) -> Iterator[str]:
    start, lines = stretch.peek(), iter(lambda: stretch.readline(MAX_RECORD), b"")
    if b"\r" in start and b"\n" not in start:  # as Excel writes them on a Mac
        lines = (part for line in lines for part in line.splitlines(keepends=True))
    for line in lines:
        line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            yield line.decode(encoding)
        except UnicodeDecodeError:
            try:
                yield encodings.decode(line)
            except UnicodeDecodeError:
                unread[f"a line of CSV that is no {encoding}"] += 1


def _header(text: Iterator[str], delimiter: str, columns: Collection[str]) -> list[str]:
    """The delimiter that shows a wanted column, else the most columns; and their names."""
    first = next(text, "")
    if first.startswith("sep="):  # Excel's
        delimiter, first = first[4:5], next(text, "")
    rows = ((d, csv.reader([first], delimiter=d, skipinitialspace=True)) for d in (delimiter, ";", "\t", "|"))
    found = [[d, *map(str.strip, next(row, []))] for d, row in rows]
    most = max(found, key=len)
    return next((names for names in found if set(names[1:]) & set(columns)), most) if first else []


def _records(lines: Iterator[str], delimiter: str, unread: Unread) -> Iterator[list[str]]:
    """Rows. Where a quotation is not closed, the line it begins in is left out, and not all behind it."""
    csv.field_size_limit(MAX_RECORD)
    taken: list[str] = []
    again: deque[str] = deque()  # lines that a row was looked for in and that are none of its own
    most = MAX_RECORD

    def row() -> Iterator[str]:
        """The lines from here on that a row may have, of `most` characters."""
        taken.clear()
        left = most
        while line := again.popleft() if again else next(lines, ""):
            taken.append(line)
            left -= len(line)
            if left < 0:
                raise csv.Error(TOO_LONG)
            yield line

    while True:
        try:
            cells = next(csv.reader(row(), delimiter=delimiter, strict=True), None)
        except csv.Error:
            if len(taken) == 1 and taken[0].count('"') % 2 == 0:
                yield next(csv.reader(taken, delimiter=delimiter), [])
                continue
            unread[TOO_LONG if len(taken[0]) > most else "not a row of CSV"] += 1
            again.extendleft(reversed(taken[1:]))
            # Looking far ahead each time would take for ever.
            most = max(most // 2, _SHORTEST_LOOK)
            continue
        if cells is None:
            return
        if cells:
            yield cells
