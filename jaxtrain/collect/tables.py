"""Tables to documents: JSON lines, Parquet and CSV, plain or gzip, bzip2, xz, Zstandard.

From paths and from any URL that fsspec reads: s3://, gs://, https://, and hf:// for the data sets of a hub.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow.parquet as pq

from jaxtrain.collect.files import (
    DAMAGED,
    MAX_RECORD,
    TOO_LONG,
    Unread,
    find,
    is_url,
    json_records,
    open_bytes,
)
from jaxtrain.document import Document, record_id
from jaxtrain.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TableSource:
    """Rows with a text."""

    name: str
    """Name of the source and of its file."""
    paths: tuple[str, ...]
    """`.jsonl`, `.json`, `.parquet`, `.csv` files (compressed or not), glob patterns or URLs; of a hub
    `hf://datasets/OWNER/NAME/**/*.parquet`."""
    text: str = "text"
    """Column of the text."""
    url: str = "url"
    """Column of the URL; its rows need not have it."""
    license: str = ""
    """SPDX identifier of rows without one in a column `license`."""
    meta: tuple[str, ...] = field(default=())
    """Columns to keep as `meta`."""


def read_table(source: TableSource, unread: Unread) -> Iterator[Document]:
    """A document a row, in the order of the files; `unread` counts the rest by reason."""
    for path in table_files(source):
        name = PurePosixPath(path).name
        for number, row in enumerate(_rows(path, name, unread)):
            text = row.get(source.text)
            if not isinstance(text, str) or not text.strip():
                unread[f"no text in column {source.text!r}"] += 1
                continue
            url = str(row.get(source.url) or "")
            yield Document(
                id=record_id(source.name, url or f"{name}\0{number}\0{text}"),
                text=text,
                source=source.name,
                url=url,
                language=str(row.get("language") or ""),
                license=str(row.get("license") or source.license),
                created=str(row.get("created") or row.get("date") or ""),
                meta={key: _plain(row[key]) for key in source.meta if row.get(key) is not None},
            )


def table_files(source: TableSource) -> list[str]:
    """Every file that the paths and URLs name, sorted."""
    found = [str(path) for path in find(source.name, local)] if (local := _local(source.paths)) else []
    for url in source.paths:
        if is_url(url):
            try:
                filesystem, pattern = fsspec.core.url_to_fs(url)
                protocol = url.partition("://")[0]
                matches = sorted(filesystem.glob(pattern)) if "*" in pattern else [pattern]
                found += [match if is_url(match) else f"{protocol}://{match}" for match in matches]
            except (ImportError, OSError, ValueError) as error:
                raise UserError(f"source {source.name!r}: {url} cannot be reached ({error})") from error
    if not found:
        raise UserError(f"source {source.name!r} has no paths; name at least one file or URL")
    return found


def _local(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(path for path in paths if not is_url(path))


def _rows(path: str, name: str, unread: Unread) -> Iterator[dict[str, Any]]:
    kind = next((end for end in (".parquet", ".csv", ".tsv") if end in name.lower()), ".jsonl")
    if kind == ".jsonl":
        yield from json_records(path, unread)
        return
    try:
        with open_bytes(path) as file:
            if kind == ".parquet":
                table = pq.ParquetFile(io.BytesIO(file.read()) if is_url(path) else path)
                with table:
                    for batch in table.iter_batches(batch_size=1024):
                        yield from batch.to_pylist()
            else:
                yield from _csv_rows(file, "\t" if kind == ".tsv" else ",", unread)
    except DAMAGED as error:
        unread[f"{name} is damaged from here on: {type(error).__name__}"] += 1


def _csv_rows(file: io.BufferedReader, delimiter: str, unread: Unread) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(MAX_RECORD)
    with io.TextIOWrapper(file, "utf-8-sig", "replace", newline="") as text:
        rows = csv.DictReader(text, delimiter=delimiter)
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                unread[TOO_LONG if "field larger" in str(error) else "not a row of CSV"] += 1
                continue
            if row is None:
                return
            yield {key: value for key, value in row.items() if key is not None}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool)) else str(value)
