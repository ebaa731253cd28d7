"""Batches as a pure function of (seed, step), and what a run needs of the data.

Every dataset is a Grain MapDataset, so `dataset[step]` is the whole state: pack -> shuffle -> mix -> batch.
The global batch of a step is the same for any number of processes; each loads only its own rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import grain
import numpy as np

from jaxtrain.feed.packing import Piece, Plan, best_fit, concat_and_split
from jaxtrain.feed.shuffle import Epochs, Mixture, key, splitmix64
from jaxtrain.feed.sources import ConversationRecords, TokenData, TokenRecords
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say

Batch = dict[str, np.ndarray]
Marked = tuple[np.ndarray, np.ndarray]  # ids of a record; 1 where an id counts as a target
Process = tuple[int, int]
PACKINGS: dict[str, Callable[..., Plan]] = {"best_fit": best_fit, "concat_and_split": concat_and_split}


def document_batches(
    folder: str | Path,
    *,
    batch_size: int,
    length: int,
    seed: int,
    tokenizer_fingerprint: str | None = None,
    process: Process = (0, 1),
    packing: Literal["best_fit", "concat_and_split"] = "best_fit",
) -> grain.MapDataset:
    """Endless batches of documents in the proportions of `mixture.json`.

    batch_size: rows of the global batch. length: T, tokens a row.
    process: (this process, number of processes); it gets its contiguous rows of every global batch.
    tokenizer_fingerprint: of the model's tokenizer; data of another is a UserError.
    """
    data = TokenData.open(folder, tokenizer_fingerprint)
    sources = []
    for source in data.mixture:
        records = data.documents(source)
        if not len(records):
            raise _no_tokens(data, source)
        plan = PACKINGS[packing](records.lengths + 2, length)
        rows = _rows(plan, partial(_document, data, records), length, data.tokenizer.pad)
        sources.append(Epochs(rows, seed, source))
    return _batch(Mixture(sources, data.mixture, seed), batch_size, process)


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
    rows = _rows(plan, partial(_document, data, records), length, data.tokenizer.pad, fill=batch_size)
    return _batch(rows, batch_size, process)


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
    plan = best_fit(chats.lengths, length)
    if split == "heldout":
        rows = _rows(plan, chats.__getitem__, length, data.tokenizer.pad, fill=batch_size)
        return _batch(rows, batch_size, process)
    rows = _rows(plan, chats.__getitem__, length, data.tokenizer.pad)
    return _batch(Epochs(rows, seed, "conversations"), batch_size, process)


def conversation_steps(
    folder: str | Path, *, batch_size: int, length: int, heldout_share: float = 0.05
) -> int:
    """Batches of one epoch of the conversations to train on."""
    chats = _Conversations.choose(TokenData.open(folder), length, "train", heldout_share, quiet=True)
    return -(-len(best_fit(chats.lengths, length)) // batch_size)


@dataclass(frozen=True)
class Need:
    """What a run takes of one source."""

    tokens: int
    """Tokens there, `<|bos|>` and `<|eos|>` included."""
    needed: int
    """Tokens that the run trains on."""

    @property
    def epochs(self) -> float:
        """How often the source is read."""
        return self.needed / self.tokens


def needs(
    folder: str | Path, steps: int, batch_size: int, length: int, max_epochs: float = 4.0
) -> dict[str, Need]:
    """Tokens there and needed of each source of the mixture, for a check before the run.

    Errors: UserError where a source has no tokens, or would be read more than `max_epochs` times: beyond four
    repeats are worth ever less than new text (Muennighoff et al. 2023, arXiv 2305.16264).
    """
    data = TokenData.open(folder)
    total = steps * batch_size * length
    found: dict[str, Need] = {}
    for source, weight in data.mixture.items():
        lengths = data.lengths("documents", source)
        if not len(lengths):
            raise _no_tokens(data, source)
        found[source] = need = Need(int(lengths.sum()) + 2 * len(lengths), round(total * weight))
        if need.epochs > max_epochs:
            enough = int(steps * max_epochs / need.epochs)
            raise UserError(
                f"{steps} steps read {source} {need.epochs:.1f} times ({need.needed:,} tokens "
                f"of {need.tokens:,}); take at most {enough} steps, collect more, lower its weight in "
                f"clean's mixture, or raise max_epochs = {max_epochs:g}"
            )
    return found


def prefetch(dataset: grain.MapDataset, start: int, stop: int, threads: int = 2) -> Iterator[Batch]:
    """Batches start..stop-1 in order, loaded ahead on `threads` threads."""
    if start >= stop:
        return
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    yield from dataset[start:stop].to_iter_dataset(options)


def _rows(
    plan: Plan, read: Callable[[int], Marked], length: int, pad: int, fill: int = 1
) -> grain.MapDataset:
    """The rows of a plan, and empty ones behind them up to a multiple of `fill`."""

    def row(index: int) -> Batch:
        return _row(plan[index] if index < len(plan) else [], read, length, pad)

    return grain.MapDataset.range(-(-len(plan) // fill) * fill).map(row)


def _row(pieces: Sequence[Piece], read: Callable[[int], Marked], length: int, pad: int) -> Batch:
    """One row of a batch. `read(record)` is the record's ids and which of them count as targets."""
    row = {
        "tokens": np.full(length, pad, np.int32),
        "targets": np.full(length, pad, np.int32),
        "loss_weights": np.zeros(length, np.float32),
        "segment_ids": np.zeros(length, np.int32),
        "positions": np.zeros(length, np.int32),
    }
    at = 0
    for segment, (record, start, stop) in enumerate(pieces, 1):
        ids, counted = read(record)
        end = at + stop - start
        row["tokens"][at:end] = ids[start:stop]
        row["segment_ids"][at:end] = segment
        row["positions"][at:end] = np.arange(stop - start)
        # A piece that is cut off still knows its next token; only a record's last token has no target.
        known = at + len(ids[start + 1 : stop + 1])
        row["targets"][at:known] = ids[start + 1 : stop + 1]
        row["loss_weights"][at:known] = counted[start + 1 : stop + 1]
        at = end
    return row


def _document(data: TokenData, records: TokenRecords, index: int) -> Marked:
    ids = np.concatenate([[data.tokenizer.bos], records[index], [data.tokenizer.eos]])
    return ids, np.ones(len(ids), np.float32)


def _batch(rows: grain.MapDataset, batch_size: int, process: Process) -> grain.MapDataset:
    this, processes = process
    if batch_size % processes:
        raise UserError(f"batch_size = {batch_size} does not divide among {processes} processes")
    return rows.batch(batch_size // processes)[this::processes]


def _no_tokens(data: TokenData, source: str) -> UserError:
    return UserError(
        f"{data.folder}: source {source!r} has a weight in mixture.json but no tokens; "
        "collect some of it or take it out of clean's mixture"
    )


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

    def __getitem__(self, record: int) -> Marked:
        at, index = self.chosen[record].tolist()
        return self.sources[at][index]
