"""What a config trains, as a plan needs it: model, loss, the rows of a step and how they are drawn."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from jaxtrain import config as configs
from jaxtrain import weights
from jaxtrain.align.distill import DistillConfig, beside, distill_loss
from jaxtrain.align.grpo import GRPOConfig
from jaxtrain.align.grpo import policy_loss as grpo_loss
from jaxtrain.align.heads import Policy, RewardModel
from jaxtrain.align.ppo import PPOConfig
from jaxtrain.align.ppo import policy_loss as ppo_loss
from jaxtrain.align.preference import PreferenceConfig, preference_loss
from jaxtrain.align.reward_model import RewardConfig, reward_loss
from jaxtrain.align.rollout import AT_ONCE, row_length
from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import replaced
from jaxtrain.model.transformer import Transformer
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.learner import Learner
from jaxtrain.train.losses import token_loss
from jaxtrain.train.step import Loss
from jaxtrain.weights.learners import assembled, runs_as, split

AnyMesh = Mesh | AbstractMesh
ANSWERS = 4
"""Of a prompt to a reward model: as `rate` samples them where nothing else is asked."""
PACKED = ("tokens", "targets", "segment_ids", "positions")


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """How the rows of reinforcement learning are drawn."""

    answers: int
    """Of a round."""
    at_once: int
    prompt: int
    """Tokens that a row has room for."""
    new: int
    """Tokens of an answer at most."""
    steps: int
    """Of the optimizer, on the answers of a round."""
    rounds: int = 1
    """Times that a round is sampled at most."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one optimizer step works on, and what stands in memory beside it."""

    config: Any
    model: ModelConfig
    """As it trains."""
    rows: int
    """Of a step."""
    length: int
    """Tokens of a row."""
    loss: Loss
    module: Any
    """(key) to the module that the loss sees."""
    whole: tuple[str, ...] = PACKED
    """Names of a batch's int32 arrays."""
    real: tuple[str, ...] = ()
    """Of its float32 arrays."""
    rollouts: Rollouts | None = None
    others: tuple[tuple[Any, str], ...] = ()
    """Models that stand in memory beside it, (key) to each and its dtype: reference, reward models."""
    teacher: tuple[Any, str] | None = None
    """The same, of a model that the loss sees too."""

    @property
    def train(self) -> TrainConfig:
        """With a number of steps: one, where only the data say how many."""
        return self.config.train.lasting(1)

    @property
    def micro(self) -> int:
        """Rows of a micro-batch."""
        return max(1, self.rows // self.train.microbatches)

    @property
    def width(self) -> int:
        """Bytes of a number that it computes with."""
        return 2 if self.model.dtype == "bfloat16" else 4

    @property
    def lora(self) -> Any:
        found = getattr(self.config, "lora", None)
        return found if found is not None and found.rank else None

    def learner(self, mesh: AnyMesh) -> Learner:
        """What learns and what stays, as shapes on the mesh, which is set."""
        if isinstance(self.config, RewardConfig) and self.config.trunk == "frozen":
            # rows are read once and kept: a step of the first epoch, others take next to nothing
            return Learner(
                init=lambda key: replaced(self.module(key), transformer=None),
                frozen=drawn(lambda key: self.module(key).transformer, mesh),
                assemble=lambda head, trunk, _: replaced(head, transformer=trunk),
            )
        learner = Learner(init=self.module)
        if self.lora is not None:
            adapted = lambda key: split(self.module(key), self.lora, key)  # noqa: E731
            frozen = drawn(lambda key: adapted(key)[1], mesh, self.model.dtype)
            learner = Learner(init=lambda key: adapted(key)[0], frozen=frozen, assemble=assembled)
        if self.teacher is None:
            return learner
        return beside(learner, drawn(self.teacher[0], mesh, self.teacher[1]))


def drawn(make: Callable[[jax.Array], Any], mesh: AnyMesh, dtype: str | None = None) -> Any:
    """What `make(key)` gives, as shapes on the mesh; dtype: of its float32, where another than that."""
    kinds = {jnp.dtype("float32"): dtype or "float32"}
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, kinds.get(x.dtype, x.dtype), sharding=x.sharding),
        meshes.abstract(lambda: make(jax.random.key(0)), mesh),
    )


def work_of(config: Any, shape: ModelConfig) -> Work:
    """The work of a training config on the mesh that is set. shape: `shape_of(config)`."""
    return _MAKERS[type(config)](config, runs_as(config.train, shape))


