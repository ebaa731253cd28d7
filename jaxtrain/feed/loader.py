"""Batches as a pure function of (seed, step), the same for any number of processes.

Every dataset is a Grain MapDataset, so `dataset[step]` is the whole state. The rows of a batch are chosen
first, by index arithmetic (shuffle -> mix -> this process' rows), and then read and laid out all at once.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import grain
import jax
import numpy as np

from jaxtrain.feed import rows
from jaxtrain.feed.documents import BatchSizes, Documents
from jaxtrain.feed.packing import best_fit
from jaxtrain.feed.rows import Batch, Packed
from jaxtrain.feed.shuffle import Epochs, key, splitmix64
from jaxtrain.feed.sources import TokenData
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say

Process = tuple[int, int]
Draw = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Numbers of rows of the endless stream -> of each its source and its row there; all int64 [n]."""
ENDLESS = 2**53  # batches; Grain divides lengths as floats, which are exact up to here


def document_batches(documents: Documents, process: Process | None = None) -> grain.MapDataset:
    """Endless batches of documents, in the proportions of their sources.

    process: (a process, number of processes), which gets its contiguous rows of every global batch; None:
    this one.
    """
    packed, draw, sizes = documents.packed, documents.draw, documents.sizes
    return _batches(documents.data, packed, draw, ENDLESS, sizes, documents.length, process)


def heldout_batches(
    folder: str | Path,
    source: str,
    *,
    batch_size: int,
    length: int,
    process: Process | None = None,
) -> grain.MapDataset:
    """The held-out documents of a source, once: every token except `<|bos|>` is a target exactly once.

    `len()` is the number of batches; rows without a document fill the last one with weight 0.
    """
    data = TokenData.open(folder)
    records = data.heldout(source)
    plan = best_fit(records.lengths + 2, length)
    packed = Packed(plan, rows.documents(records, data.tokenizer))
    count = -(-len(plan) // batch_size)
    return _batches(data, [packed], _in_order, count, BatchSizes(batch_size), length, process)


def heldout_sources(folder: str | Path) -> list[str]:
    """Sources that have held-out text, sorted."""
    data = TokenData.open(folder)
    return [source for source in data.names("heldout") if len(data.lengths("heldout", source))]


def conversation_batches(
    folder: str | Path,
    *,
    batch_size: int,
    length: int,
    seed: int,
    split: Literal["train", "heldout"] = "train",
    heldout_share: float = 0.05,
    sources: Sequence[str] = (),
    process: Process | None = None,
) -> grain.MapDataset:
    """Conversations of some sources, or of all, never cut; only what the assistant says has weight.

    train: endless, each epoch in a new order. heldout: each conversation once, `len()` batches, the last
    filled with empty rows. A conversation is held out by a hash of its source and index, so the split does
    not move with `seed`, `length` or the number of processes. Conversations longer than `length` are left
    out, and said so.
    """
    data = TokenData.open(folder)
    packed = _conversations(data, sources or data.names("conversations"), length, split, heldout_share)
    if split == "heldout":
        draw, count = _in_order, -(-len(packed.plan) // batch_size)
    else:
        epochs = Epochs(len(packed.plan), seed, "conversations")
        draw, count = lambda numbers: _in_order(epochs[numbers]), ENDLESS
    return _batches(data, [packed], draw, count, BatchSizes(batch_size), length, process)


def prefetch(dataset: grain.MapDataset, start: int, stop: int, threads: int = 2) -> Iterator[Batch]:
    """Batches start..stop-1 in order, loaded ahead on `threads` threads."""
    if start >= stop:
        return
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    yield from dataset[start:stop].to_iter_dataset(options)


def _batches(
    data: TokenData,
    packed: list[Packed],
    draw: Draw,
    count: int,
    sizes: BatchSizes,
    length: int,
    process: Process | None,
) -> grain.MapDataset:
    this, processes = process or (jax.process_index(), jax.process_count())
    if sizes.full % processes:
        raise UserError(f"batch_size = {sizes.full} does not divide among {processes} processes")
    own = sizes.full // processes

    def batch(step: int) -> Batch:
        here = np.arange(this * own, (this + 1) * own)
        filled = np.count_nonzero(here < sizes.rows(step))
        sources, places = np.zeros(own, np.int64), np.full(own, len(packed[0].plan))  # a row behind its last
        sources[:filled], places[:filled] = draw(sizes.first(step) + here[:filled])
        return rows.assemble(packed, sources, places, data.tokenizer, length)

    return grain.MapDataset.range(count).map(batch)


def _in_order(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of one plan as they come; those behind its last are empty."""
    return np.zeros_like(numbers), numbers


def _conversations(
    data: TokenData, names: Sequence[str], length: int, split: str, heldout_share: float
) -> Packed:
    """The conversations of one split, of the sources in one list; says how many are longer than a row."""
    records = data.conversations(*names)
    hashed = [np.zeros(0, np.uint64)]
    for name in names:
        places = np.arange(len(data.lengths("conversations", name)), dtype=np.uint64)
        hashed.append(splitmix64(np.uint64(key("heldout", name)) ^ places))
    is_heldout = np.concatenate(hashed) < heldout_share * 2**64
    chosen = np.flatnonzero(is_heldout == (split == "heldout"))
    fits = records.lengths[chosen] <= length
    if not fits.all():
        left_out = f"left out {np.count_nonzero(~fits)} of {len(fits)} {split} conversations"
        say(f"{data.folder}: {left_out}, longer than {length} tokens")
    if not fits.any():
        nothing = f"{data.folder} has no {split} conversation of at most {length} tokens"
        raise UserError(f"{nothing}; raise length, or give clean more conversations")
    chosen = chosen[fits]
    plan = best_fit(records.lengths[chosen], length)
    return Packed(plan, lambda indices: rows.conversations(records, chosen[indices]))
