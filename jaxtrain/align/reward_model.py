"""The reward model: a transformer with a scalar head, trained on comparisons.

B batch, K answers of one prompt, T time, D model
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain import artifact, weights
from jaxtrain.align import judged
from jaxtrain.align.comparisons import Comparisons, epochs, parts_of, people_of, read_comparisons
from jaxtrain.align.heads import RewardModel, head_learner, reward_model_of
from jaxtrain.align.preference_losses import plackett_luce, ranking_loss
from jaxtrain.config import Stage
from jaxtrain.fields import Adjustable
from jaxtrain.model import lora
from jaxtrain.model.layers import replaced
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.runtime import checkpoint
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Limits, Positive
from jaxtrain.train.config import OptimizerConfig, TrainConfig
from jaxtrain.train.context import training
from jaxtrain.train.loop import train
from jaxtrain.weights.folder import ADAPTER, read_adapter, write_about
from jaxtrain.weights.learners import assembled, learner_of, runs_as, split, without_dropout


@dataclass(frozen=True, kw_only=True)
class RewardConfig(Stage):
    """Train a Bradley-Terry reward model on comparisons, from the weights of the fine-tuned model."""

    model: str
    """Folder of the finetune artifact it starts from."""
    ratings: str = ""
    """Folder of the rate artifact."""
    preferences: str = ""
    """In its place a file of preferences or rankings of any publisher (docs/formats.md, 1 collect)."""
    human: str = ""
    """Folder with `comparisons.jsonl.gz`, pairs that people judged; the accuracy on them is reported. Empty:
    none is."""
    lora: LoRAConfig = LoRAConfig(rank=0)
    train: TrainConfig = TrainConfig(
        optimizer=OptimizerConfig(lr=3e-4, weight_decay=0.1), evaluate_every=40, checkpoint_every=80
    )
    loss: Literal["pairs", "plackett_luce"] = "pairs"
    """Of a ranking: every two of its answers (Bradley-Terry, as InstructGPT), or the whole order at once."""
    margin: float = 0.0
    """pairs: score by which an answer is to be better, for each rank between (Llama 2)."""
    center: float = 0.0
    """pairs: weight of (sum of the two scores)², which holds scores to a mean of 0; 0.01 is usual."""
    trunk: Literal["trained", "frozen"] = "trained"
    """Train all weights, or the scalar head alone: for few comparisons, which are then read once and kept."""
    epochs: Adjustable[Positive] = 2.0
    """Passes over the comparisons, unless `train.steps` says how many steps."""
    batch_prompts: Count = 8
    """Prompts of a batch; all answers of a prompt are in the same row group."""
    length: Annotated[int, Limits(2)] = 96
    """Tokens of prompt and answer; a longer prompt loses its beginning."""

    def check(self) -> None:
        without_dropout(self.lora)
        if self.lora.rank and self.trunk == "frozen":
            raise UserError("trunk is frozen, so adapters would not learn; set one of the two back")
        if self.batch_prompts % self.train.microbatches:
            raise UserError(
                f"batch_prompts is {self.batch_prompts}; {self.train.microbatches} microbatches need a "
                "multiple of that"
            )


def reward_loss(
    config: RewardConfig, answers: int, model: RewardModel, batch: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Summed ranking loss of the prompts of a batch, and their number."""
    grouped = (-1, answers)
    scores_BK = jnp.reshape(jax.sharding.reshard(model(batch), P(None)), grouped)
    ranks_BK = jnp.reshape(jax.sharding.reshard(batch["ranks"], P(None, None))[:, 0], grouped)
    prompts = jnp.float32(scores_BK.shape[0])
    if config.loss == "plackett_luce":
        return plackett_luce(scores_BK, ranks_BK) * prompts, prompts
    return jnp.sum(ranking_loss(scores_BK, ranks_BK, margin=config.margin, center=config.center)), prompts


