"""A small training run for tests that kill it, move it, or share it between processes.

`python tests/train_run.py FOLDER --steps 40 …` trains; tests import `run` and `arguments` too. FOLDER gets
the files of the engine, and `batches-<process>.txt`, the hash of every batch fed.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import distributed
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.watchdog import WatchdogConfig
from jaxtrain.train.config import SafetyConfig, TrainConfig
from jaxtrain.train.context import training
from jaxtrain.train.learner import Learner
from jaxtrain.train.loop import Evaluate, Feed, Trained, train
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.step import Loss

MODEL = ModelConfig(
    vocab_size=64, layers=2, d_model=32, heads=4, kv_heads=2, head_dim=8, d_hidden=48, max_length=32
)
ROWS, LENGTH = 8, 32


def whole_batch(index: int) -> dict[str, np.ndarray]:
    tokens = np.random.default_rng(index).integers(0, 64, (ROWS, LENGTH + 1)).astype(np.int32)
    return {
        "tokens": tokens[:, 1:],
        "targets": tokens[:, :-1],
        "loss_weights": np.ones((ROWS, LENGTH), np.float32),
        "segment_ids": np.ones((ROWS, LENGTH), np.int32),
        "positions": np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1)),
    }


def batches(folder: Path, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
    """This process's rows; hashes of them are written down."""
    mine = np.array_split(np.arange(ROWS), jax.process_count())[jax.process_index()]
    with (folder / f"batches-{jax.process_index()}.txt").open("a") as file:
        for index in range(start, stop):
            batch = {name: rows[mine] for name, rows in whole_batch(index).items()}
            file.write(f"{index} {hashlib.sha256(batch['tokens'].tobytes()).hexdigest()}\n")
            file.flush()
            yield batch


def run(folder: Path, settings: argparse.Namespace) -> None:
    """Train; at the end FOLDER/weights.npz has the weights where one process holds them."""
    distributed.join()
    folder.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(
        optimizer=OptimizerConfig(lr=1e-2, warmup_steps=5),
        mesh=MeshConfig(**json.loads(settings.mesh)),
        steps=settings.steps,
        evaluate_every=0,
        checkpoint_every=settings.checkpoint_every,
        log_every=settings.log_every or settings.steps,
        safety=SafetyConfig(watchdog=WatchdogConfig(step_minutes=settings.step_minutes)),
    )
    trained = train_transformer(folder, config, MODEL, partial(batches, folder))
    if jax.process_count() == 1:
        leaves = jax.device_get(jax.tree.leaves(trained.model))
        np.savez(folder / "weights.npz", *leaves)


def train_transformer(
    folder: Path,
    config: TrainConfig,
    model: ModelConfig,
    batches: Callable[[int, int], Iterator[dict[str, np.ndarray]]],
    *,
    loss: Loss = token_loss,
    evaluate: Evaluate = lambda model, step: {},
    first: Callable[[], Any] | None = None,
    watch: str = "",
    **feed: Any,
) -> Trained:
    """A run of a fresh transformer (or of `first()`) in `folder`, which need not be an artifact's."""
    with training(config, folder, lambda folder: None) as run:
        learner = Learner(partial(Transformer, model), first)
        return train(run, learner, loss, Feed(batches, **feed), evaluate, watch=watch)


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--checkpoint-every", type=int, default=4)
    parser.add_argument("--mesh", default='{"fsdp": -1}')
    parser.add_argument("--log-every", type=int)
    parser.add_argument("--step-minutes", type=float, default=10.0)
    return parser.parse_args(words)


if __name__ == "__main__":
    settings = arguments(sys.argv[1:])
    run(settings.folder, settings)
