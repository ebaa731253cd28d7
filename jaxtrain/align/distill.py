"""Distillation from a larger model on what the student itself says (GKD, Agarwal et al. 2024).

A student that only copies answers of others never learns from its own mistakes; here it answers, and the
teacher's whole distribution at every one of its tokens is what it is held against.

B batch, T time, D model, V vocab
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain import weights
from jaxtrain.align.heads import Policy, hidden, policy_learner
from jaxtrain.align.losses import gkd_of_tokens
from jaxtrain.align.monitor import Monitor, MonitorConfig, variety
from jaxtrain.align.preference import pack
from jaxtrain.align.rollout import ROWS, Batch, Rows, Sampler, drawn
from jaxtrain.align.rounds import Line, Rounds
from jaxtrain.config import Stage
from jaxtrain.feed import prompts
from jaxtrain.feed.shuffle import key
from jaxtrain.fields import Adjustable
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Positive, Share
from jaxtrain.runtime.progress import say
from jaxtrain.tokenize.publish import same_ids
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import losses
from jaxtrain.train.config import OptimizerConfig, TrainConfig
from jaxtrain.train.context import training
from jaxtrain.train.learner import Learner
from jaxtrain.weights.folder import write_about
from jaxtrain.weights.learners import runs_as, without_dropout


@dataclass(frozen=True, kw_only=True)
class DistillConfig(Stage):
    """Bring a model nearer to a teacher of the same tokenizer (generalised knowledge distillation)."""

    model: str
    """Folder of the student's finetune artifact."""
    teacher: str
    """Folder of the teacher's artifact."""
    conversations: str
    """Folder of the clean artifact whose questions are asked, and whose answers are read where the student
    does not answer itself."""
    beta: Share = 0.5
    """Between KL(teacher ‖ student), 0, which covers all that the teacher may say, and KL(student ‖ teacher),
    1, which keeps to what it says most."""
    on_policy: Share = 1.0
    """Share of the rounds in which the student answers; in others the conversations' answers are taken."""
    temperature: Positive = 1.0
    """Temperature of sampling, and of both distributions in the loss."""
    lora: LoRAConfig = LoRAConfig(rank=0)
    train: TrainConfig = TrainConfig(
        optimizer=OptimizerConfig(lr=1e-4, warmup_steps=5, schedule="linear", weight_decay=0.0),
        steps=100,
        evaluate_every=0,
        checkpoint_every=25,
    )
    """Every step is a round of answers."""
    monitor: Adjustable[MonitorConfig] = MonitorConfig()
    rollouts: Count = 64
    """Answers a round."""
    longest_prompt: Count = 48
    """Tokens; longer questions are not asked."""
    max_new: Count = 32
    """Tokens of an answer at most; longer ones of the conversations are cut."""
    measured: Count = 128
    """Questions that training does not see, on which the divergence is measured before and after."""

    def check(self) -> None:
        without_dropout(self.lora)
        self.train.need_steps()


Exchange = tuple[list[int], list[int]]
"""A question as the student is asked it, and the answer that the conversation has."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Taught:
    """A student beside its teacher, which does not learn."""

    policy: Policy
    teacher: Transformer


def beside(student: Learner, teacher: Transformer) -> Learner:
    """The student's learner, whose loss sees the teacher too."""
    return dataclasses.replace(
        student,
        frozen=(student.frozen, teacher),
        assemble=lambda learned, both, key: Taught(student.assemble(learned, both[0], key), both[1]),
    )


