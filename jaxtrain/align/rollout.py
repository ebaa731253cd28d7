"""Rollouts: answers sampled from the policy, scored, with what PPO needs to know of every token.

B batch, P prompt, N new tokens, T = P + N + 1, D model
"""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain.align.heads import Batch, Policy, policy_of
from jaxtrain.decode.dialogues import Dialogue, Drawn, Played, play
from jaxtrain.decode.generate import Completions, generate, padded, row_keys
from jaxtrain.feed.shuffle import Epochs, key
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import Tokenizer

Rows = dict[str, np.ndarray]
Prompt = TypeVar("Prompt")
ROWS = P(meshes.BATCH, "context")
KERNEL_WIDTH = 128
"""Tokens that the rows of attention kernels on accelerators are a multiple of."""
AT_ONCE = 1024
"""Answers that are drawn side by side at most, where no config says how many."""
TILE = 8
"""Rows of a device in exact mode are a multiple of it, so that matmuls treat all of them alike."""


def row_length(longest_prompt: int, max_new: int) -> int:
    """T: prompt, answer and end, rounded up to what the kernels and the mesh that is set want."""
    multiple = 1 if meshes.platform() == "cpu" else KERNEL_WIDTH
    multiple = math.lcm(multiple, jax.sharding.get_abstract_mesh().shape["context"])
    return -(-(longest_prompt + max_new + 1) // multiple) * multiple


@dataclass
class Sampler:
    """How answers are drawn: every stage that learns from rollouts has one.

    In exact mode the program that drew answers reads them too: one compiled program of one shape, in which a
    row's numbers depend on that row alone. Its log-probabilities are then equal to the last bit.
    """

    tokenizer: Tokenizer
    longest_prompt: int
    """Tokens; every row has room for as many."""
    max_new: int
    """Tokens of an answer at most."""
    temperature: float = 1.0
    at_once: int = AT_ONCE
    """Answers drawn side by side, whose keys and values are in memory together; what they say stays."""
    room: int = 0
    """Tokens of a dialogue at most; 0: of a prompt and one answer."""
    exact: int = 0
    """Exact mode: answers that a step learns from, and at most so many are drawn side by side; 0: not."""
    seconds: float = 0.0
    """That `read` took so far."""

    @property
    def longest(self) -> int:
        return self.room or self.longest_prompt + self.max_new

    def check(self, model: ModelConfig) -> Self:
        """Itself; UserError where prompt and answer are longer than what the model was trained on."""
        if self.room and self.room < (least := self.longest_prompt + self.max_new):
            raise UserError(
                f"longest_dialogue {self.room} is less than longest_prompt {self.longest_prompt} and max_new "
                f"{self.max_new} together: give at least {least}, or 0"
            )
        if (tokens := self.longest + 1) > model.max_length:
            raise UserError(
                f"longest_prompt {self.longest_prompt} and max_new {self.max_new} make rows of {tokens} "
                f"tokens, but the model was trained on {model.max_length}: lower one of them"
            )
        return self

    def width(self) -> int:
        return row_length(self.longest, 0)

    def answer(self, model: Transformer, prompts: list[list[int]], seed: int) -> Rows:
        """Rows of prompts and an answer to each (`rows`), whole on every process."""
        prompts = [ids[-self.longest_prompt :] for ids in prompts]
        drawn = self._draw(model, seed, self.temperature, prompts, list(range(len(prompts))), 0)
        dialogues = [Dialogue(list(ids), len(ids)) for ids in prompts]
        for one, (ids, logprobs) in zip(dialogues, drawn, strict=True):
            one.add(ids, 1, logprobs)
        return self.rows(dialogues)

    def play(
        self,
        model: Transformer,
        items: Sequence[Played],
        openings: Sequence[Sequence[int]],
        seed: int,
        greedy: bool = False,
    ) -> list[Dialogue]:
        """Every item played to its end."""
        draw = partial(self._draw, model, seed, 0.0 if greedy else self.temperature)
        limits = {"tokens": self.max_new, "room": self.longest}
        return play(items, openings, self.tokenizer, draw, **limits)

    def read(self, model: Transformer, rows: Rows) -> np.ndarray:
        """log p of the sampled tokens of `rows` by the program that draws them in exact mode, [B, T]."""
        begun = time.monotonic()
        logprob_BT = np.zeros(rows["mask"].shape, np.float32)
        turns: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for row, edge_T in enumerate(np.diff(rows["mask"] > 0, axis=1, prepend=False, append=False)):
            for turn, (first, stop) in enumerate(np.flatnonzero(edge_T).reshape(-1, 2).tolist()):
                turns[turn].append((row, first, stop))
        begin_B = np.argmax(rows["segment_ids"] > 0, axis=1)
        for turn, answers in turns.items():
            prompts = [rows["tokens"][row, begin_B[row] : first + 1].tolist() for row, first, _ in answers]
            said = [rows["targets"][row, first:stop].tolist() for row, first, stop in answers]
            drawn = self._draw(model, 0, self.temperature, prompts, [0] * len(prompts), turn, said)
            for (row, first, stop), (_, logprobs) in zip(answers, drawn, strict=True):
                logprob_BT[row, first:stop] = logprobs
        self.seconds += time.monotonic() - begun
        return logprob_BT

    def _draw(
        self,
        model: Transformer,
        seed: int,
        temperature: float,
        prompts: list[list[int]],
        numbers: list[int],
        turn: int,
        said: Sequence[list[int]] = (),
    ) -> list[Drawn]:
        """An answer to each prompt; it depends on the prompt, on its number, and on the seed alone.

        said: the answers, which are not drawn then but read.
        """
        size, tile = self.at_once, TILE * meshes.batch_rows()
        if self.exact:
            size = -(-min(size, self.exact) // tile) * tile
            more = -len(prompts) % size
        else:
            # dialogues end one by one: powers of two are few shapes, and so few compilations
            more = (1 << (len(prompts) - 1).bit_length()) - len(prompts) if turn else 0
        rows = [*range(len(prompts)), *[0] * more]
        length = self.longest - self.max_new if turn else self.longest_prompt
        tokens, segments = padded([prompts[row] for row in rows], length, self.tokenizer.pad)
        numbered = np.array([numbers[row] for row in rows], np.int32)[:, None].repeat(length, axis=1)
        asked = {"tokens": tokens, "segments": segments, "numbers": numbered}
        if self.exact:
            forced = [said[row] if said else [] for row in rows]
            asked["forced"], _ = padded(forced, row_length(0, self.max_new), -1)
        of_turn = jax.random.key(key(seed, "turn", turn) % 2**31 if turn else seed % 2**31)
        answers = meshes.map_rows(partial(self._generate, model, of_turn, temperature), asked, size)
        counts = answers.mask_BN.sum(axis=1).astype(int).tolist()
        lists = zip(answers.tokens_BN.tolist(), answers.logprobs_BN.tolist(), counts, strict=True)
        return [(ids[:count], logprobs[:count]) for ids, logprobs, count in lists][: len(prompts)]

    def _generate(self, model: Transformer, seed: jax.Array, temperature: float, batch: Batch) -> Completions:
        keys = row_keys(seed, jnp.max(batch["numbers"], axis=1))  # a row has its number in every column
        ends = {"max_new": self.max_new, "stop": self.tokenizer.end, "pad": self.tokenizer.pad}
        given = batch["tokens"], batch["segments"], keys, batch.get("forced")
        return generate(model, *given, temperature=temperature, **ends)

    def rows(self, dialogues: Sequence[Dialogue]) -> Rows:
        return rows(dialogues, self.longest_prompt, self.width(), self.tokenizer.end)

    def ids(self, batch: dict[str, Any]) -> list[list[int]]:
        """The sampled tokens of each row, without the end token."""
        targets, mask = np.asarray(batch["targets"]), np.asarray(batch["mask"]) > 0
        end = self.tokenizer.end
        return [[i for i in row[kept].tolist() if i != end] for row, kept in zip(targets, mask, strict=True)]


def with_reward(rows: Rows, reward_B: np.ndarray) -> Rows:
    """The rows with what each answer is worth."""
    return rows | {"reward": np.float32(reward_B)[:, None].repeat(rows["tokens"].shape[1], axis=1)}


def drawn(prompts: Sequence[Prompt], seed: int, number: int, count: int) -> list[Prompt]:
    """The `count` prompts that are asked in a round: each of all once before any is asked again."""
    order = Epochs(len(prompts), seed, "prompts")[number * count + np.arange(count)]
    return [prompts[n] for n in order.tolist()]


def rows(dialogues: Sequence[Dialogue], longest_prompt: int, width: int, end: int) -> Rows:
    """Dialogues as rows [B, T], first answers at one column, `end` behind a last one that was cut short.

    longest_prompt: tokens of an opening at most, before that column. width: T; what is behind the dialogue is
    no token of any document.

    `mask` = 1 where the target was sampled; `last` = 1 at the end token, where the reward model scores;
    `rewarded` = 1 where the target is the last sampled token; `cut` = 1 there if that answer was cut short;
    `sampler_logprobs`: of the sampled targets, under the distribution sampled from.
    """
    shape = len(dialogues), width
    tokens_BT, real_BT = np.full(shape, end, np.int32), np.zeros(shape, np.int32)
    sampled_BT, sampler_BT, last_BT, cut_BT = (np.zeros(shape, np.float32) for _ in range(4))
    for row, one in enumerate(dialogues):
        # a dialogue of many turns begins as early as it must
        begin = min(longest_prompt - one.opening, width - 1 - len(one.ids))
        first, stop = begin + one.opening, begin + len(one.ids)
        tokens_BT[row, begin:stop] = one.ids
        sampled_BT[row, first:stop] = one.mask
        sampler_BT[row, first:stop] = one.logprobs
        is_cut = one.ids[-1] != end
        real_BT[row, begin : stop + is_cut] = 1
        last_BT[row, stop + is_cut - 1] = 1
        cut_BT[row, stop - 1] = is_cut
    mask_BT = _ahead(sampled_BT)
    return {
        "tokens": tokens_BT,
        "targets": _ahead(tokens_BT),
        "segment_ids": real_BT,
        "positions": np.maximum(np.cumsum(real_BT, axis=1, dtype=np.int32) - 1, 0),
        "mask": mask_BT,
        "last": last_BT,
        "rewarded": mask_BT * (np.cumsum(mask_BT[:, ::-1], axis=1)[:, ::-1] == 1),
        "cut": _ahead(cut_BT),
        "sampler_logprobs": _ahead(sampler_BT),
    }


def _ahead(x_BT: np.ndarray) -> np.ndarray:
    """What stands one position later, 0 behind the last."""
    return np.concatenate([x_BT[:, 1:], np.zeros_like(x_BT[:, :1])], axis=1)


def read_back(policy: Policy, rows: Rows, most: int, temperature: float = 1.0) -> tuple[np.ndarray, Any]:
    """log p of the sampled tokens and values before them (None without a head), float32 [B, T].

    Where the rows have `logprobs`, which `Sampler.read` found, it is these.
    """
    return meshes.map_rows(lambda batch: _policy(policy, batch, temperature), rows, most)


_policy = jax.jit(Policy.__call__)


def read_reference(model: Transformer, rows: Rows, most: int, temperature: float = 1.0) -> np.ndarray:
    """log p of the sampled tokens under another model, float32 [B, T]."""
    rows = {name: values for name, values in rows.items() if name != "logprobs"}
    return read_back(policy_of(model), rows, most, temperature)[0]


def measure(rows: Rows, logprob_BT: np.ndarray, reference_BT: np.ndarray) -> dict[str, float]:
    """The means over a round that every stage with rollouts logs.

    reward: what an answer is worth: scores in SD of the fine-tuned model's answers (PPO), or grades (GRPO).
    kl: KL(policy ‖ fine-tuned), nats a sequence, estimated by the sampled log-ratio. entropy: −log p of a
    sampled token, nats, an estimate of it. length: tokens of an answer. cut: share of the answers cut short.
    mismatch: KL(sampler ‖ trainer), nats a token, by the unbiased k3; mismatch_most: the largest difference
    of their log-probabilities; mismatch_none: the share of tokens that have none.
    """
    mask_BT, count = rows["mask"], rows["mask"].sum(dtype=np.float64)
    apart_BT = (logprob_BT.astype(np.float64) - rows["sampler_logprobs"]) * mask_BT

    def each(x_BT: np.ndarray) -> float:
        return float(x_BT.sum(dtype=np.float64) / len(mask_BT))

    return {
        "reward": each(rows["reward"] * rows["rewarded"]),
        "kl": each((logprob_BT - reference_BT) * mask_BT),
        "entropy": float(-(logprob_BT * mask_BT).sum(dtype=np.float64) / count),
        "length": each(mask_BT),
        "cut": each(rows["cut"]),
        "mismatch": float((np.expm1(apart_BT) - apart_BT).sum() / count),
        "mismatch_most": float(np.abs(apart_BT).max()),
        "mismatch_none": float(((apart_BT == 0) * mask_BT).sum() / count),
    }
