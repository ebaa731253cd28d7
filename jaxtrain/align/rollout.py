"""Rollouts: answers sampled from the policy, scored, with what PPO needs to know of every token.

B batch, P prompt, N new tokens, T = P + N, D model
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain.align.losses import gae, whiten
from jaxtrain.align.reward_model import RewardModel
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.generate import Completions
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.mesh import BATCH
from jaxtrain.train import losses

Batch = dict[str, jax.Array]
ROWS = P(BATCH, "context")


class Policy(nnx.Module):
    """The language model that is improved, and a value head on its hidden states, zero at first."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        self.transformer = Transformer(config, key)
        self.value_D = value_head(config)

    def __call__(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """log p(target) and the value before each target, both float32 [B, T]."""
        hidden_BTD = self.transformer.hidden(batch["tokens"], batch["segment_ids"], batch["positions"])
        logprob_BT, _ = losses.logprobs(self.transformer, hidden_BTD, batch["targets"])
        value_BT = jnp.einsum(
            "btd,d->bt",
            hidden_BTD,
            self.value_D[...].astype(hidden_BTD.dtype),
            out_sharding=P(BATCH, "context"),
            preferred_element_type=jnp.float32,
        )
        return logprob_BT, value_BT


def value_head(config: ModelConfig) -> nnx.Param:
    return nnx.Param(jnp.zeros((config.d_model,), jnp.float32))


def logprobs(model: Transformer, batch: Batch) -> jax.Array:
    """log p(target), float32 [B, T]."""
    hidden_BTD = model.hidden(batch["tokens"], batch["segment_ids"], batch["positions"])
    return losses.logprobs(model, hidden_BTD, batch["targets"])[0]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Measures:
    """Means over the rollouts of one update; float32 scalars."""

    reward: jax.Array
    """Reward model's score, centred and scaled by the fine-tuned model's answers."""
    kl: jax.Array
    """KL(policy ‖ fine-tuned), nats a sequence, estimated by the sampled log-ratio."""
    surprise: jax.Array
    """−log p of a sampled token, nats: an estimate of the entropy."""
    length: jax.Array
    """Tokens of an answer."""


def rows(prompt_BP: jax.Array, segments_BP: jax.Array, answers: Completions, end: int) -> Batch:
    """Whole rows [B, T]: prompt (padded on the left), answer, and `end` behind an answer that was cut short.

    `mask` = 1 where the target was sampled; `last` = 1 at the end token, where the reward model scores;
    `rewarded` = 1 where the target is the last sampled token.
    """
    prompt_BP, segments_BP = (jax.sharding.reshard(x_BP, P(BATCH, None)) for x_BP in (prompt_BP, segments_BP))
    cut_B1 = 1 - jnp.sum((answers.tokens_BN == end) * answers.mask_BN, axis=1, keepdims=True)
    tokens_BT = jnp.concatenate([prompt_BP, answers.tokens_BN, jnp.full_like(prompt_BP[:, :1], end)], axis=1)
    real_BT = jnp.concatenate([segments_BP.astype(jnp.float32), answers.mask_BN, cut_B1], axis=1)
    positions_BT = jnp.maximum(jnp.cumsum(real_BT.astype(jnp.int32), axis=1) - 1, 0)
    sampled_BT = jnp.concatenate(
        [jnp.zeros_like(segments_BP, jnp.float32), answers.mask_BN, jnp.zeros_like(cut_B1)], axis=1
    )
    mask_BT = _ahead(sampled_BT)
    batch = {
        "tokens": tokens_BT,
        "targets": _ahead(tokens_BT),
        "segment_ids": real_BT.astype(jnp.int32),
        "positions": positions_BT,
        "mask": mask_BT,
        "last": real_BT * (1 - _ahead(real_BT)),
        "rewarded": mask_BT * (1 - _ahead(mask_BT)),
    }
    return {name: jax.sharding.reshard(x_BT, ROWS) for name, x_BT in batch.items()}


def _ahead(x_BT: jax.Array) -> jax.Array:
    """What stands one position later, 0 behind the last."""
    return jnp.concatenate([x_BT[:, 1:], jnp.zeros_like(x_BT[:, :1])], axis=1)


@jax.jit
def experience(
    policy: Policy,
    reference: Transformer,
    reward_model: RewardModel,
    batch: Batch,
    center: jax.Array,
    scale: jax.Array,
    kl_weight: jax.Array,
) -> tuple[Batch, Measures]:
    """What PPO learns from: old log-probabilities and values, advantages and returns of every sampled token.

    The reward is −kl_weight · (log p − log p_reference) at every token, plus the score, centred and scaled,
    at the answer's last sampled token.
    """
    mask_BT = batch["mask"]
    logprob_BT, value_BT = policy(batch)
    score_B = (reward_model(batch) - center) / scale
    ratio_BT = (logprob_BT - logprobs(reference, batch)) * mask_BT
    reward_BT = score_B[:, None] * batch["rewarded"] - kl_weight * ratio_BT
    in_time = (jax.sharding.reshard(x_BT, P(BATCH, None)) for x_BT in (reward_BT, value_BT, mask_BT))
    advantage_BT, return_BT = (jax.sharding.reshard(x_BT, ROWS) for x_BT in gae(*in_time))
    learned = {
        "old_logprobs": logprob_BT,
        "old_values": value_BT,
        "advantages": whiten(advantage_BT, mask_BT),
        "returns": return_BT,
    }
    count = jnp.sum(mask_BT)
    measures = Measures(
        jnp.mean(score_B),
        jnp.mean(jnp.sum(ratio_BT, axis=1)),
        -jnp.sum(logprob_BT * mask_BT) / count,
        count / mask_BT.shape[0],
    )
    return batch | learned, measures
