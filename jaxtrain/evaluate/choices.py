"""Log-likelihoods of the choices of multiple-choice items, many choices packed into a row."""

from collections.abc import Sequence

import jax
import numpy as np

from jaxtrain.feed.packing import best_fit
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.progress import track
from jaxtrain.tasks.task import Item
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.losses import logprobs


def loglikelihoods(
    model: Transformer,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    *,
    batch_size: int,
    length: int,
    what: str,
) -> list[list[float]]:
    """log p(continuation | context), nats, of every choice of every item.

    A context that does not fit loses its beginning, as in lm-eval.
    """
    ids, scored = [], []  # of each choice: its tokens, and how many at the end are scored
    for item in items:
        for context, continuation in zip(item.contexts, item.continuations, strict=True):
            whole = tokenizer.encode(context + continuation)
            count = max(1, len(whole) - len(tokenizer.encode(context)))
            ids.append([tokenizer.bos, *whole[-(length - 1) :]])
            scored.append(min(count, len(ids[-1]) - 1))
    sums = _summed(model, ids, scored, batch_size, length, tokenizer.pad, what)
    counts = [len(item.continuations) for item in items]
    ends = np.cumsum(counts)
    return [sums[end - count : end].tolist() for end, count in zip(ends, counts, strict=True)]


def _summed(
    model: Transformer,
    ids: list[list[int]],
    scored: list[int],
    batch_size: int,
    length: int,
    pad: int,
    what: str,
) -> np.ndarray:
    """Summed log-probability of the last `scored[i]` tokens of each sequence, float64."""
    plan = best_fit([len(sequence) for sequence in ids], length)
    sums, mesh = np.zeros(len(ids)), jax.sharding.get_mesh()
    for first in track(range(0, len(plan), batch_size), what):
        rows = [plan[row] if row < len(plan) else [] for row in range(first, first + batch_size)]
        batch = _pack(rows, ids, length, pad)
        logprob_BT = np.asarray(_logprobs(model, meshes.put_batch(batch, mesh)), np.float64)
        for row, pieces in enumerate(rows):
            end = 0
            for sequence, start, stop in pieces:
                assert start == 0, "no sequence is longer than a row"
                end += stop
                last = end - 1  # the last token predicts nothing of its own sequence
                sums[sequence] = logprob_BT[row, last - scored[sequence] : last].sum()
    return sums


def _pack(
    rows: list[list[tuple[int, int, int]]], ids: list[list[int]], length: int, pad: int
) -> dict[str, np.ndarray]:
    batch = {
        name: np.zeros((len(rows), length), np.int32) for name in ("targets", "segment_ids", "positions")
    }
    batch["tokens"] = np.full((len(rows), length), pad, np.int32)
    for row, pieces in enumerate(rows):
        at = 0
        for segment, (sequence, _, stop) in enumerate(pieces, 1):
            span = slice(at, at + stop)
            batch["tokens"][row, span] = ids[sequence]
            batch["targets"][row, at : at + stop - 1] = ids[sequence][1:]
            batch["segment_ids"][row, span] = segment
            batch["positions"][row, span] = np.arange(stop)
            at += stop
    return batch


@jax.jit
def _logprobs(model: Transformer, batch: dict[str, jax.Array]) -> jax.Array:
    hidden_BTD = model.hidden(batch["tokens"], batch["segment_ids"], batch["positions"])
    return logprobs(model, hidden_BTD, batch["targets"])[0]