def train_distilled(config: DistillConfig, folder: Path) -> dict[str, Any]:
    tokenizer = weights.open(config.model).tokenizer
    if not same_ids(tokenizer, weights.open(config.teacher).tokenizer):
        raise UserError(f"{config.teacher} has another tokenizer than {config.model}; take one of the same")
    ids, known = (weights.open(folder).config.vocab_size for folder in (config.model, config.teacher))
    if ids != known:
        raise UserError(
            f"{config.teacher} has an embedding of {known} ids, {config.model} one of {ids}: take two alike"
        )
    model = runs_as(config.train, weights.open(config.model).config)
    sampler = Sampler(tokenizer, config.longest_prompt, config.max_new, config.temperature).check(model)
    exchanges = read(config, tokenizer)
    held = min(config.measured, len(exchanges) // 2)
    measured, asked = exchanges[:held], exchanges[held:]
    say(f"align: {len(asked)} questions to learn from, {held} to measure on")
    with training(config.train, folder, partial(write_about, model, tokenizer)) as run:
        parts = config.train.microbatches
        meshes.check_rows(config.rollouts, sampler.width(), parts, model.stage_microbatches, "rollouts")
        student, start = policy_learner(config, run.folder, model)
        teacher_config = runs_as(config.train, weights.open(config.teacher).config)
        teacher = weights.open(config.teacher).load(teacher_config, teacher_config.dtype)
        learner = beside(student, teacher)
        before = measure(config, sampler, start, teacher, measured)

        def draw(taught: Taught, number: int, _: list[Line]) -> tuple[Rows, Line]:
            exchanges = drawn(asked, config.train.seed, number, config.rollouts)
            student = taught.policy.transformer
            rows, is_own = gather(config, sampler, student, exchanges, number)
            values = divergence(config, student, teacher, rows) | {"on_policy": float(is_own)}
            return rows, values | variety(sampler.ids(rows))

        rounds = Rounds(run, learner, draw, Monitor(config.monitor))
        trained = rounds.train(
            partial(distill_loss, config.beta, config.temperature),
            lambda taught, step: measure(config, sampler, taught.policy.transformer, teacher, measured),
            "divergence",
            model.flops_per_token(sampler.width()),
        )
        return {
            "measured": held,
            "steps": trained.step,
            **{f"{name}_before": value for name, value in before.items()},
            **{f"{name}_after": value for name, value in trained.heldout.items()},
        }


def read(config: DistillConfig, tokenizer: Tokenizer) -> list[Exchange]:
    """The first question and answer of each conversation, in the order of a hash, each question once.

    An answer that calls a tool is left out: the student is not told of tools.
    """
    asked = prompts.load(config.conversations, tokenizer, config.longest_prompt)
    found = [
        (prompt.ids, [*tokenizer.encode(prompt.answer["content"]), tokenizer.end][: config.max_new])
        for prompt in asked
        if prompt.answer is not None and not prompt.answer.get("tool_calls")
    ]
    if lacking := len(asked) - len(found):
        say(f"align: {config.conversations}: left out {lacking} questions not answered in words")
    if len(found) < 2:
        raise UserError(
            f"{config.conversations} has {len(found)} questions of at most {config.longest_prompt} tokens; "
            "raise longest_prompt"
        )
    return found


def gather(
    config: DistillConfig, sampler: Sampler, student: Transformer, asked: list[Exchange], update: int
) -> tuple[Rows, bool]:
    """Rows of questions and answers, and whether the student gave them."""
    is_own = key(config.train.seed, "who answers", update) < config.on_policy * 2**64
    if is_own:
        rows = sampler.answer(student, [ids for ids, _ in asked], key(config.train.seed, "answers", update))
    else:
        rows = pack(asked, sampler.width(), sampler.tokenizer.pad)
        rows["mask"] = rows["loss_weights"]
    return {name: rows[name] for name in ("tokens", "targets", "segment_ids", "positions", "mask")}, is_own


def distill_loss(
    beta: float, temperature: float, taught: Taught, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """Summed divergence of student and teacher over the answers' tokens, and their number."""
    student, teacher = taught.policy.transformer, taught.teacher
    states = hidden(student, batch), hidden(teacher, batch)
    apart_BT = _apart(student, teacher, *states, beta, temperature)
    return jnp.sum(apart_BT, where=batch["mask"] > 0), jnp.sum(batch["mask"])


def _apart(
    student: Transformer,
    teacher: Transformer,
    ours_BTD: jax.Array,
    theirs_BTD: jax.Array,
    beta: float,
    temperature: float,
) -> jax.Array:
    """The divergence at each token, [B, T], of what the last blocks gave.

    A row of each device after the other, made again in the backward pass: the logits of all rows never stand
    at once.
    """

    @jax.checkpoint
    def row(states: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits_BTV, teacher_BTV = student.logits(states[0]), jax.lax.stop_gradient(teacher.logits(states[1]))
        return gkd_of_tokens(logits_BTV, teacher_BTV, beta=beta, temperature=temperature)

    B, T, _ = ours_BTD.shape
    devices = meshes.batch_rows()

    def cut(x_BTD: jax.Array) -> jax.Array:
        shape = (devices, B // devices, *x_BTD.shape[1:])
        return jnp.moveaxis(
            jnp.reshape(x_BTD, shape, out_sharding=P(meshes.BATCH, None, "context", None)), 1, 0
        )

    apart = jnp.moveaxis(jax.lax.map(row, (cut(ours_BTD), cut(theirs_BTD))), 0, 1)
    return jnp.reshape(apart, (B, T), out_sharding=ROWS)


@partial(jax.jit, static_argnums=(0, 1))
def _read(
    beta: float, temperature: float, student: Transformer, teacher: Transformer, batch: Batch
) -> tuple[jax.Array, ...]:
    """The divergence of student and teacher at each token, and log p(target) of both, [B, T]."""
    states = hidden(student, batch), hidden(teacher, batch)
    both = zip((student, teacher), states, strict=True)
    found = (losses.logprobs(model, x_BTD, batch["targets"], temperature)[0] for model, x_BTD in both)
    return _apart(student, teacher, *states, beta, temperature), *found


def divergence(
    config: DistillConfig, student: Transformer, teacher: Transformer, rows: Rows
) -> dict[str, float]:
    """Means over the tokens of the answers, so many rows at a time."""
    read = partial(_read, config.beta, config.temperature, student, teacher)
    most = max(1, config.rollouts // config.train.microbatches)
    apart_BT, ours_BT, theirs_BT = meshes.map_rows(read, rows, most)
    arrays = apart_BT, ours_BT, ours_BT - theirs_BT
    apart, ours, kl = (float((x_BT * rows["mask"]).sum(dtype=np.float64)) for x_BT in arrays)
    answers, count = len(rows["mask"]), float(rows["mask"].sum())
    means = {"divergence": apart / count, "reward": -kl / count, "entropy": -ours / count}
    return means | {"kl": kl / answers, "length": count / answers}


def measure(
    config: DistillConfig, sampler: Sampler, student: Transformer, teacher: Transformer, asked: list[Exchange]
) -> dict[str, float]:
    """The divergence on the student's own answers to questions that training does not see."""
    rows = sampler.answer(student, [ids for ids, _ in asked], key(config.train.seed, "measure"))
    found = divergence(config, student, teacher, rows)
    return {name: found[name] for name in ("divergence", "kl", "length")}
