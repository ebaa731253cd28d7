"""The reward model: a transformer with a scalar head, trained on comparisons.

B batch, K answers of one prompt, T time, D model
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain import artifact
from jaxtrain.align.losses import ranking_loss
from jaxtrain.document import read_rows
from jaxtrain.feed.shuffle import Permutation, key
from jaxtrain.model import store
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import normal
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import checkpoint
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import BATCH, MeshConfig
from jaxtrain.tasks import human_preference
from jaxtrain.tasks.utility import utility
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.loop import Schedule, train
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Train a Bradley-Terry reward model on comparisons, from the weights of the fine-tuned model."""

    model: str
    """Folder of the finetune artifact it starts from."""
    ratings: str
    """Folder of the rate artifact."""
    human: str
    """Folder with `comparisons.jsonl.gz`, pairs that people judged; the accuracy on them is reported."""
    out: str
    """Folder to write."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=3e-4, weight_decay=0.1))
    mesh: MeshConfig = field(default_factory=MeshConfig)
    epochs: float = 2.0
    """Passes over the comparisons."""
    batch_prompts: int = 8
    """Prompts of a batch; all answers of a prompt are in the same row group."""
    length: int = 96
    """Tokens of prompt and answer; a longer prompt loses its beginning."""
    evaluate_every: int = 40
    """Steps between evaluations on held-out comparisons."""
    checkpoint_every: int = 80
    """Steps between checkpoints."""
    seed: int = 0
    """Of the head and of shuffling."""


class RewardModel(nnx.Module):
    """A transformer whose last real token is scored.

    That token is always `<|end|>`, put behind answers that were cut short: read at whatever word came last,
    the same comparisons taught it less (held-out accuracy .666 against .684, `benchmarks/notes.md`).
    """

    def __init__(self, config: ModelConfig, key: jax.Array):
        self.transformer = Transformer(config, key)
        self.score_D = _score_head(config, key)

    def __call__(self, batch: dict[str, jax.Array]) -> jax.Array:
        """Scores [B] of rows whose last real token has `last` = 1."""
        hidden_BTD = self.transformer.hidden(batch["tokens"], batch["segment_ids"], batch["positions"])
        score_BT = jnp.einsum(
            "btd,d->bt",
            hidden_BTD,
            self.score_D[...].astype(hidden_BTD.dtype),
            out_sharding=P(BATCH, "context"),
            preferred_element_type=jnp.float32,
        )
        return jnp.sum(score_BT * batch["last"], axis=1)


def _score_head(config: ModelConfig, key: jax.Array) -> nnx.Param:
    return normal(key, "score", (config.d_model,), P(None), (config.d_model + 1) ** -0.5)


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


def reward_loss(model: RewardModel, batch: dict[str, jax.Array], answers: int) -> tuple[jax.Array, jax.Array]:
    """Summed ranking loss of the prompts of a batch, and their number."""
    grouped = (-1, answers)
    scores_BK = jnp.reshape(jax.sharding.reshard(model(batch), P(None)), grouped)
    ranks_BK = jnp.reshape(jax.sharding.reshard(batch["ranks"][:, 0], P(None)), grouped)
    loss_B = ranking_loss(scores_BK, ranks_BK)
    return jnp.sum(loss_B), jnp.float32(loss_B.shape[0])


def train_reward_model(config: RewardConfig, folder: Path) -> dict[str, Any]:
    with jax.set_mesh(meshes.make(config.mesh)):
        return _train(config, Tokenizer.load(Path(config.model) / "tokenizer"), folder)


def _train(config: RewardConfig, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    model_config = store.read_config(config.model)
    store.write_config(folder, model_config)
    shutil.copytree(Path(config.model) / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    kept, heldout = (
        read_comparisons(Path(config.ratings) / name, tokenizer, config.length)
        for name in ("train.parquet", "heldout.parquet")
    )
    comparisons, answers = kept.ranks_BK.shape
    devices = meshes.batch_rows()
    if config.batch_prompts * answers % devices:
        raise UserError(
            f"batch_prompts is {config.batch_prompts}, with {answers} answers each, but {devices} devices "
            f"share the rows; make batch_prompts a multiple of {devices}"
        )
    steps = max(1, round(config.epochs * comparisons / config.batch_prompts))
    optimizer = optimizers.make(config.optimizer, steps)

    def batches(start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        for step in range(start, stop):
            drawn = step * config.batch_prompts + np.arange(config.batch_prompts)
            order = [
                Permutation(comparisons, key(config.seed, "comparisons", n // comparisons))[n % comparisons]
                for n in drawn.tolist()
            ]
            yield kept.batch(np.array(order))

    def evaluate(model: RewardModel, step: int) -> dict[str, Any]:
        return {"accuracy": float(np.mean(pair_grades(score(model, heldout.rows), heldout.ranks_BK)))}

    def pretrained() -> RewardModel:
        seed = jax.random.key(config.seed)
        fresh = jax.eval_shape(partial(RewardModel, model_config), seed)  # only its head is to be drawn
        fresh.transformer = store.load(config.model)
        fresh.score_D = _score_head(model_config, seed)
        return fresh

    untrained = pair_grades(score(pretrained(), heldout.rows), heldout.ranks_BK)
    schedule = Schedule(
        steps=steps, evaluate_every=config.evaluate_every, checkpoint_every=config.checkpoint_every
    )
    state = train(
        folder,
        schedule,
        init=initializer(partial(RewardModel, model_config), optimizer, config.seed),
        loss=partial(reward_loss, answers=answers),
        optimizer=optimizer,
        batches=batches,
        evaluate=evaluate,
        pretrained=pretrained,
    )
    scores = score(state.model, heldout.rows)
    grades = pair_grades(scores, heldout.ranks_BK)
    people = _human_grades(state.model, config, tokenizer)
    return {
        "simulated": kept.simulated and heldout.simulated,
        "steps": steps,
        "heldout_accuracy": grades.mean(),
        "standard_error": _clustered_error(scores, heldout.ranks_BK),
        "untrained_accuracy": untrained.mean(),
        **_baselines(kept, heldout),
        "pairs_train": len(pair_grades(kept.ranks_BK.astype(float).ravel(), kept.ranks_BK)),
        "pairs_heldout": len(grades),
        "human_accuracy": people.mean(),
        "human_standard_error": people.std(ddof=1) / len(people) ** 0.5,
    }


def score(model: RewardModel, rows: dict[str, np.ndarray], batch_size: int = 128) -> np.ndarray:
    """Scores of any number of rows, float32 [rows]."""
    mesh, count = jax.sharding.get_mesh(), len(rows["tokens"])
    found = []
    for first in range(0, count, batch_size):
        at = np.minimum(first + np.arange(batch_size), count - 1)  # one shape: the last row fills up
        found.append(
            np.asarray(
                _scores(model, meshes.put_batch({name: values[at] for name, values in rows.items()}, mesh))
            )
        )
    return np.concatenate(found)[:count]


@jax.jit
def _scores(model: RewardModel, batch: dict[str, jax.Array]) -> jax.Array:
    return model(batch)


def pair_grades(scores: np.ndarray, ranks_BK: np.ndarray) -> np.ndarray:
    """Of every untied pair of answers 1 where the scores order it as the rater did, ½ where they tie."""
    scores_BK = scores.reshape(ranks_BK.shape)
    first, second = np.triu_indices(ranks_BK.shape[1], k=1)
    sign = np.sign(ranks_BK[:, second] - ranks_BK[:, first]).ravel()  # 1: the first is better
    agree = np.sign(scores_BK[:, first] - scores_BK[:, second]).ravel() * sign
    return (agree[sign != 0] + 1) / 2


def _clustered_error(scores: np.ndarray, ranks_BK: np.ndarray) -> float:
    """Standard error of the accuracy; pairs of one prompt hang together, so prompts are the unit."""
    per_prompt = [
        pair_grades(s, r[None]) for s, r in zip(scores.reshape(ranks_BK.shape), ranks_BK, strict=True)
    ]
    means = np.array([grades.mean() for grades in per_prompt if len(grades)])
    return float(means.std(ddof=1) / len(means) ** 0.5)


def _baselines(kept: Comparisons, heldout: Comparisons) -> dict[str, float]:
    """The length alone (its sign chosen on the training comparisons), and the true utility: the ceiling."""
    length_of = lambda part: np.array([len(text) for texts in part.texts for text in texts], float)  # noqa: E731
    sign = 1.0 if pair_grades(length_of(kept), kept.ranks_BK).mean() >= 0.5 else -1.0
    utilities = np.array([utility(text) for texts in heldout.texts for text in texts])
    return {
        "length_accuracy": pair_grades(sign * length_of(heldout), heldout.ranks_BK).mean(),
        "ceiling": pair_grades(utilities, heldout.ranks_BK).mean(),
    }


def _human_grades(model: RewardModel, config: RewardConfig, tokenizer: Tokenizer) -> np.ndarray:
    pairs = human_preference.task.load(config.human)
    rows = []
    for answer in ("chosen", "rejected"):
        tokens = [
            render(
                [
                    {"role": "user", "content": pair.prompt},
                    {"role": "assistant", "content": getattr(pair, answer)},
                ],
                tokenizer,
            )[0]
            for pair in pairs
        ]
        rows.append(score(model, answer_rows(tokens, config.length, tokenizer.pad)))
    return human_preference.grade(*rows)


def is_simulated(folder: str | Path) -> bool:
    """Whether a finished reward model learned from simulated raters."""
    return artifact.require(folder, "align")["counts"]["simulated"]


def load(folder: str | Path) -> RewardModel:
    """The reward model of a finished artifact, on the mesh that is set."""
    config = store.read_config(folder)
    return checkpoint.load_model(Path(folder) / "checkpoint", lambda: RewardModel(config, jax.random.key(0)))
