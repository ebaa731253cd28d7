"""Held-out text in bits per byte: by source, by language, and by how much text came before.

One pass over the batches that training evaluated on; the nats of a token go to its source, its document's
language and its position.

B batch, T time
"""

import lzma
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrain.document import Document, read_records, source_files
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.feed.loader import heldout_batches, heldout_sources
from jaxtrain.feed.packing import best_fit
from jaxtrain.feed.sources import TokenData
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say, track
from jaxtrain.train.heldout import bits_per_byte
from jaxtrain.train.losses import logprobs

Rows = list[dict[str, Any]]


def xz_bits_per_byte(data: bytes) -> float:
    """What xz needs for the same text at its strongest: the compressor that a language model should beat."""
    if not data:
        raise ValueError("bits per byte of no text; give at least one byte")
    return 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) / len(data)


class Texts:
    """The held-out documents of a clean artifact, and how small xz makes them."""

    def __init__(self, clean: str | Path):
        self.languages: dict[str, list[str]] = {}
        self.bytes: dict[str, list[int]] = {}
        texts = {}
        for file in source_files(Path(clean) / "heldout"):
            records = list(read_records(file, Document))
            self.languages[file.stem] = [record.language or "unknown" for record in records]
            self.bytes[file.stem] = [len(record.text.encode()) for record in records]
            texts[file.stem] = "".join(record.text for record in records)
        texts["all"] = "".join(texts.values())
        self.xz = {source: xz_bits_per_byte(text.encode()) for source, text in texts.items() if text}


def measure(scorer: Scorer, data: str | Path, texts: Texts, what: str = "") -> dict[str, Rows]:
    """`heldout` rows of each source and of `all`, `languages` rows, and `positions` rows.

    data: the tokenize artifact of the same documents.
    Errors: UserError where it has no held-out text, or was encoded by another tokenizer than the model's.
    """
    length = scorer.length
    tokens, nats_of, bytes_of = TokenData.open(data, scorer.tokenizer.fingerprint), {}, {}
    by_language: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))  # nats, bytes, documents
    by_position = np.zeros((2, length))  # nats, targets
    for source in heldout_sources(data):
        records = tokens.heldout(source)
        nats_R, at_position = _source(scorer, data, source, records.lengths, what)
        by_position += at_position
        nats_of[source], bytes_of[source] = float(nats_R.sum()), tokens.heldout_bytes(source)
        languages = texts.languages.get(source, [])
        if len(languages) == len(nats_R):  # tokenize left none out
            for language, nats, size in zip(languages, nats_R, texts.bytes[source], strict=True):
                by_language[language] += (nats, size, 1)
    if not nats_of:
        raise UserError(f"{data} has no held-out documents; give clean a heldout_bytes above 0")
    nats_of["all"], bytes_of["all"] = sum(nats_of.values()), sum(bytes_of.values())
    rows = []
    for source, nats in nats_of.items():
        bits, xz = bits_per_byte(nats, bytes_of[source]), texts.xz[source]
        rows.append(
            {"source": source, "bits_per_byte": bits, "xz_bits_per_byte": xz, "bytes": bytes_of[source]}
        )
        say(f"  {what}  held-out {source}: {bits:.3f} bits per byte, xz -9e {xz:.3f}")
    return {
        "heldout": rows,
        "languages": [
            {
                "language": language,
                "bits_per_byte": bits_per_byte(float(nats), int(size)),
                "bytes": int(size),
                "documents": int(count),
            }
            for language, (nats, size, count) in sorted(by_language.items())
        ],
        "positions": _ranges(by_position),
    }


def _source(
    scorer: Scorer, data: str | Path, source: str, lengths: np.ndarray, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Nats of each record [R], and nats and targets at each position [2, T]."""
    length, batch_size = scorer.length, scorer.batch_size
    batches = heldout_batches(data, source, batch_size=batch_size, length=length, process=(0, 1))
    plan = best_fit(lengths + 2, length)  # with <|bos|> and <|eos|>: the plan of those batches
    nats_R, at_position = np.zeros(len(lengths)), np.zeros((2, length))
    mesh = jax.sharding.get_mesh()
    for number in track(range(len(batches)), what or source):
        batch = batches[number]
        own = meshes.put_batch(meshes.own_rows(batch), mesh)
        nats_BT = meshes.fetch(_nats(scorer.model, own)).astype(np.float64)
        weights_BT, positions_BT = batch["loss_weights"], batch["positions"]
        for values, into in ((nats_BT, at_position[0]), (weights_BT, at_position[1])):
            into += np.bincount(positions_BT.ravel(), values.ravel(), minlength=length)
        pieces, counts = plan.take(number * batch_size + np.arange(batch_size))
        rows, columns = np.nonzero(batch["segment_ids"])
        piece = (np.cumsum(counts) - counts)[rows] + batch["segment_ids"][rows, columns] - 1
        nats_R += np.bincount(pieces[piece, 0], nats_BT[rows, columns], minlength=len(lengths))
    return nats_R, at_position


def _ranges(by_position: np.ndarray) -> Rows:
    """Perplexity of tokens behind 0, 1, 2-3, 4-7, … others of their piece."""
    rows, first = [], 0
    while first < by_position.shape[1]:
        last = min(max(1, 2 * first), by_position.shape[1])
        nats, targets = by_position[:, first:last].sum(axis=1)
        if targets:
            perplexity = float(np.exp(nats / targets))
            rows.append({"from": first, "to": last - 1, "perplexity": perplexity, "tokens": int(targets)})
        first = last
    return rows


@jax.jit
def _nats(model: Transformer, batch: dict[str, jax.Array]) -> jax.Array:
    hidden_BTD = model.hidden(batch["tokens"], batch["segment_ids"], batch["positions"])
    return -logprobs(model, hidden_BTD, batch["targets"])[0] * batch["loss_weights"]
