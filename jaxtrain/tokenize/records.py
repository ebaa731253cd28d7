"""Parquet files of clean -> ArrayRecord files of ids: in shards, on all cores, the same bytes on any number.

A source is cut into shards by its Parquet row groups. One shard is encoded on threads; several are written by
one process a core, because writing an ArrayRecord holds Python's lock.
"""

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from array_record.python.array_record_module import ArrayRecordWriter

from jaxtrain import artifact
from jaxtrain.conversation import said
from jaxtrain.document import batched, parquet
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import track
from jaxtrain.tokenize import chat
from jaxtrain.tokenize.tokenizer import Tokenizer

GROUPS_A_SHARD = 64  # row groups of 1,024: a shard has up to 65,536 records
# reading a record decompresses nothing else; a higher level is slower, not smaller
OPTIONS = "group_size:1,zstd:1"
ROWS = 64  # encoded by a thread at a time
AHEAD = 8  # such pieces of work are given to each thread at once
Row = dict[str, Any]


@dataclass(frozen=True)
class Encoded:
    """One record to be."""

    stored: bytes
    length: int
    """Ids in it."""
    bytes: int
    """UTF-8 bytes of its text."""


Found = Encoded | UserError


@dataclass(frozen=True)
class Kind:
    """How the rows of a folder of clean become records."""

    columns: tuple[str, ...]
    """Those of them that a file lacks are absent from its rows."""
    encode: Callable[[Row, Tokenizer], list[Encoded]]
    """Errors: UserError for a row that cannot be encoded; it is dropped under that reason."""
    texts: Callable[[Row], list[str]]


def _document(row: Row, tokenizer: Tokenizer) -> list[Encoded]:
    ids = tokenizer.encode_array(row["text"])
    return [Encoded(ids.tobytes(), len(ids), len(row["text"].encode()))]


def _conversation(row: Row, tokenizer: Tokenizer) -> list[Encoded]:
    """Ids and mask of each rendering."""
    size = sum(len(text.encode()) for text in _turns(row))
    return [
        Encoded(np.asarray(ids, tokenizer.id_dtype).tobytes() + bytes(mask), len(ids), size)
        for ids, mask in chat.renderings(row["messages"], tokenizer, json.loads(row.get("tools") or "[]"))
    ]


def _turns(row: Row) -> list[str]:
    return list(map(said, row["messages"]))


_DOCUMENTS = Kind(("text",), _document, lambda row: [row["text"]])
KINDS = {
    "documents": _DOCUMENTS,
    "heldout": _DOCUMENTS,
    "conversations": Kind(("messages", "tools"), _conversation, _turns),
}
"""Folders of clean, and what becomes of them."""


@dataclass(frozen=True)
class _Written:
    lengths: list[int]
    bytes: list[int]
    dropped: Counter[str]


def write_source(source: Path, folder: Path, tokenizer: Tokenizer) -> artifact.Counts:
    """Encode one Parquet file into `folder`: shards, `lengths.npy`, `bytes.npy` if held out; its counts."""
    folder.mkdir(parents=True)
    with parquet(source) as file:
        groups, rows = file.num_row_groups, file.metadata.num_rows
    starts = range(0, max(groups, 1), GROUPS_A_SHARD)
    parts = [range(start, min(start + GROUPS_A_SHARD, groups)) for start in starts]
    files = [folder / f"{n:05}.arrayrecord" for n in range(len(parts))]
    write = partial(_write_shard, source, tokenizer)
    what = f"tokenize: {source.parent.name}/{source.stem}"
    cores = os.cpu_count() or 1
    if len(parts) == 1:
        written = [write(parts[0], files[0], cores, lambda found: track(found, what, rows))]
    else:
        with ProcessPoolExecutor(min(len(parts), cores), multiprocessing.get_context("spawn")) as pool:
            written = list(track(pool.map(write, parts, files), f"{what}, shards", len(parts)))
    lengths = [length for part in written for length in part.lengths]
    sizes = [size for part in written for size in part.bytes]
    np.save(folder / "lengths.npy", np.asarray(lengths, np.int64))
    if source.parent.name == "heldout":
        np.save(folder / "bytes.npy", np.asarray(sizes, np.int64))
    tokens, total = sum(lengths), sum(sizes)
    return {
        "records": len(lengths),
        "tokens": tokens,
        "bytes": total,
        "dropped": dict(sorted(sum((part.dropped for part in written), Counter()).items())),
        "bytes_per_token": round(total / tokens, 3) if tokens else None,
    }


def _write_shard(
    source: Path,
    tokenizer: Tokenizer,
    groups: range,
    target: Path,
    threads: int = 1,
    shown: Callable[[Iterator[Found]], Iterator[Found]] = iter,
) -> _Written:
    """Encode some row groups of a source into the file `target`."""
    kind, result = KINDS[source.parent.name], _Written([], [], Counter())
    writer = ArrayRecordWriter(str(target), OPTIONS)
    with parquet(source) as file, ThreadPoolExecutor(threads) as pool:
        batches = file.iter_batches(ROWS, row_groups=list(groups), columns=list(kind.columns))
        encode = partial(_encoded, kind, tokenizer)
        rounds = (pool.map(encode, some) for some in batched(batches, AHEAD * threads))
        for record in shown(chain.from_iterable(chain.from_iterable(rounds))):
            if isinstance(record, UserError):
                result.dropped[str(record)] += 1
                continue
            writer.write(record.stored)
            result.lengths.append(record.length)
            result.bytes.append(record.bytes)
    writer.close()
    return result


def _encoded(kind: Kind, tokenizer: Tokenizer, batch: pa.RecordBatch) -> list[Found]:
    """The records of some rows; one bad row of many is dropped under its reason."""
    found = list[Found]()
    for row in batch.to_pylist():
        try:
            found += kind.encode(row, tokenizer)
        except UserError as error:
            found.append(error)
    return found
