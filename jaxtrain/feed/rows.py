"""Rows of a batch from the pieces of records in them, whole arrays at a time.

A record is read as two byte strings (`Marked`), cut to a piece by slicing; everything per token is numpy.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxtrain.feed.packing import Plan, ranges
from jaxtrain.feed.sources import ConversationRecords, TokenRecords
from jaxtrain.tokenize.tokenizer import Tokenizer

Batch = dict[str, np.ndarray]
Marked = tuple[bytes, bytes]
"""Stored ids of a record; and a byte for each: 1 where it counts as a target."""


@dataclass(frozen=True)
class Packed:
    """Records and the plan that lays them out in rows."""

    plan: Plan
    read: Callable[[np.ndarray], list[Marked]]
    """The records of these indices, in their order."""


def assemble(
    sources: list[Packed], source_of: np.ndarray, row_of: np.ndarray, tokenizer: Tokenizer, length: int
) -> Batch:
    """The batch (docs/formats.md) whose row i is row `row_of[i]` of the plan of `sources[source_of[i]]`."""
    counts = np.zeros(len(row_of), np.int64)  # pieces of each row
    taken = []
    for source in np.unique(source_of).tolist():
        here = np.flatnonzero(source_of == source)
        pieces, counts[here] = sources[source].plan.take(row_of[here])
        taken.append((source, here, pieces))
    firsts = np.cumsum(counts) - counts
    sizes = np.zeros(counts.sum(), np.int64)
    ids, counted = [b""] * len(sizes), [b""] * len(sizes)
    for source, here, pieces in taken:
        places = ranges(firsts[here], counts[here])
        sizes[places] = pieces[:, 2] - pieces[:, 1]
        marked = sources[source].read(pieces[:, 0])
        pad = np.asarray(tokenizer.pad, tokenizer.id_dtype).tobytes()
        for place, record, (_, start, stop) in zip(places.tolist(), marked, pieces.tolist(), strict=True):
            ids[place], counted[place] = _piece(record, start, stop + 1, pad)
    return _arrays(
        np.frombuffer(b"".join(ids), tokenizer.id_dtype),
        np.frombuffer(b"".join(counted), np.uint8),
        sizes,
        counts,
        length,
        tokenizer.pad,
    )


def _piece(record: Marked, start: int, stop: int, pad: bytes) -> Marked:
    """Tokens start..stop-1 of a record; behind its last token, which has no target, one pad."""
    ids, counted = record
    if stop > len(counted):
        ids, counted = ids + pad, counted + b"\0"
    return ids[start * len(pad) : stop * len(pad)], counted[start:stop]


def _arrays(
    ids: np.ndarray, counted: np.ndarray, sizes: np.ndarray, counts: np.ndarray, length: int, pad: int
) -> Batch:
    """ids, counted: of all pieces, one behind the other, each with the token that follows it.

    sizes: tokens of each piece. counts: pieces of each row.
    """
    firsts = np.cumsum(counts) - counts
    total = int(sizes.sum())
    ends = np.cumsum(sizes)
    here = np.arange(total) + np.repeat(np.arange(len(sizes)), sizes)  # a token more for each piece before
    room = np.diff(np.concatenate([[0], ends])[np.concatenate([firsts, [len(sizes)]])])
    full_BT = np.arange(length) < room[:, None]

    def row(values: np.ndarray, empty: int, dtype: type) -> np.ndarray:
        array_BT = np.full((len(counts), length), empty, dtype)
        array_BT[full_BT] = values
        return array_BT

    segments = np.arange(len(sizes)) - np.repeat(firsts, counts) + 1
    return {
        "tokens": row(ids[here], pad, np.int32),
        "targets": row(ids[here + 1], pad, np.int32),
        "loss_weights": row(counted[here + 1], 0, np.float32),
        "segment_ids": row(np.repeat(segments, sizes), 0, np.int32),
        "positions": row(np.arange(total) - np.repeat(ends - sizes, sizes), 0, np.int32),
    }


def documents(records: TokenRecords, tokenizer: Tokenizer) -> Callable[[np.ndarray], list[Marked]]:
    """Documents between `<|bos|>` and `<|eos|>`; every token but the first counts as a target."""
    bos, eos = (np.asarray(token, records.dtype).tobytes() for token in (tokenizer.bos, tokenizer.eos))

    def read(indices: np.ndarray) -> list[Marked]:
        whole = [b"".join((bos, stored, eos)) for stored in records.stored(indices)]
        return [(ids, b"\1" * (len(ids) // len(bos))) for ids in whole]

    return read


def conversations(records: ConversationRecords, indices: np.ndarray) -> list[Marked]:
    """Rendered conversations; what the assistant says counts as a target."""
    ends = (records.lengths[indices] * records.dtype.itemsize).tolist()
    return [(data[:end], data[end:]) for data, end in zip(records.stored(indices), ends, strict=True)]
