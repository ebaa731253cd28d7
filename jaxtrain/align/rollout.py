"""Rollouts: answers sampled from the policy, scored, with what PPO needs to know of every token.

B batch, P prompt, N new tokens, T = P + N + 1, D model
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain.align.heads import Policy, logprobs
from jaxtrain.align.losses import Estimator, gae, kl, whiten
from jaxtrain.decode.generate import Completions, generate, pad_left, row_keys
from jaxtrain.feed.shuffle import Epochs
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import BATCH
from jaxtrain.tokenize.tokenizer import Tokenizer

Batch = dict[str, jax.Array]
Rows = dict[str, np.ndarray]
ROWS = P(BATCH, "context")
KERNEL_WIDTH = 128
"""Tokens that the rows of attention kernels on accelerators are a multiple of."""
AT_ONCE = 1024
"""Answers that are drawn side by side at most, where no config says how many."""


def fits(model: ModelConfig, longest_prompt: int, max_new: int) -> None:
    """UserError where prompt and answer are longer than what the model was trained on."""
    if (tokens := longest_prompt + max_new + 1) > model.max_length:
        raise UserError(
            f"longest_prompt {longest_prompt} and max_new {max_new} make rows of {tokens} tokens, but the "
            f"model was trained on {model.max_length}: lower one of them"
        )


def row_length(longest_prompt: int, max_new: int) -> int:
    """T: prompt, answer and end, rounded up to what the kernels and the mesh that is set want."""
    multiple = 1 if meshes.platform() == "cpu" else KERNEL_WIDTH
    multiple = math.lcm(multiple, jax.sharding.get_abstract_mesh().shape["context"])
    return -(-(longest_prompt + max_new + 1) // multiple) * multiple


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How answers are drawn: every stage that learns from rollouts has one."""

    tokenizer: Tokenizer
    longest_prompt: int
    """Tokens; every row has room for as many."""
    max_new: int
    """Tokens of an answer at most."""
    temperature: float = 1.0
    at_once: int = AT_ONCE
    """Answers drawn side by side, whose keys and values are in memory together; what they say stays."""

    def width(self) -> int:
        return row_length(self.longest_prompt, self.max_new)

    def answer(self, model: Transformer, prompts: list[list[int]], seed: int, greedy: bool = False) -> Rows:
        """Rows of prompts and sampled answers (`rows`), whole on every process."""
        tokens, segments = pad_left(prompts, self.longest_prompt, self.tokenizer.pad)
        numbers = np.arange(len(prompts), dtype=np.int32)[:, None].repeat(self.longest_prompt, axis=1)
        draw = partial(self._draw, model, jax.random.key(seed % 2**31), 0.0 if greedy else self.temperature)
        asked = {"tokens": tokens, "segments": segments, "numbers": numbers}
        return meshes.map_rows(draw, asked, self.at_once)

    def _draw(self, model: Transformer, key: jax.Array, temperature: float, batch: Batch) -> Batch:
        answers = generate(
            model,
            batch["tokens"],
            batch["segments"],
            row_keys(key, jnp.max(batch["numbers"], axis=1)),  # a row has its number in every column
            max_new=self.max_new,
            temperature=temperature,
            stop=self.tokenizer.end,
            pad=self.tokenizer.pad,
        )
        return _rows(batch["tokens"], batch["segments"], answers, end=self.tokenizer.end, width=self.width())

    def ids(self, batch: dict[str, Any]) -> list[list[int]]:
        """The sampled tokens of each row, without the end token."""
        targets, mask = np.asarray(batch["targets"]), np.asarray(batch["mask"]) > 0
        end = self.tokenizer.end
        return [[i for i in row[kept].tolist() if i != end] for row, kept in zip(targets, mask, strict=True)]

    def texts(self, batch: dict[str, Any]) -> list[str]:
        """The sampled answers as text."""
        return [self.tokenizer.decode(ids) for ids in self.ids(batch)]


def with_reward(rows: Rows, reward_B: np.ndarray) -> Rows:
    """The rows with what each answer is worth."""
    return rows | {"reward": np.float32(reward_B)[:, None].repeat(rows["tokens"].shape[1], axis=1)}


def drawn(size: int, seed: int, first: int, count: int) -> list[int]:
    """Which of `size` prompts are asked as numbers `first` and on: each once before any is asked again."""
    return Epochs(size, seed, "prompts")[first + np.arange(count)].tolist()


