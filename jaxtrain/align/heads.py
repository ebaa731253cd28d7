"""Modules around transformers: the policy that is improved, and the reward model.

B batch, T time, D model
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain import weights
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import named_key, normal, replaced
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.mesh import BATCH
from jaxtrain.train import losses
from jaxtrain.train.learner import Learner
from jaxtrain.weights.learners import Config, base_of, learner_of

Batch = dict[str, jax.Array]
Value = Literal["none", "shared", "own"]


class Policy(nnx.Module):
    """The language model that is improved; for PPO with a value head, zero at first.

    value: the head is on the policy's hidden states (shared), on those of a transformer of its own, or none.
    """

    def __init__(self, config: ModelConfig, key: jax.Array, value: Value = "shared"):
        self.transformer = Transformer(config, key)
        self.critic = Transformer(config, named_key(key, "critic")) if value == "own" else None
        self.value_D = None if value == "none" else _value_head(config)

    def __call__(self, batch: Batch, temperature: float = 1.0) -> tuple[jax.Array, jax.Array | None]:
        """log p(target) and the value before each target (None without a head), both float32 [B, T].

        Where the batch has `logprobs`, read by the sampler's program, these are the numbers, and the gradient
        is that of this pass, which is equal to rounding.
        """
        hidden_BTD = hidden(self.transformer, batch)
        logprob_BT, _ = losses.logprobs(self.transformer, hidden_BTD, batch["targets"], temperature)
        if "logprobs" in batch:
            logprob_BT = _with_numbers_of(batch["logprobs"], logprob_BT)
        if self.value_D is None:
            return logprob_BT, None
        valued_BTD = hidden_BTD if self.critic is None else hidden(self.critic, batch)
        return logprob_BT, _scalar(valued_BTD, self.value_D)


@jax.custom_vjp
def _with_numbers_of(other: jax.Array, x: jax.Array) -> jax.Array:
    """`other`, whose gradient goes to `x`."""
    return other


_with_numbers_of.defvjp(lambda other, x: (other, None), lambda _, gradient: (None, gradient))


class RewardModel(nnx.Module):
    """A transformer whose last real token is scored.

    That token is always `<|end|>`, put behind answers that were cut short: read at whatever word came last,
    the same comparisons taught it less (held-out accuracy .666 against .684, `benchmarks/notes.md`).
    """

    def __init__(self, config: ModelConfig, key: jax.Array):
        self.transformer = Transformer(config, key)
        self.score_D = _score_head(config, key)

    def __call__(self, batch: Batch) -> jax.Array:
        """Scores [B] of rows whose last real token has `last` = 1, or that the transformer has `read`."""
        if "read" in batch:
            read_BD = jax.sharding.reshard(batch["read"], P(BATCH, None))
            return jnp.einsum("bd,d->b", read_BD, self.score_D[...], out_sharding=P(BATCH))
        return jnp.sum(_scalar(hidden(self.transformer, batch), self.score_D) * batch["last"], axis=1)

    def read(self, batch: Batch) -> jax.Array:
        """What the last block gives at the last real token, [B, D]: all that the head sees of a row."""
        return jnp.sum(hidden(self.transformer, batch) * batch["last"][..., None], axis=1)


def policy_of(transformer: Transformer, critic: Transformer | None = None, value: Value = "none") -> Policy:
    """A policy around weights that stand; its value head is new."""
    config = transformer.config
    shape = jax.eval_shape(lambda: Policy(config, jax.random.key(0), value))
    head = None if value == "none" else _value_head(config)
    return replaced(shape, transformer=transformer, critic=critic, value_D=head)


def reward_model_of(transformer: Transformer, seed: int) -> RewardModel:
    """A reward model around weights that stand; only its head is drawn."""
    key = jax.random.key(seed)
    shape = jax.eval_shape(partial(RewardModel, transformer.config), key)
    return replaced(shape, transformer=transformer, score_D=_score_head(transformer.config, key))


def hidden(model: Transformer, batch: Batch) -> jax.Array:
    """What the last block gives, [B, T, D]."""
    return model.hidden(batch["tokens"], batch["segment_ids"], batch["positions"])


def policy_learner(
    config: Config,
    folder: Path,
    model: ModelConfig,
    value: Value = "none",
    critic: Callable[[], Transformer | None] = lambda: None,
) -> tuple[Learner, Transformer]:
    """A learner of the policy that begins as `config.model`, and that model as it was: the reference, which
    under adapters is not held twice.

    Later stages load the policy's transformer alone, or its adapters. critic: loads a copy of its own.
    """

    def around(transformer: Transformer) -> Policy:
        return policy_of(transformer, critic(), value)

    learner = learner_of(config, folder, model, partial(Policy, value=value), around)
    reference = base_of(learner) or weights.open(config.model).load(model, model.dtype)
    saving = dataclasses.replace(
        learner,
        saved=lambda policy: policy.transformer,
        rest=lambda policy: (policy.critic, policy.value_D),
        restored=lambda like, saved, rest: replaced(like, transformer=saved, critic=rest[0], value_D=rest[1]),
    )
    return saving, reference


def head_learner(model: RewardModel) -> Learner:
    """The scalar head alone learns, of rows that its trunk has `read`; checkpoints hold the whole model."""

    def head(model: RewardModel) -> RewardModel:
        return replaced(model, transformer=None)

    return Learner(
        init=lambda key: head(RewardModel(model.transformer.config, key)),
        first=lambda: jax.tree.map(jnp.copy, head(model)),
        saved=lambda head: replaced(head, transformer=model.transformer),
        restored=lambda like, saved, rest: head(saved),
    )


def _scalar(hidden_BTD: jax.Array, head_D: nnx.Param) -> jax.Array:
    """A number a token, float32 [B, T]."""
    return jnp.einsum(
        "btd,d->bt",
        hidden_BTD,
        head_D[...].astype(hidden_BTD.dtype),
        out_sharding=P(BATCH, "context"),
        preferred_element_type=jnp.float32,
    )


def _value_head(config: ModelConfig) -> nnx.Param:
    return nnx.Param(jnp.zeros((config.d_model,), jnp.float32))


def _score_head(config: ModelConfig, key: jax.Array) -> nnx.Param:
    return normal(key, "score", (config.d_model,), P(None), (config.d_model + 1) ** -0.5)
