"""The reward model: a transformer with a scalar head, trained on comparisons.

B batch, K answers of one prompt, T time, D model
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain import artifact, weights
from jaxtrain.align import adapters, judged
from jaxtrain.align.adapters import Learner
from jaxtrain.align.comparisons import answer_rows, read_comparisons
from jaxtrain.align.judged import pair_grades
from jaxtrain.align.losses import plackett_luce, ranking_loss
from jaxtrain.feed.shuffle import Permutation, key
from jaxtrain.fields import Adjustable, Operational
from jaxtrain.model import lora
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import normal
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import checkpoint
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import BATCH, MeshConfig
from jaxtrain.runtime.progress import say
from jaxtrain.runtime.trackers import Tracker
from jaxtrain.tasks import human_preference
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.loop import Schedule, train
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer
from jaxtrain.weights import folder as store


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Train a Bradley-Terry reward model on comparisons, from the weights of the fine-tuned model."""

    VERSION: ClassVar[int] = 1

    model: str
    """Folder of the finetune artifact it starts from."""
    ratings: str
    """Folder of the rate artifact."""
    human: str
    """Folder with `comparisons.jsonl.gz`, pairs that people judged; the accuracy on them is reported."""
    out: str
    """Folder to write."""
    lora: LoRAConfig = field(default_factory=lambda: LoRAConfig(rank=0))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=3e-4, weight_decay=0.1))
    mesh: Operational[MeshConfig] = field(default_factory=MeshConfig)
    loss: Literal["pairs", "plackett_luce"] = "pairs"
    """Of a ranking: every two of its answers (Bradley-Terry, as InstructGPT), or the whole order at once."""
    margin: float = 0.0
    """pairs: score by which an answer is to be better, for each rank between (Llama 2)."""
    center: float = 0.0
    """pairs: weight of (sum of the two scores)², which holds scores to a mean of 0; 0.01 is usual."""
    trunk: Literal["trained", "frozen"] = "trained"
    """Train all weights, or the scalar head alone: for few comparisons."""
    epochs: Adjustable[float] = 2.0
    """Passes over the comparisons."""
    batch_prompts: int = 8
    """Prompts of a batch; all answers of a prompt are in the same row group."""
    length: int = 96
    """Tokens of prompt and answer; a longer prompt loses its beginning."""
    evaluate_every: Operational[int] = 40
    """Steps between evaluations on held-out comparisons."""
    checkpoint_every: Operational[int] = 80
    """Steps between checkpoints."""
    trackers: Operational[tuple[Tracker, ...]] = ("tensorboard",)
    """Where the numbers are shown beside `metrics.jsonl`: tensorboard, wandb, mlflow, trackio."""
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