def shape_of(config: Any, where: Path | None = None) -> ModelConfig:
    """The model that a config trains; UserError for a config that trains none, or whose model is not there.

    where: the config's own folder: a model.json or config.json in it stands in for a model not yet made, or
    the config of the stage that makes it.
    """
    if type(config) not in _MAKERS:
        names = ", ".join(kind.__name__ for kind in _MAKERS)
        raise UserError(f"a {type(config).__name__} trains nothing; plan takes one of {names}")
    if isinstance(config, PretrainConfig):
        return config.model
    if Path(config.model).exists():
        return weights.open(config.model).config
    if where is not None and any((where / name).is_file() for name in ("model.json", "config.json")):
        return weights.open(where).config
    before = where / f"{Path(config.model).name}.py" if where is not None else None
    if before is not None and before.is_file():
        return shape_of(configs.load(before, config.scale), where)
    raise UserError(
        f"model: {config.model} is not there, and a plan needs its shapes: give --model a folder with a "
        "model.json or a Hugging Face config.json (weights are not read), or make the model first"
    )


def _text(config: PretrainConfig | FinetuneConfig, model: ModelConfig) -> Work:
    is_first = isinstance(config, PretrainConfig)
    return Work(
        config=config,
        model=model,
        rows=config.batch_size,
        length=model.max_length if is_first else config.length or model.max_length,
        loss=partial(token_loss, z_loss=config.z_loss) if is_first else token_loss,
        module=partial(Transformer, model),
        real=("loss_weights",),
    )


def _reward(config: RewardConfig, model: ModelConfig) -> Work:
    return Work(
        config=config,
        model=model,
        rows=config.batch_prompts * ANSWERS,
        length=config.length,
        loss=partial(reward_loss, config, ANSWERS),
        module=partial(RewardModel, model),
        whole=("tokens", "segment_ids", "positions", "ranks"),
        real=("last",),
    )


def _preference(config: PreferenceConfig, model: ModelConfig) -> Work:
    more = {"orpo": ("nll_scale",), "simpo": ()}.get(config.kind, ("reference",))
    return Work(
        config=config,
        model=model,
        rows=config.batch_pairs * (4 if config.kind == "kto" else 2),
        length=config.length,
        loss=partial(preference_loss, config),
        module=partial(Transformer, model),
        real=("loss_weights", *more),
    )


def _ppo(config: PPOConfig, model: ModelConfig) -> Work:
    judges = 1 + len(config.also)
    return Work(
        config=config,
        model=model,
        rows=config.rollouts // config.minibatches,
        length=row_length(config.longest_prompt, config.max_new),
        loss=partial(ppo_loss, config),
        module=partial(Policy, model, value=config.value),
        real=("mask", "old_logprobs", "old_values", "advantages", "returns"),
        rollouts=_rollouts(config, config.rollouts, steps=config.epochs * config.minibatches),
        # reward models of the policy's size, in float32 as they are loaded
        others=(*_reference(config, model), *((partial(RewardModel, model), "float32"),) * judges),
    )


def _grpo(config: GRPOConfig, model: ModelConfig) -> Work:
    answers = config.prompts * config.group
    return Work(
        config=config,
        model=model,
        rows=answers // config.minibatches,
        length=row_length(config.longest_dialogue or config.longest_prompt + config.max_new, 0),
        loss=partial(grpo_loss, config),
        module=partial(Policy, model, value="none"),
        real=("mask", "old_logprobs", "advantages", *(("reference_logprobs",) if config.beta else ())),
        rollouts=dataclasses.replace(
            _rollouts(config, answers, steps=config.epochs * config.minibatches),
            at_once=min(answers, config.sample_rows),
            rounds=config.resample + 1,
        ),
        others=_reference(config, model),
    )


def _distill(config: DistillConfig, model: ModelConfig) -> Work:
    teacher = runs_as(config.train, weights.open(config.teacher).config)
    return Work(
        config=config,
        model=model,
        rows=config.rollouts,
        length=row_length(config.longest_prompt, config.max_new),
        loss=partial(distill_loss, config.beta, config.temperature),
        module=partial(Policy, model, value="none"),
        real=("mask",),
        rollouts=_rollouts(config, config.rollouts, steps=1),
        others=_reference(config, model),
        teacher=(partial(Transformer, teacher), teacher.dtype),
    )


def _reference(config: Any, model: ModelConfig) -> tuple[tuple[Any, str], ...]:
    """The model before it learned; with adapters it is the one that they stand on, which is there already."""
    return () if config.lora.rank else ((partial(Transformer, model), model.dtype),)


def _rollouts(config: Any, answers: int, steps: int) -> Rollouts:
    return Rollouts(
        answers=answers,
        at_once=min(answers, AT_ONCE),
        prompt=config.longest_prompt,
        new=config.max_new,
        steps=steps,
    )


_MAKERS: Mapping[type, Any] = {
    PretrainConfig: _text,
    FinetuneConfig: _text,
    RewardConfig: _reward,
    PreferenceConfig: _preference,
    PPOConfig: _ppo,
    GRPOConfig: _grpo,
    DistillConfig: _distill,
}
