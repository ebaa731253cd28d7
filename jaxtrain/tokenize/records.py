"""Parquet files of clean -> ArrayRecord files of ids: in shards, on all cores, the same bytes on any number.

A source is cut into shards by its Parquet row groups. One shard is encoded on threads; several are written by
one process a core, because writing an ArrayRecord holds Python's lock.
"""

import json
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from jaxtrain import artifact
from jaxtrain.conversation import said
from jaxtrain.document import parquet
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import track
from jaxtrain.tokenize import chat
from jaxtrain.tokenize.tokenizer import Tokenizer

GROUPS_A_SHARD = 64  # row groups of 1,024: a shard has up to 65,536 records
OPTIONS = (
    "group_size:1,zstd:1"  # reading a record decompresses nothing else; a higher level is slower, not smaller
)
ROWS = 64  # encoded by a thread at a time
AHEAD = 4  # such pieces of work waiting for each thread
Row = dict[str, Any]
In, Out = TypeVar("In"), TypeVar("Out")


@dataclass(frozen=True)
class Encoded:
    """One record to be."""

    stored: bytes
    length: int | tuple[int, ...]
    """Ids in it; of each part where it has several."""
    bytes: int
    """UTF-8 bytes of its text."""


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
    found = chat.renderings(row["messages"], tokenizer, tools=_tools(row))
    return [_parts([one], row["messages"], tokenizer) for one in found]


def _prompt(row: Row, tokenizer: Tokenizer) -> list[Encoded]:
    ids, _ = chat.render(row["prompt"], tokenizer, tools=_tools(row), generation_prompt=True)
    return [Encoded(np.asarray(ids, tokenizer.id_dtype).tobytes(), len(ids), _bytes(row["prompt"]))]


def _preference(row: Row, tokenizer: Tokenizer) -> list[Encoded]:
    both = [row["prompt"] + row[name] for name in ("chosen", "rejected")]
    parts = [chat.render(messages, tokenizer, tools=_tools(row)) for messages in both]
    return [_parts(parts, row["prompt"] + row["chosen"] + row["rejected"], tokenizer)]


def _tools(row: Row) -> list[Row]:
    """What the assistant may call; a JSON string in the file."""
    return json.loads(row.get("tools") or "[]")


def _parts(parts: list[tuple[list[int], list[int]]], messages: list[Row], tokenizer: Tokenizer) -> Encoded:
    """The ids of every part, then the masks of every part."""
    ids = b"".join(np.asarray(ids, tokenizer.id_dtype).tobytes() for ids, _ in parts)
    lengths = tuple(len(ids) for ids, _ in parts)
    stored = ids + b"".join(bytes(mask) for _, mask in parts)
    return Encoded(stored, lengths if len(lengths) > 1 else lengths[0], _bytes(messages))


def _bytes(messages: Iterable[Row]) -> int:
    return sum(len(said(message).encode()) for message in messages)


def _contents(*columns: str) -> Callable[[Row], list[str]]:
    return lambda row: [said(message) for column in columns for message in row[column]]


KINDS = {
    "documents": Kind(("text",), _document, lambda row: [row["text"]]),
    "heldout": Kind(("text",), _document, lambda row: [row["text"]]),
    "conversations": Kind(("messages", "tools"), _conversation, _contents("messages")),
    "preferences": Kind(
        ("prompt", "chosen", "rejected", "tools"), _preference, _contents("prompt", "chosen", "rejected")
    ),
    "prompts": Kind(("prompt", "tools"), _prompt, _contents("prompt")),
}
"""Folders that clean may have, and what becomes of them."""


@dataclass(frozen=True)
class _Shard:
    """A part of a source, and all that a process needs to write it."""

    source: Path
    groups: range
    target: Path
    tokenizer: Tokenizer


@dataclass(frozen=True)
class _Written:
    lengths: list[int | tuple[int, ...]]
    bytes: list[int]
    dropped: Counter[str]


def write_source(source: Path, folder: Path, tokenizer: Tokenizer) -> artifact.Counts:
    """Encode one Parquet file into `folder`: shards, `lengths.npy`, `bytes.npy` if held out; its counts."""
    folder.mkdir(parents=True)
    with parquet(source) as file:
        groups, rows = file.num_row_groups, file.metadata.num_rows
    starts = range(0, max(groups, 1), GROUPS_A_SHARD)
    shards = [
        _Shard(
            source,
            range(start, min(start + GROUPS_A_SHARD, groups)),
            folder / f"{n:05}.arrayrecord",
            tokenizer,
        )
        for n, start in enumerate(starts)
    ]
    what = f"tokenize: {source.parent.name}/{source.stem}"
    if len(shards) == 1:
        written = [_write_shard(shards[0], os.cpu_count() or 1, lambda found: track(found, what, rows))]
    else:
        processes = min(len(shards), os.cpu_count() or 1)
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            written = list(track(pool.map(_write_shard, shards), f"{what}, shards", len(shards)))
    lengths = [length for part in written for length in part.lengths]
    sizes = [size for part in written for size in part.bytes]
    np.save(folder / "lengths.npy", np.asarray(lengths, np.int64))
    if source.parent.name == "heldout":
        np.save(folder / "bytes.npy", np.asarray(sizes, np.int64))
    tokens, total = int(np.sum(lengths)), sum(sizes)
    return {
        "records": len(lengths),
        "tokens": tokens,
        "bytes": total,
        "dropped": dict(sorted(sum((part.dropped for part in written), Counter()).items())),
        "bytes_per_token": round(total / tokens, 3) if tokens else None,
    }


def _write_shard(
    shard: _Shard, threads: int = 1, shown: Callable[[Iterator[Out]], Iterator[Out]] = iter
) -> _Written:
    kind = KINDS[shard.source.parent.name]
    result = _Written([], [], Counter())

    def encode(rows: list[Row]) -> list[Encoded | UserError]:
        return [record for row in rows for record in _encoded(kind, row, shard.tokenizer)]

    def encoded() -> Iterator[Encoded | UserError]:
        with ThreadPoolExecutor(threads) as pool:
            for part in _ahead(pool, encode, _rows(shard, kind), AHEAD * threads):
                yield from part

    writer = ArrayRecordWriter(str(shard.target), OPTIONS)
    for record in shown(encoded()):
        if isinstance(record, UserError):
            result.dropped[str(record)] += 1
            continue
        writer.write(record.stored)
        result.lengths.append(record.length)
        result.bytes.append(record.bytes)
    writer.close()
    return result


def _encoded(kind: Kind, row: Row, tokenizer: Tokenizer) -> Sequence[Encoded | UserError]:
    try:
        return kind.encode(row, tokenizer)
    except UserError as error:  # one bad record of many is dropped under its reason
        return [error]


def _rows(shard: _Shard, kind: Kind) -> Iterator[list[Row]]:
    with parquet(shard.source) as file:
        groups = list(shard.groups)
        for batch in file.iter_batches(ROWS, row_groups=groups, columns=list(kind.columns)):
            yield batch.to_pylist()


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[In], Out], items: Iterable[In], most: int
) -> Iterator[Out]:
    """`function` of each item, in order, with at most `most` items under way."""
    waiting: deque[Future[Out]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) == most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
