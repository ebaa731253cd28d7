"""Rollouts: answers sampled from the policy, scored, with what PPO needs to know of every token.

B batch, P prompt, N new tokens, T = P + N + 1, D model
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain.align.losses import Estimator, gae, kl, whiten
from jaxtrain.decode.generate import Completions, generate, pad_left, row_keys
from jaxtrain.feed.shuffle import Permutation, key
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import named_key
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import BATCH
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import losses

Batch = dict[str, jax.Array]
Value = Literal["none", "shared", "own"]
ROWS = P(BATCH, "context")


class Policy(nnx.Module):
    """The language model that is improved; for PPO with a value head, zero at first.

    value: the head is on the policy's hidden states (shared), on those of a transformer of its own, or none.
    """

    def __init__(self, config: ModelConfig, key: jax.Array, value: Value = "shared"):
        self.transformer = Transformer(config, key)
        self.critic = Transformer(config, named_key(key, "critic")) if value == "own" else None
        self.value_D = None if value == "none" else value_head(config)

    def __call__(self, batch: Batch, temperature: float = 1.0) -> tuple[jax.Array, jax.Array | None]:
        """log p(target) and the value before each target (None without a head), both float32 [B, T]."""
        hidden_BTD = _hidden(self.transformer, batch)
        logprob_BT, _ = losses.logprobs(self.transformer, hidden_BTD, batch["targets"], temperature)
        if self.value_D is None:
            return logprob_BT, None
        valued_BTD = hidden_BTD if self.critic is None else _hidden(self.critic, batch)
        value_BT = jnp.einsum(
            "btd,d->bt",
            valued_BTD,
            self.value_D[...].astype(valued_BTD.dtype),
            out_sharding=P(BATCH, "context"),
            preferred_element_type=jnp.float32,
        )
        return logprob_BT, value_BT


def policy_of(transformer: Transformer, critic: Transformer | None = None, value: Value = "none") -> Policy:
    """A policy around weights that stand."""
    policy = jax.eval_shape(lambda: Policy(transformer.config, jax.random.key(0), value))
    policy.transformer, policy.critic = transformer, critic
    policy.value_D = None if value == "none" else value_head(transformer.config)
    return policy


def value_head(config: ModelConfig) -> nnx.Param:
    return nnx.Param(jnp.zeros((config.d_model,), jnp.float32))


def logprobs(model: Transformer, batch: Batch, temperature: float = 1.0) -> jax.Array:
    """log p(target), float32 [B, T]."""
    return losses.logprobs(model, _hidden(model, batch), batch["targets"], temperature)[0]


def _hidden(model: Transformer, batch: Batch) -> jax.Array:
    return model.hidden(batch["tokens"], batch["segment_ids"], batch["positions"])


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How answers are drawn: every stage that learns from rollouts has one."""

    tokenizer: Tokenizer
    longest_prompt: int
    """Tokens; every row has room for as many."""
    max_new: int
    """Tokens of an answer at most."""
    temperature: float = 1.0

    def answer(self, model: Transformer, prompts: list[list[int]], seed: int, greedy: bool = False) -> Batch:
        """Rows of prompts and sampled answers (`rows`), on the mesh."""
        tokens, segments = pad_left(prompts, self.longest_prompt, self.tokenizer.pad)
        batch = meshes.put_batch({"tokens": tokens, "segments": segments}, jax.sharding.get_mesh())
        answers = generate(
            model,
            batch["tokens"],
            batch["segments"],
            row_keys(jax.random.key(seed % 2**31), len(prompts)),
            max_new=self.max_new,
            temperature=0.0 if greedy else self.temperature,
            stop=self.tokenizer.end,
            pad=self.tokenizer.pad,
        )
        return _rows(batch["tokens"], batch["segments"], answers, end=self.tokenizer.end)

    def ids(self, batch: dict[str, Any]) -> list[list[int]]:
        """The sampled tokens of each row, without the end token."""
        targets, mask = np.asarray(batch["targets"]), np.asarray(batch["mask"]) > 0
        end = self.tokenizer.end
        return [[i for i in row[kept].tolist() if i != end] for row, kept in zip(targets, mask, strict=True)]

    def texts(self, batch: dict[str, Any]) -> list[str]:
        """The sampled answers as text."""
        return [self.tokenizer.decode(ids) for ids in self.ids(batch)]


def with_reward(batch: dict[str, Any], reward_B: np.ndarray) -> dict[str, Any]:
    """The rows with what each answer is worth, as numpy."""
    rows = jax.device_get(batch)
    return rows | {"reward": np.float32(reward_B)[:, None].repeat(rows["tokens"].shape[1], axis=1)}


