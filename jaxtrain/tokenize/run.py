"""The stage: train the tokenizer on what clean kept, then encode documents, held-out text, conversations."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordWriter

from jaxtrain import artifact
from jaxtrain.document import read_rows, source_files
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say, track
from jaxtrain.tokenize import chat
from jaxtrain.tokenize.tokenizer import Tokenizer, train

CONVERSATION_SHARE = 0.1  # of the sample that BPE is trained on: chat is what the model will write
BATCH = 256  # texts encoded at once
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """Train a tokenizer and encode an artifact of clean with it."""

    documents: str
    """Folder of a finished clean artifact."""
    out: str
    """Folder to write."""
    vocab_size: int = 4096
    """Number of ids, the seven special tokens included."""
    sample_bytes: int = 50_000_000
    """UTF-8 bytes of text that BPE is trained on, in the proportions of `mixture.json`, conversations about a
    tenth; a source that has less than its share gives all it has."""


configs: tuple[type, ...] = (TokenizeConfig,)


def run(config: TokenizeConfig) -> Path:
    """Write the artifact of docs/formats.md, section 3."""
    artifact.require(config.documents, "clean")
    inputs = {"documents": config.documents}
    return artifact.produce(config, inputs=inputs, write=lambda folder: _write(config, folder))


def _write(config: TokenizeConfig, folder: Path) -> artifact.Counts:
    clean = Path(config.documents)
    mixture = json.loads((clean / "mixture.json").read_text())
    sources = {path.stem for path in source_files(clean / "documents")}
    if missing := sorted(set(mixture) - sources):
        raise UserError(f"{clean}: mixture.json names {missing}, which documents/ lacks; run clean again")
    if unused := sorted(sources - set(mixture)):
        say(f"tokenize: not in mixture.json, so encoded but not trained on: {', '.join(unused)}")
    sample = Counter[str]()
    tokenizer = train(_sample(clean, mixture, config.sample_bytes, sample), config.vocab_size)
    tokenizer.save(folder / "tokenizer")
    shutil.copyfile(clean / "mixture.json", folder / "mixture.json")
    counts: artifact.Counts = {"vocab_size": tokenizer.vocab_size, "sample_bytes": dict(sample)}
    for kind, encode in (("documents", _encode), ("heldout", _encode), ("conversations", _encode_chat)):
        counts[kind] = {}
        for path in source_files(clean / kind):
            counts[kind][path.stem] = _write_source(path, folder / kind / path.stem, tokenizer, encode)
            shown = {name: value for name, value in counts[kind][path.stem].items() if value}
            say(f"tokenize: {kind}/{path.stem}: " + ", ".join(f"{name} {shown[name]}" for name in shown))
    return counts


def _sample(clean: Path, mixture: dict[str, float], size: int, taken: Counter[str]) -> Iterator[str]:
    """Texts for BPE: of each source its share of `size` bytes, or all it has; counts the bytes in `taken`.

    A record is taken when the hash of its id falls below the share wanted: spread over the source, stable.
    """
    chats = source_files(clean / "conversations")
    shares = {clean / "documents" / f"{source}.parquet": weight for source, weight in mixture.items()}
    shares |= {path: CONVERSATION_SHARE / len(chats) for path in chats}
    for path, share in shares.items():
        there = _text_bytes(path)
        wanted = size * share / sum(shares.values())
        for row in track(read_rows(path), f"tokenize: reading {path.stem}"):
            draw = int.from_bytes(hashlib.blake2b(row["id"].encode(), digest_size=8).digest()) / 2**64
            if draw * there < wanted:
                for text in _texts(row):
                    taken[f"{path.parent.name}/{path.stem}"] += len(text.encode())
                    yield text


def _text_bytes(path: Path) -> int:
    """UTF-8 bytes of all texts of a Parquet file."""
    total = 0
    with pq.ParquetFile(path) as file:
        column = "text" if "text" in file.schema_arrow.names else "messages"
        for batch in file.iter_batches(columns=[column]):
            texts = batch.column(0)
            if column == "messages":
                texts = pc.struct_field(pc.list_flatten(texts), "content")
            total += pc.sum(pc.binary_length(texts)).as_py() or 0
    return total


def _texts(row: Row) -> list[str]:
    return [row["text"]] if "text" in row else [message["content"] for message in row["messages"]]


@dataclass(frozen=True)
class _Encoded:
    """One record to be: its ids, what else is stored behind them, and the UTF-8 bytes of its text."""

    ids: list[int]
    mask: list[int]
    bytes: int


Encode = Callable[[list[Row], Tokenizer, Counter[str]], Iterator[_Encoded]]


def _encode(rows: list[Row], tokenizer: Tokenizer, dropped: Counter[str]) -> Iterator[_Encoded]:
    texts = [row["text"] for row in rows]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        yield _Encoded(ids, [], len(text.encode()))


def _encode_chat(rows: list[Row], tokenizer: Tokenizer, dropped: Counter[str]) -> Iterator[_Encoded]:
    for row in rows:
        try:
            ids, mask = chat.render(row["messages"], tokenizer)
        except UserError as error:  # one bad record of many is dropped under its reason
            dropped[str(error)] += 1
            continue
        yield _Encoded(ids, mask, sum(len(text.encode()) for text in _texts(row)))


def _write_source(path: Path, folder: Path, tokenizer: Tokenizer, encode: Encode) -> artifact.Counts:
    """Encode one Parquet file into `folder`; returns its counts."""
    folder.mkdir(parents=True)
    lengths: list[int] = []
    sizes: list[int] = []
    dropped = Counter[str]()
    # A group of one record: reading a record decompresses nothing else.
    writer = ArrayRecordWriter(str(folder / "00000.arrayrecord"), "group_size:1")
    for rows in track(_batches(path), f"tokenize: {path.stem}, batches of {BATCH}"):
        for record in encode(rows, tokenizer, dropped):
            writer.write(np.asarray(record.ids, tokenizer.id_dtype).tobytes() + bytes(record.mask))
            lengths.append(len(record.ids))
            sizes.append(record.bytes)
    writer.close()
    np.save(folder / "lengths.npy", np.asarray(lengths, np.int64))
    if path.parent.name == "heldout":
        np.save(folder / "bytes.npy", np.asarray(sizes, np.int64))
    tokens, total = sum(lengths), sum(sizes)
    counts = {
        "records": len(lengths),
        "tokens": tokens,
        "bytes": total,
        "dropped": dict(sorted(dropped.items())),
    }
    return counts | {"bytes_per_token": round(total / tokens, 3) if tokens else None}


def _batches(path: Path) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in read_rows(path):
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
