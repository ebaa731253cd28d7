"""Batches as a pure function of (seed, step), the same for any number of processes.

Every dataset is a Grain MapDataset, so `dataset[step]` is the whole state. The rows of a batch are chosen
first, by index arithmetic (shuffle -> mix -> this process' rows), and then read and laid out all at once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import grain
import numpy as np

from jaxtrain.feed import rows
from jaxtrain.feed.documents import Documents, Need, Packing, Phase
from jaxtrain.feed.packing import best_fit
from jaxtrain.feed.rows import Batch, Marked, Packed
from jaxtrain.feed.shuffle import Epochs, key, splitmix64
from jaxtrain.feed.sizes import BatchSizes
from jaxtrain.feed.sources import ConversationRecords, TokenData
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say

Process = tuple[int, int]
Draw = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Numbers of rows of the endless stream -> of each its source and its row there; all int64 [n]."""
ENDLESS = 2**53  # batches; Grain divides lengths as floats, which are exact up to here


def document_batches(
    folder: str | Path,
    *,
    batch_size: int,
    length: int,
    seed: int,
    tokenizer_fingerprint: str | None = None,
    process: Process = (0, 1),
    packing: Packing = "best_fit",
    curriculum: Sequence[Phase] = (),
    smaller: tuple[tuple[int, int], ...] = (),
) -> grain.MapDataset:
    """Endless batches of documents in the proportions of `mixture.json`.

    batch_size: rows of the global batch. length: T, tokens a row.
    tokenizer_fingerprint: of the model's tokenizer; data of another is a UserError.
    process: (this process, number of processes); it gets its contiguous rows of every global batch.
    curriculum: proportions that take over at stated steps.
    smaller: (steps, rows): the first so many steps read so few rows, and the rest of their batch is empty.
    """
    data = TokenData.open(folder, tokenizer_fingerprint)
    documents = Documents.open(data, batch_size, length, seed, packing, curriculum, smaller)
    return _batches(data, documents.packed, documents.draw, ENDLESS, documents.sizes, length, process)


def needs(
    folder: str | Path,
    steps: int,
    *,
    batch_size: int,
    length: int,
    seed: int,
    packing: Packing = "best_fit",
    curriculum: Sequence[Phase] = (),
    smaller: tuple[tuple[int, int], ...] = (),
    max_epochs: float = 4.0,
) -> dict[str, Need]:
    """Tokens there and needed of each source by the first `steps` of `document_batches`, before the run.

    Errors: UserError where a source has no tokens, or would be read more than `max_epochs` times: beyond four
    repeats are worth ever less than new text (Muennighoff et al. 2023, arXiv 2305.16264).
    """
    data = TokenData.open(folder)
    documents = Documents.open(data, batch_size, length, seed, packing, curriculum, smaller)
    return documents.needs(steps, max_epochs)


def heldout_batches(
    folder: str | Path,
    source: str,
    *,
    batch_size: int,
    length: int,
    tokenizer_fingerprint: str | None = None,
    process: Process = (0, 1),
) -> grain.MapDataset:
    """The held-out documents of a source, once: every token except `<|bos|>` is a target exactly once.

    `len()` is the number of batches; rows without a document fill the last one with weight 0.
    """
    data = TokenData.open(folder, tokenizer_fingerprint)
    records = data.heldout(source)
    plan = best_fit(records.lengths + 2, length)
    packed = Packed(plan, rows.documents(records, data.tokenizer))
    return _batches(
        data, [packed], _in_order, -(-len(plan) // batch_size), BatchSizes(batch_size), length, process
    )


def heldout_sources(folder: str | Path) -> list[str]:
    """Sources that have held-out text, sorted."""
    data = TokenData.open(folder)
    return [source for source in data.names("heldout") if len(data.lengths("heldout", source))]


def heldout_bytes(folder: str | Path, source: str) -> int:
    """UTF-8 bytes of a source's held-out text: nats of all its targets / ln 2 / bytes = bits per byte."""
    return TokenData.open(folder).heldout_bytes(source)


def conversation_batches(
    folder: str | Path,
    *,
    batch_size: int,
    length: int,
    seed: int,
    split: Literal["train", "heldout"] = "train",
    heldout_share: float = 0.05,
    tokenizer_fingerprint: str | None = None,
    process: Process = (0, 1),
) -> grain.MapDataset:
    """Conversations of all sources, never cut; only what the assistant says has weight.

    train: endless, each epoch in a new order. heldout: each conversation once, `len()` batches, the last
    filled with empty rows. A conversation is held out by a hash of its source and index, so the split does
    not move with `seed`, `length` or the number of processes. Conversations longer than `length` are left
    out, and said so.
    """
    data = TokenData.open(folder, tokenizer_fingerprint)
    chats = _Conversations.choose(data, length, split, heldout_share)
    packed = Packed(best_fit(chats.lengths, length), chats.read)
    if split == "heldout":
        draw, count = _in_order, -(-len(packed.plan) // batch_size)
    else:
        draw, count = partial(_one_source, Epochs(len(packed.plan), seed, "conversations")), ENDLESS
    return _batches(data, [packed], draw, count, BatchSizes(batch_size), length, process)


def conversation_steps(
    folder: str | Path, *, batch_size: int, length: int, heldout_share: float = 0.05
) -> int:
    """Batches of one epoch of the conversations to train on."""
    chats = _Conversations.choose(TokenData.open(folder), length, "train", heldout_share, quiet=True)
    return -(-len(best_fit(chats.lengths, length)) // batch_size)


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
    process: Process,
) -> grain.MapDataset:
    this, processes = process
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


def _one_source(epochs: Epochs, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros_like(numbers), epochs[numbers]


@dataclass(frozen=True)
class _Conversations:
    """The conversations of one split, of all sources in one list."""

    sources: list[ConversationRecords]
    chosen: np.ndarray
    """int64 [conversations, 2]: source, index in it."""
    lengths: np.ndarray

    @classmethod
    def choose(
        cls, data: TokenData, length: int, split: str, heldout_share: float, quiet: bool = False
    ) -> "_Conversations":
        names = data.names("conversations")
        sources = [data.conversations(name) for name in names]
        chosen: list[tuple[int, int]] = []
        too_long = 0
        for at, (name, records) in enumerate(zip(names, sources, strict=True)):
            salt = key("heldout", name)
            for index, size in enumerate(records.lengths.tolist()):
                if (splitmix64(salt ^ index) < heldout_share * 2**64) != (split == "heldout"):
                    continue
                if size > length:
                    too_long += 1
                else:
                    chosen.append((at, index))
        if too_long and not quiet:
            say(
                f"{data.folder}: left out {too_long} of {too_long + len(chosen)} {split} conversations, "
                f"longer than {length} tokens"
            )
        if not chosen:
            raise UserError(
                f"{data.folder} has no {split} conversation of at most {length} tokens; "
                "raise length, or give clean more conversations"
            )
        table = np.asarray(chosen, np.int64)
        lengths = np.array([sources[at].lengths[index] for at, index in chosen], np.int64)
        return cls(sources, table, lengths)

    def read(self, indices: np.ndarray) -> list[Marked]:
        found: list[Marked] = [(b"", b"")] * len(indices)
        for source in np.unique(self.chosen[indices, 0]).tolist():
            here = np.flatnonzero(self.chosen[indices, 0] == source)
            marked = rows.conversations(self.sources[source], self.chosen[indices[here], 1])
            for at, record in zip(here.tolist(), marked, strict=True):
                found[at] = record
        return found