def drawn(size: int, seed: int, first: int, count: int) -> list[int]:
    """Which of `size` prompts are asked as numbers `first` and on: each once before any is asked again."""
    orders: dict[int, Permutation] = {}
    for epoch in range(first // size, (first + count - 1) // size + 1):
        orders[epoch] = Permutation(size, key(seed, "prompts", epoch))
    return [int(orders[n // size][n % size]) for n in range(first, first + count)]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Measures:
    """Means over the rollouts of one update; float32 scalars."""

    reward: jax.Array
    """What an answer is worth: scores in SD of the fine-tuned model's answers (PPO), or grades (GRPO)."""
    kl: jax.Array
    """KL(policy ‖ fine-tuned), nats a sequence, estimated by the sampled log-ratio."""
    surprise: jax.Array
    """−log p of a sampled token, nats: an estimate of the entropy."""
    length: jax.Array
    """Tokens of an answer."""
    cut: jax.Array
    """Share of the answers that were cut short."""


def rows(prompt_BP: jax.Array, segments_BP: jax.Array, answers: Completions, end: int) -> Batch:
    """Whole rows [B, T]: prompt (padded on the left), answer, and `end` behind an answer that was cut short.

    `mask` = 1 where the target was sampled; `last` = 1 at the end token, where the reward model scores;
    `rewarded` = 1 where the target is the last sampled token; `cut` = 1 there if the answer was cut short;
    `sampler_logprobs`: of the sampled targets, under the distribution sampled from.
    """
    prompt_BP, segments_BP = (jax.sharding.reshard(x_BP, P(BATCH, None)) for x_BP in (prompt_BP, segments_BP))
    cut_B1 = 1 - jnp.sum((answers.tokens_BN == end) * answers.mask_BN, axis=1, keepdims=True)
    tokens_BT = jnp.concatenate([prompt_BP, answers.tokens_BN, jnp.full_like(prompt_BP[:, :1], end)], axis=1)
    real_BT = jnp.concatenate([segments_BP.astype(jnp.float32), answers.mask_BN, cut_B1], axis=1)
    positions_BT = jnp.maximum(jnp.cumsum(real_BT.astype(jnp.int32), axis=1) - 1, 0)
    before_BP, after_B1 = jnp.zeros_like(segments_BP, jnp.float32), jnp.zeros_like(cut_B1)
    mask_BT, sampler_BT = (
        _ahead(jnp.concatenate([before_BP, x_BN, after_B1], axis=1))
        for x_BN in (answers.mask_BN, answers.logprobs_BN)
    )
    rewarded_BT = mask_BT * (1 - _ahead(mask_BT))
    batch = {
        "tokens": tokens_BT,
        "targets": _ahead(tokens_BT),
        "segment_ids": real_BT.astype(jnp.int32),
        "positions": positions_BT,
        "mask": mask_BT,
        "last": real_BT * (1 - _ahead(real_BT)),
        "rewarded": rewarded_BT,
        "cut": rewarded_BT * cut_B1,
        "sampler_logprobs": sampler_BT,
    }
    return {name: jax.sharding.reshard(x_BT, ROWS) for name, x_BT in batch.items()}


def _ahead(x_BT: jax.Array) -> jax.Array:
    """What stands one position later, 0 behind the last."""
    return jnp.concatenate([x_BT[:, 1:], jnp.zeros_like(x_BT[:, :1])], axis=1)


_rows = jax.jit(rows, static_argnames="end")


@dataclass(frozen=True, kw_only=True)
class Pay:
    """What an answer's tokens are paid; see `PPOConfig` for the fields."""

    kl_kind: Estimator = "k1"
    cut_penalty: float = 0.0
    gamma: float = 1.0
    lam: float = 0.95


@partial(jax.jit, static_argnames="pay")
def experience(
    policy: Policy,
    reference: Transformer,
    batch: Batch,
    kl_weight: jax.Array | float,
    pay: Pay,
) -> tuple[Batch, Measures]:
    """What PPO learns from: old log-probabilities and values, advantages and returns of every sampled token.

    The reward is −kl_weight · KL's estimate at every token, plus the answer's `reward` at its last sampled
    token, less `cut_penalty` where the answer was cut short.
    """
    mask_BT = batch["mask"]
    logprob_BT, value_BT = policy(batch)
    reference_BT = logprobs(reference, batch)
    apart_BT = kl(logprob_BT, reference_BT, pay.kl_kind) * mask_BT
    score_BT = batch["reward"] * batch["rewarded"] - pay.cut_penalty * batch["cut"]
    reward_BT = score_BT - kl_weight * apart_BT
    in_time = (jax.sharding.reshard(x_BT, P(BATCH, None)) for x_BT in (reward_BT, value_BT, mask_BT))
    advantage_BT, return_BT = (
        jax.sharding.reshard(x_BT, ROWS) for x_BT in gae(*in_time, gamma=pay.gamma, lam=pay.lam)
    )
    learned = {
        "old_logprobs": logprob_BT,
        "old_values": value_BT,
        "advantages": whiten(advantage_BT, mask_BT),
        "returns": return_BT,
    }
    return batch | learned, measure(batch, logprob_BT, reference_BT)


def measure(batch: Batch, logprob_BT: jax.Array, reference_BT: jax.Array) -> Measures:
    """The means that every stage with rollouts logs."""
    mask_BT, rows = batch["mask"], batch["mask"].shape[0]
    count = jnp.sum(mask_BT)
    return Measures(
        reward=jnp.sum(batch["reward"] * batch["rewarded"]) / rows,
        kl=jnp.sum((logprob_BT - reference_BT) * mask_BT) / rows,
        surprise=-jnp.sum(logprob_BT * mask_BT) / count,
        length=count / rows,
        cut=jnp.sum(batch["cut"]) / rows,
    )