def rows(prompt_BP: jax.Array, segments_BP: jax.Array, answers: Completions, end: int, width: int) -> Batch:
    """Whole rows [B, T]: prompt (padded on the left), answer, and `end` behind an answer that was cut short.

    width: T; what is behind all that is no token of any document.

    `mask` = 1 where the target was sampled; `last` = 1 at the end token, where the reward model scores;
    `rewarded` = 1 where the target is the last sampled token; `cut` = 1 there if the answer was cut short;
    `sampler_logprobs`: of the sampled targets, under the distribution sampled from.
    """
    prompt_BP, segments_BP = (jax.sharding.reshard(x_BP, P(BATCH, None)) for x_BP in (prompt_BP, segments_BP))
    cut_B1 = 1 - jnp.sum((answers.tokens_BN == end) * answers.mask_BN, axis=1, keepdims=True)
    behind = width - prompt_BP.shape[1] - answers.tokens_BN.shape[1]
    ends_BE = jnp.repeat(jnp.full_like(prompt_BP[:, :1], end), behind, axis=1)
    cut_BE = jnp.concatenate([cut_B1, *[jnp.zeros_like(cut_B1)] * (behind - 1)], axis=1)
    tokens_BT = jnp.concatenate([prompt_BP, answers.tokens_BN, ends_BE], axis=1)
    real_BT = jnp.concatenate([segments_BP.astype(jnp.float32), answers.mask_BN, cut_BE], axis=1)
    positions_BT = jnp.maximum(jnp.cumsum(real_BT.astype(jnp.int32), axis=1) - 1, 0)
    before_BP, after_BE = jnp.zeros_like(segments_BP, jnp.float32), jnp.zeros_like(cut_BE)
    mask_BT, sampler_BT = (
        _ahead(jnp.concatenate([before_BP, x_BN, after_BE], axis=1))
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


_rows = jax.jit(rows, static_argnames=("end", "width"))


@dataclass(frozen=True, kw_only=True)
class Pay:
    """What an answer's tokens are paid; see `PPOConfig` for the fields."""

    kl_kind: Estimator = "k1"
    cut_penalty: float = 0.0
    gamma: float = 1.0
    lam: float = 0.95


def read_back(policy: Policy, rows: Rows, most: int, temperature: float = 1.0) -> tuple[np.ndarray, Any]:
    """log p of the sampled tokens and values before them (None without a head), float32 [B, T]."""
    return meshes.map_rows(partial(_policy, policy, temperature), rows, most)


def read_reference(model: Transformer, rows: Rows, most: int, temperature: float = 1.0) -> np.ndarray:
    """log p of the sampled tokens under another model, float32 [B, T]."""
    return meshes.map_rows(partial(_logprobs, model, temperature), rows, most)


@jax.jit
def _policy(policy: Policy, temperature: float, batch: Batch) -> tuple[jax.Array, jax.Array | None]:
    return policy(batch, temperature)


@jax.jit
def _logprobs(model: Transformer, temperature: float, batch: Batch) -> jax.Array:
    return logprobs(model, batch, temperature)


def experience(
    policy: Policy, reference: Transformer, rows: Rows, kl_weight: float, pay: Pay, most: int
) -> tuple[Rows, dict[str, float]]:
    """What PPO learns from: old log-probabilities and values, advantages and returns of every sampled token;
    and the means of the round. So many rows at a time.

    The reward is −kl_weight · KL's estimate at every token, plus the answer's `reward` at its last sampled
    token, less `cut_penalty` where the answer was cut short.
    """
    logprob_BT, value_BT = read_back(policy, rows, most)
    reference_BT = read_reference(reference, rows, most)
    rows = rows | {"old_logprobs": logprob_BT, "old_values": value_BT, "reference": reference_BT}
    batch = meshes.put_batch(meshes.own_rows(rows), jax.sharding.get_mesh())
    learned = meshes.fetch(_advantages(batch, jnp.float32(kl_weight), pay))
    return rows | learned, measure(rows, logprob_BT, reference_BT)


@partial(jax.jit, static_argnames="pay")
def _advantages(batch: Batch, kl_weight: jax.Array, pay: Pay) -> Batch:
    mask_BT = batch["mask"]
    apart_BT = kl(batch["old_logprobs"], batch["reference"], pay.kl_kind) * mask_BT
    score_BT = batch["reward"] * batch["rewarded"] - pay.cut_penalty * batch["cut"]
    reward_BT = score_BT - kl_weight * apart_BT
    in_time = (
        jax.sharding.reshard(x_BT, P(BATCH, None)) for x_BT in (reward_BT, batch["old_values"], mask_BT)
    )
    advantage_BT, return_BT = (
        jax.sharding.reshard(x_BT, ROWS) for x_BT in gae(*in_time, gamma=pay.gamma, lam=pay.lam)
    )
    return {"advantages": whiten(advantage_BT, mask_BT), "returns": return_BT}


def measure(rows: Rows, logprob_BT: np.ndarray, reference_BT: np.ndarray) -> dict[str, float]:
    """The means over a round that every stage with rollouts logs.

    reward: what an answer is worth: scores in SD of the fine-tuned model's answers (PPO), or grades (GRPO).
    kl: KL(policy ‖ fine-tuned), nats a sequence, estimated by the sampled log-ratio. entropy: −log p of a
    sampled token, nats, an estimate of it. length: tokens of an answer. cut: share of the answers cut short.
    """
    mask_BT, count = rows["mask"], rows["mask"].sum(dtype=np.float64)

    def each(x_BT: np.ndarray) -> float:
        return float(x_BT.sum(dtype=np.float64) / len(mask_BT))

    return {
        "reward": each(rows["reward"] * rows["rewarded"]),
        "kl": each((logprob_BT - reference_BT) * mask_BT),
        "entropy": float(-(logprob_BT * mask_BT).sum(dtype=np.float64) / count),
        "length": each(mask_BT),
        "cut": each(rows["cut"]),
    }
