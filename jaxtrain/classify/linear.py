"""A linear text classifier on hashed n-grams (after fastText: Joulin et al. 2016, arXiv 1607.01759).

Features are words, pairs of words and runs of 3 to 5 bytes, hashed into a table of weights; runs of bytes see
misspelling and every script. Values are 1 + log(count), scaled to length 1. The loss is softmax cross-entropy
with classes weighted alike. Training is JAX; a text is scored in numpy, thousands a second.

Legend: N documents of a batch, E features of a batch, F table size, C classes.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from jaxtrain.classify.words import windows, word_hashes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import track

LONGEST, LONGEST_BYTES = 20_000, 1_000  # characters looked at: for words, and for runs of bytes
BYTE_RUNS = (3, 4, 5)
_KINDS = np.arange(1, 6, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # keep runs apart from words
WEIGHTS, DESCRIPTION = "classifier.safetensors", "classifier.json"
Features = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a classifier is trained."""

    table_bits: int = 18
    """The table has 2 to this power rows."""
    epochs: int = 8
    """Passes over the documents."""
    batch: int = 256
    """Documents a step."""
    lr: float = 0.02
    """Of Adam at the first step; it falls to 0 linearly."""
    weight_decay: float = 1e-4
    """Share of a weight taken off a step, times the learning rate."""
    seed: int = 0
    """Of the order of the documents."""


@dataclass(frozen=True)
class Classifier:
    """Weights of one linear model."""

    labels: tuple[str, ...]
    """Of the classes; the last one is what `score` is the probability of."""
    weights_FC: np.ndarray
    bias_C: np.ndarray

    def probabilities(self, text: str) -> np.ndarray:
        """float32[C], of each label, sum 1."""
        rows, values = features(text, len(self.weights_FC))
        logits = values @ self.weights_FC[rows] + self.bias_C
        odds = np.exp(logits - logits.max())
        return odds / odds.sum()

    def score(self, text: str) -> float:
        """Probability of the last label."""
        return float(self.probabilities(text)[-1])

    def label(self, text: str) -> str:
        """The likeliest label."""
        return self.labels[int(self.probabilities(text).argmax())]


def features(text: str, table: int) -> Features:
    """(rows of the table, float32 values) of one text."""
    text = text[:LONGEST]
    words = word_hashes(text)
    start = f" {text[:LONGEST_BYTES].lower()} ".encode("utf-8", "replace")
    letters = np.frombuffer(start, np.uint8).astype(np.uint64)
    keys = [words, windows(words, 2), *(windows(letters, n) ^ _KINDS[n - 1] for n in BYTE_RUNS)]
    rows = np.sort((np.concatenate(keys) & np.uint64(table - 1)).astype(np.int32))
    if not len(rows):
        return rows, np.zeros(0, np.float32)
    starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
    values = 1 + np.log(np.diff(np.append(starts, len(rows))), dtype=np.float32)
    return rows[starts], values / np.sqrt((values**2).sum())


def train(
    texts: Sequence[str], labels: Sequence[int], names: Sequence[str], training: Training
) -> Classifier:
    """Fit a classifier; labels are indices into `names`. The same input gives the same weights."""
    import jax  # not for those who only score
    import jax.numpy as jnp
    import optax

    table, classes = 1 << training.table_bits, len(names)
    found = [features(text, table) for text in track(texts, "classify: features")]
    order = np.random.Generator(np.random.PCG64(training.seed))
    steps = -(-len(texts) // training.batch)
    longest = _longest_batch(found, training.batch)
    schedule = optax.linear_schedule(training.lr, 0.0, steps * training.epochs)
    optimizer = optax.adamw(schedule, weight_decay=training.weight_decay)
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    balance_C = jnp.asarray(len(texts) / (classes * counts), jnp.float32)

    def loss(weights, batch):
        rows_E, values_E, document_E, label_N, real_N = batch
        terms_EC = values_E[:, None] * weights["table"][rows_E]
        logits_NC = jax.ops.segment_sum(terms_EC, document_E, training.batch) + weights["bias"]
        each_N = optax.softmax_cross_entropy_with_integer_labels(logits_NC, label_N)
        weight_N = real_N * balance_C[label_N]
        return (each_N * weight_N).sum() / weight_N.sum()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights, state, batch):
        gradient = jax.grad(loss)(weights, batch)
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state

    weights = {"table": jnp.zeros((table, classes)), "bias": jnp.zeros(classes)}
    state = optimizer.init(weights)
    for _ in track(range(training.epochs), "classify: epochs"):
        shuffled = order.permutation(len(texts))
        for start in range(0, len(texts), training.batch):
            chosen = shuffled[start : start + training.batch]
            batch = _pack([found[i] for i in chosen], [labels[i] for i in chosen], training.batch, longest)
            weights, state = step(weights, state, batch)
    return Classifier(tuple(names), np.asarray(weights["table"]), np.asarray(weights["bias"]))


def _longest_batch(found: list[Features], batch: int) -> int:
    """Room for the features of any batch, so that one program serves all."""
    return int(np.sort([len(rows) for rows, _ in found])[-batch:].sum())


def _pack(found: list[Features], labels: list[int], batch: int, room: int) -> tuple[np.ndarray, ...]:
    """(rows_E, values_E, document_E, label_N, real_N); padding has value 0 and is of document 0."""
    sizes = [len(rows) for rows, _ in found]
    used = sum(sizes)
    rows_E, document_E = np.zeros(room, np.int32), np.zeros(room, np.int32)
    values_E = np.zeros(room, np.float32)
    rows_E[:used] = np.concatenate([rows for rows, _ in found])
    values_E[:used] = np.concatenate([values for _, values in found])
    document_E[:used] = np.repeat(np.arange(len(found), dtype=np.int32), sizes)
    label_N, real_N = np.zeros(batch, np.int32), np.zeros(batch, np.float32)
    label_N[: len(labels)], real_N[: len(labels)] = labels, 1
    return rows_E, values_E, document_E, label_N, real_N


def f1(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of boolean arrays; 0 where there is nothing to divide by."""
    hits = int((true & predicted).sum())
    precision, recall = hits / max(int(predicted.sum()), 1), hits / max(int(true.sum()), 1)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
    }


def save(classifier: Classifier, folder: Path, training: Training) -> None:
    """Write `classifier.safetensors` and `classifier.json`."""
    save_file({"weights": classifier.weights_FC, "bias": classifier.bias_C}, folder / WEIGHTS)
    described = {"labels": classifier.labels, "longest": LONGEST, "training": asdict(training)}
    text = json.dumps(described, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / DESCRIPTION).write_text(text + "\n")


def load(folder: str | Path) -> Classifier:
    """A classifier that `save` wrote; UserError where there is none."""
    names = labels(folder)
    weights = load_file(Path(folder) / WEIGHTS)
    return Classifier(names, weights["weights"], weights["bias"])


def labels(folder: str | Path) -> tuple[str, ...]:
    """Those of a classifier that `save` wrote; UserError where there is none."""
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise UserError(f"no classifier at {folder}; train it with `jaxtrain classify CONFIG`")
    return tuple(json.loads(path.read_text())["labels"])
