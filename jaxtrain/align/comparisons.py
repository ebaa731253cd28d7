"""Comparisons of a rate artifact, or of a file of preferences, as rows for a model.

B comparisons, K answers of each, T time
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.conversation import transcript
from jaxtrain.document import read_rows
from jaxtrain.feed.shuffle import Epochs
from jaxtrain.formats.preferences import read_all
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.loop import Feed

Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of K answers each, as rows for the model: row b·K + k is answer k of comparison b."""

    rows: dict[str, np.ndarray]
    """tokens, segment_ids, positions, last: [comparisons·K, T]; read: [comparisons·K, D], if they were"""
    ranks_BK: np.ndarray
    texts: list[list[str]]
    simulated: bool = True
    """Whether a program judged all of them, whose true utility is known (`tasks/utility.py`)."""

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of some comparisons, and their ranks at each row's last token."""
        K = self.ranks_BK.shape[1]
        at = (indices[:, None] * K + np.arange(K)).ravel()
        batch = {name: values[at] for name, values in self.rows.items()}
        ranks_R1 = self.ranks_BK[indices].reshape(-1, 1)
        return batch | {"ranks": ranks_R1.repeat(batch["tokens"].shape[1], axis=1)}


def epochs(name: str, count: int, size: int, seed: int, take: Callable[[np.ndarray], Rows]) -> Feed:
    """Batches of `size` of `count` things, each once before any comes again. take: the rows of some."""
    order = Epochs(count, seed, name)

    def read(start: int, stop: int) -> Iterator[Rows]:
        for index in range(start, stop):
            yield meshes.own_rows(take(order[index * size + np.arange(size)]))

    return Feed(read)


def padded(sequences: list[list[int]], length: int, pad: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows [B, T] of token ids padded on the right, and how many each has, [B, 1]; what is too long loses its
    beginning."""
    kept = [ids[-length:] for ids in sequences]
    count_B1 = np.array([[len(ids)] for ids in kept])
    real_BT = np.arange(length) < count_B1
    tokens_BT = np.full(real_BT.shape, pad, np.int32)
    tokens_BT[real_BT] = np.concatenate(kept)
    positions_BT = np.arange(length, dtype=np.int32) * real_BT
    return {"tokens": tokens_BT, "segment_ids": np.int32(real_BT), "positions": positions_BT}, count_B1


def answer_rows(tokens: list[list[int]], length: int, pad: int) -> dict[str, np.ndarray]:
    """Rows [B, T] for a reward model, with `last` = 1 at the last real token."""
    rows, count_B1 = padded(tokens, length, pad)
    return rows | {"last": np.float32(np.arange(length) == count_B1 - 1)}


PEOPLE = "comparisons.jsonl.gz"
HELD_OUT = 0.1
"""Share of the prompts of a file of preferences."""


@dataclass(frozen=True)
class Part:
    """The comparisons of a file of preferences that are learned from, or those held out."""

    name: str
    rows: list[dict[str, Any]]

    def __str__(self) -> str:
        return self.name


def parts_of(ratings: str, preferences: str) -> list[Path | Part]:
    """What is learned from and what is held out: of a rate artifact its two files, of a file of preferences
    (formats/preferences.py) all but a tenth of its prompts, which their hashes choose, and that tenth."""
    if not preferences:
        return [Path(ratings) / "train.parquet", Path(ratings) / "heldout.parquet"]
    rows = read_all(Path(preferences))
    keys = [blake2b(transcript(row["prompt"]).encode("utf-8", "surrogatepass")).digest() for row in rows]
    known = sorted(set(keys))
    heldout = set(known[: round(HELD_OUT * len(known)) or 1])
    pairs = list(zip(rows, keys, strict=True))
    kept, held = ([row for row, key in pairs if (key in heldout) is side] for side in (False, True))
    return [Part(f"{preferences}, its training part", kept), Part(f"{preferences}, its held-out part", held)]


def people_of(folder: str | Path) -> Part:
    """The comparisons that people made, in a data folder."""
    file = Path(folder) / PEOPLE
    return Part(str(file), read_all(file))


def rows_of(part: Path | Part) -> list[dict[str, Any]]:
    """`prompt`, `completions`, `completion_ids`, `ranks`, `simulated` of each comparison."""
    return part.rows if isinstance(part, Part) else list(read_rows(part))


def encode(row: dict[str, Any], tokenizer: Tokenizer) -> tuple[list[int], list[list[int]]]:
    """Ids of a comparison's prompt and of its answers, each with `<|end|>` behind it, cut short or not."""
    prompt, end = render(row["prompt"], tokenizer, generation_prompt=True)[0], tokenizer.end
    pairs = zip(row["completion_ids"], row["completions"], strict=True)
    answers = [list(sampled or tokenizer.encode(text)) for sampled, text in pairs]
    return prompt, [ids + [end] * (ids[-1:] != [end]) for ids in answers]


def read_comparisons(path: Path | Part, tokenizer: Tokenizer, length: int) -> Comparisons:
    """Comparisons of one part; all have the same number of answers."""
    found = rows_of(path)
    if not found:
        raise UserError(f"{path} holds no comparisons; rate more prompts or change heldout_share")
    counts = {len(row["ranks"]) for row in found}
    if len(counts) > 1:
        raise UserError(
            f"{path} mixes comparisons of {sorted(counts)} answers; rate them in separate artifacts"
        )
    encoded = [encode(row, tokenizer) for row in found]
    return Comparisons(
        answer_rows([prompt + ids for prompt, answers in encoded for ids in answers], length, tokenizer.pad),
        np.array([row["ranks"] for row in found], np.int32),
        [row["completions"] for row in found],
        all(row["simulated"] for row in found),
    )