def train_reward_model(config: RewardConfig, folder: Path) -> dict[str, Any]:
    tokenizer = weights.open(config.model).tokenizer
    model = runs_as(config.train, weights.open(config.model).config)
    parts = parts_of(config.ratings, config.preferences)
    parts += [people_of(config.human)] if config.human else []
    every = [read_comparisons(part, tokenizer, config.length) for part in parts]
    comparisons, answers = every[0].ranks_BK.shape
    settings = config.train.lasting(max(1, round(config.epochs * comparisons / config.batch_prompts)))
    rows, name = config.batch_prompts * answers, f"batch_prompts times {answers} answers"
    with training(settings, folder, partial(write_about, model, tokenizer)) as run:
        meshes.check_rows(rows, config.length, settings.microbatches, model.stage_microbatches, name)
        around = partial(reward_model_of, seed=config.train.seed)
        if config.trunk == "frozen":
            reward = around(weights.open(config.model).load(model, "float32"))
            every = [read_once(part, reward) for part in every]
            learner = head_learner(reward)
        else:
            learner = learner_of(config, run.folder, model, RewardModel, around)
        assert learner.first is not None
        kept, heldout, *judged_by_people = every
        untrained = _grades(learner.whole(learner.first()), heldout)
        if not len(untrained):
            source = config.ratings or config.preferences
            raise UserError(f"{source}: all held-out answers are tied; rate more or raise heldout_share")
        trained = train(
            run,
            learner,
            partial(reward_loss, config, answers),
            epochs("comparisons", comparisons, config.batch_prompts, config.train.seed, kept.batch),
            lambda model, step: {"accuracy": float(_grades(model, heldout).mean())},
            watch="-accuracy",
            flops_per_token=None if config.trunk == "frozen" else model.flops_per_token(config.length),
        )
        made = artifact.read_manifest(config.ratings) if config.ratings else None
        agreement = made["counts"].get("agreement", {}).get("pairwise") if made else None
        counts = {"steps": trained.step, "untrained_accuracy": untrained.mean()}
        counts |= judged.counts(kept, heldout, score(trained.model, heldout.rows), agreement)
        if judged_by_people:
            people = _grades(trained.model, *judged_by_people)
            counts["human_accuracy"] = people.mean()
            counts["human_standard_error"] = people.std(ddof=1) / len(people) ** 0.5
        return counts


def read_once(comparisons: Comparisons, model: RewardModel) -> Comparisons:
    """With what a trunk that does not learn says of every row."""
    read_RD = meshes.map_rows(partial(_read, model), comparisons.rows, 128)
    return dataclasses.replace(comparisons, rows=comparisons.rows | {"read": read_RD})


def _grades(model: RewardModel, comparisons: Comparisons) -> np.ndarray:
    """Of every untied pair 1 where the model orders it rightly."""
    return judged.pair_grades(score(model, comparisons.rows), comparisons.ranks_BK)


def score(model: RewardModel, rows: dict[str, np.ndarray], batch_size: int = 128) -> np.ndarray:
    """Scores of any number of rows, float32 [rows]; so many at a time."""
    return meshes.map_rows(partial(_scores, model), rows, batch_size)


_scores, _read = jax.jit(RewardModel.__call__), jax.jit(RewardModel.read)


def load(folder: str | Path) -> RewardModel:
    """The reward model of a finished artifact, on the mesh that is set, adapters merged into its weights."""
    config, key, saved = weights.open(folder).config, jax.random.key(0), Path(folder) / "checkpoint"
    if not (Path(folder) / ADAPTER).is_file():
        return checkpoint.load_model(saved, lambda: RewardModel(config, key))
    about = read_adapter(folder)
    _, frozen = split(reward_model_of(weights.open(about["base"]).load(config), 0), about["lora"], key)
    learned = checkpoint.load_model(saved, lambda: split(RewardModel(config, key), about["lora"], key)[0])
    model = assembled(learned, frozen)
    return replaced(model, transformer=jax.jit(lora.merge)(model.transformer))