def reward_loss(
    config: RewardConfig, answers: int, model: RewardModel, batch: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Summed ranking loss of the prompts of a batch, and their number."""
    if config.trunk == "frozen":
        model = _frozen(model)
    grouped = (-1, answers)
    scores_BK = jnp.reshape(jax.sharding.reshard(model(batch), P(None)), grouped)
    ranks_BK = jnp.reshape(jax.sharding.reshard(batch["ranks"], P(None, None))[:, 0], grouped)
    prompts = jnp.float32(scores_BK.shape[0])
    if config.loss == "plackett_luce":
        return plackett_luce(scores_BK, ranks_BK) * prompts, prompts
    return jnp.sum(ranking_loss(scores_BK, ranks_BK, margin=config.margin, center=config.center)), prompts


def _untrained(transformer: Transformer, seed: int) -> RewardModel:
    """A reward model around weights that stand; only its head is drawn."""
    key = jax.random.key(seed)
    model = jax.eval_shape(partial(RewardModel, transformer.config), key)
    model.transformer, model.score_D = transformer, _score_head(transformer.config, key)
    return model


def _frozen(model: RewardModel) -> RewardModel:
    """The same model; no gradient reaches its transformer."""
    same = jax.tree.map(lambda x: x, model)
    same.transformer = jax.lax.stop_gradient(model.transformer)
    return same


def _optimizer(config: RewardConfig, steps: int) -> optax.GradientTransformation:
    rule = optimizers.make(config.optimizer, steps)
    if config.trunk == "trained":
        return rule

    def labels(model: RewardModel) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "head" if "score_D" in jax.tree_util.keystr(path) else "trunk", model
        )

    return optax.partition({"head": rule, "trunk": optax.set_to_zero()}, labels)


def train_reward_model(config: RewardConfig, folder: Path) -> dict[str, Any]:
    with jax.set_mesh(meshes.make(config.mesh)):
        return _train(config, weights.open(config.model).tokenizer, folder)


def _train(config: RewardConfig, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    if config.lora.rank and config.trunk == "frozen":
        raise UserError("trunk is frozen, so adapters would not learn; set one of the two back")
    model_config = store.read_config(config.model)
    store.write_config(folder, model_config)
    tokenizer.save_in(folder)
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
    optimizer = _optimizer(config, steps)

    def batches(start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        for step in range(start, stop):
            drawn = step * config.batch_prompts + np.arange(config.batch_prompts)
            order = [
                Permutation(comparisons, key(config.seed, "comparisons", n // comparisons))[n % comparisons]
                for n in drawn.tolist()
            ]
            yield kept.batch(np.array(order))

    def evaluate(learned: Any, step: int) -> dict[str, Any]:
        scores = score(learner.whole(learned), heldout.rows)
        return {"accuracy": float(np.mean(pair_grades(scores, heldout.ranks_BK)))}

    learner = Learner.of(
        config,
        folder,
        make=partial(RewardModel, model_config),
        load=lambda weights: _untrained(store.load(config.model, weights=weights), config.seed),
    )
    untrained = pair_grades(score(learner.whole(learner.first()), heldout.rows), heldout.ranks_BK)
    if not len(untrained):
        raise UserError(f"{config.ratings}: all held-out answers are tied; rate more or raise heldout_share")
    schedule = Schedule(
        steps=steps, evaluate_every=config.evaluate_every, checkpoint_every=config.checkpoint_every
    )
    state = train(
        folder,
        schedule,
        init=initializer(learner.init, optimizer, config.seed),
        loss=learner.loss(partial(reward_loss, config, answers)),
        optimizer=optimizer,
        batches=batches,
        evaluate=evaluate,
        pretrained=learner.first,
        frozen=learner.frozen,
        trackers=config.trackers,
    )
    model = learner.whole(state.model)
    scores = score(model, heldout.rows)
    grades = pair_grades(scores, heldout.ranks_BK)
    gain = judged.gain_over(scores, judged.length_scores(kept, heldout), heldout.ranks_BK)
    say(
        f"align: {grades.mean():.3f} of held-out pairs ordered rightly; {gain['mean']:+.3f} beside length "
        f"alone, 95 % interval [{gain['low']:+.3f}, {gain['high']:+.3f}], which "
        + ("excludes 0" if gain["excludes_zero"] else "does not exclude 0")
    )
    error, table = judged.calibration(scores, heldout.ranks_BK)
    people = _human_grades(model, config, tokenizer)
    return {
        "simulated": kept.simulated and heldout.simulated,
        "steps": steps,
        "heldout_accuracy": grades.mean(),
        "standard_error": judged.clustered_error(scores, heldout.ranks_BK),
        "untrained_accuracy": untrained.mean(),
        **judged.baselines(kept, heldout, _agreement(config.ratings)),
        "gain_over_length": gain,
        "calibration_error": error,
        "calibration": table,
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


def _agreement(ratings: str) -> float | None:
    """How often two raters agreed on a pair, where the rate artifact says."""
    manifest = artifact.read_manifest(ratings)
    return manifest["counts"].get("agreement", {}).get("pairwise") if manifest else None


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
    """The reward model of a finished artifact, on the mesh that is set, adapters merged into its weights."""
    config, key, saved = store.read_config(folder), jax.random.key(0), Path(folder) / "checkpoint"
    if not (Path(folder) / store.ADAPTER).is_file():
        return checkpoint.load_model(saved, lambda: RewardModel(config, key))
    about = store.read_adapter(folder)
    _, frozen = adapters.split(_untrained(store.load(about["base"], config), 0), about["lora"], key)
    learned = checkpoint.load_model(
        saved, lambda: adapters.split(RewardModel(config, key), about["lora"], key)[0]
    )
    model = adapters.whole(learned, frozen)
    model.transformer = jax.jit(lora.merge)(model.transformer)
    return model
