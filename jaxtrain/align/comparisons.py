"""Comparisons of a rate artifact as rows for a model.

B comparisons, K answers of each, T time
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxtrain.document import read_rows
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of K answers each, as rows for the model: row b·K + k is answer k of comparison b."""

    rows: dict[str, np.ndarray]
    """tokens, segment_ids, positions, last: [comparisons·K, T]"""
    ranks_BK: np.ndarray
    texts: list[list[str]]
    simulated: bool = True
    """Whether a program judged all of them, whose true utility is known (`tasks/utility.py`)."""

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of some comparisons, and their ranks at each row's last token."""
        K = self.ranks_BK.shape[1]
        at = (indices[:, None] * K + np.arange(K)).ravel()
        batch = {name: values[at] for name, values in self.rows.items()}
        return batch | {
            "ranks": self.ranks_BK[indices].reshape(-1, 1).repeat(batch["tokens"].shape[1], axis=1)
        }


def answer_rows(tokens: list[list[int]], length: int, pad: int) -> dict[str, np.ndarray]:
    """Rows [B, T] of token ids padded on the right, with `last` = 1 at the last real token."""
    rows = {name: np.zeros((len(tokens), length), np.int32) for name in ("segment_ids", "positions")}
    rows |= {
        "tokens": np.full((len(tokens), length), pad, np.int32),
        "last": np.zeros((len(tokens), length), np.float32),
    }
    for row, ids in enumerate(tokens):
        kept = ids[-length:]
        rows["tokens"][row, : len(kept)] = kept
        rows["segment_ids"][row, : len(kept)] = 1
        rows["positions"][row, : len(kept)] = np.arange(len(kept))
        rows["last"][row, len(kept) - 1] = 1
    return rows


def read_comparisons(path: Path, tokenizer: Tokenizer, length: int) -> Comparisons:
    """Comparisons of one file of a rate artifact; all have the same number of answers."""
    found = list(read_rows(path))
    if not found:
        raise UserError(f"{path} holds no comparisons; rate more prompts or change heldout_share")
    counts = {len(row["ranks"]) for row in found}
    if len(counts) > 1:
        raise UserError(
            f"{path} mixes comparisons of {sorted(counts)} answers; rate them in separate artifacts"
        )
    end = tokenizer.end
    tokens = []
    for row in found:
        prompt = render(row["prompt"], tokenizer, generation_prompt=True)[0]
        for sampled, text in zip(row["completion_ids"], row["completions"], strict=True):
            ids = sampled or tokenizer.encode(text)
            tokens.append(prompt + ids + [end] * (ids[-1:] != [end]))  # scored at `<|end|>`, cut short or not
    return Comparisons(
        answer_rows(tokens, length, tokenizer.pad),
        np.array([row["ranks"] for row in found], np.int32),
        [row["completions"] for row in found],
        all(row["simulated"] for row in found),
    )
