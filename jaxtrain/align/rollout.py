"""Rollouts: answers sampled from the policy, scored, with what PPO needs to know of every token.

B batch, P prompt, N new tokens, T = P + N + 1, D model
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain.align.heads import Policy, policy_of
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
Prompt = TypeVar("Prompt")
ROWS = P(BATCH, "context")
KERNEL_WIDTH = 128
"""Tokens that the rows of attention kernels on accelerators are a multiple of."""
AT_ONCE = 1024
"""Answers that are drawn side by side at most, where no config says how many."""


def row_length(longest_prompt: int, max_new: int) -> int:
    """T: prompt, answer and end, rounded up to what the kernels and the mesh that is set want."""
    multiple = 1 if meshes.platform() == "cpu" else KERNEL_WIDTH
    multiple = math.lcm(multiple, jax.sharding.get_abstract_mesh().shape["context"])
    return -(-(longest_prompt + max_new + 1) // multiple) * multiple


@dataclass(frozen=True)
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

    def check(self, model: ModelConfig) -> None:
        """UserError where prompt and answer are longer than what the model was trained on."""
        if (tokens := self.longest_prompt + self.max_new + 1) > model.max_length:
            raise UserError(
                f"longest_prompt {self.longest_prompt} and max_new {self.max_new} make rows of {tokens} "
                f"tokens, but the model was trained on {model.max_length}: lower one of them"
            )

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


def drawn(prompts: Sequence[Prompt], seed: int, number: int, count: int) -> list[Prompt]:
    """The `count` prompts that are asked in a round: each of all once before any is asked again."""
    order = Epochs(len(prompts), seed, "prompts")[number * count + np.arange(count)]
    return [prompts[n] for n in order.tolist()]


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


def read_back(policy: Policy, rows: Rows, most: int, temperature: float = 1.0) -> tuple[np.ndarray, Any]:
    """log p of the sampled tokens and values before them (None without a head), float32 [B, T]."""
    return meshes.map_rows(partial(_policy, policy, temperature), rows, most)


def read_reference(model: Transformer, rows: Rows, most: int, temperature: float = 1.0) -> np.ndarray:
    """log p of the sampled tokens under another model, float32 [B, T]."""
    return read_back(policy_of(model), rows, most, temperature)[0]


@jax.jit
def _policy(policy: Policy, temperature: float, batch: Batch) -> tuple[jax.Array, jax.Array | None]:
    return policy(batch, temperature)


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
