"""Distillation from a larger model on what the student itself says (GKD, Agarwal et al. 2024).

A student that only copies answers of others never learns from its own mistakes; here it answers, and the
teacher's whole distribution at every one of its tokens is what it is held against.

B batch, T time, V vocab
"""

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import weights
from jaxtrain.align import rollout
from jaxtrain.align.heads import Policy, policy_learner, policy_of
from jaxtrain.align.losses import gkd_of_tokens
from jaxtrain.align.monitor import Monitor, MonitorConfig, distinct
from jaxtrain.align.preference import pack
from jaxtrain.align.rollout import Rows, Sampler, drawn, fits
from jaxtrain.align.rounds import Line, Rounds
from jaxtrain.document import Conversation, read_records, source_files
from jaxtrain.feed.shuffle import key
from jaxtrain.fields import Adjustable
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Positive, Share
from jaxtrain.runtime.progress import say
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.context import Run, training
from jaxtrain.train.loop import train
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.weights.folder import write_about
from jaxtrain.weights.learners import base_of, learner_of, runs_as, without_dropout


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Bring a model nearer to a teacher of the same tokenizer (generalised knowledge distillation)."""

    VERSION: ClassVar[int] = 1

    model: str
    """Folder of the student's finetune artifact."""
    teacher: str
    """Folder of the teacher's artifact."""
    conversations: str
    """Folder of the clean artifact whose questions are asked, and whose answers are read where the student
    does not answer itself."""
    out: str
    """Folder to write."""
    beta: Share = 0.5
    """Between KL(teacher ‖ student), 0, which covers all that the teacher may say, and KL(student ‖ teacher),
    1, which keeps to what it says most."""
    on_policy: Share = 1.0
    """Share of the rounds in which the student answers; in others the conversations' answers are taken."""
    temperature: Positive = 1.0
    """Temperature of sampling, and of both distributions in the loss."""
    lora: LoRAConfig = field(default_factory=lambda: LoRAConfig(rank=0))
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            optimizer=OptimizerConfig(lr=1e-4, warmup_steps=5, schedule="linear", weight_decay=0.0),
            steps=100,
            evaluate_every=0,
            checkpoint_every=25,
        )
    )
    """Every step is a round of answers."""
    monitor: Adjustable[MonitorConfig] = field(default_factory=MonitorConfig)
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


@dataclass(frozen=True)
class Exchange:
    """A question as the student is asked it, and the answer that the conversation has."""

    ids: list[int]
    answer: list[int]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Taught:
    """A student beside its teacher, which does not learn."""

    policy: Policy
    teacher: Transformer


def train_distilled(config: DistillConfig, folder: Path) -> dict[str, Any]:
    tokenizer = weights.open(config.model).tokenizer
    theirs = weights.open(config.teacher).tokenizer
    if theirs.vocabulary_fingerprint != tokenizer.vocabulary_fingerprint:
        raise UserError(f"{config.teacher} has another tokenizer than {config.model}; take one of the same")
    model_config = runs_as(config.train, weights.open(config.model).config)
    fits(model_config, config.longest_prompt, config.max_new)
    exchanges = read(config, tokenizer)
    held = min(config.measured, len(exchanges) // 2)
    measured, trained = exchanges[:held], exchanges[held:]
    say(f"align: {len(trained)} questions to learn from, {held} to measure on")
    sampler = Sampler(
        tokenizer=tokenizer,
        longest_prompt=config.longest_prompt,
        max_new=config.max_new,
        temperature=config.temperature,
    )
    with training(config.train, folder, partial(write_about, model_config, tokenizer)) as run:
        meshes.check_rows(
            config.rollouts,
            sampler.width(),
            config.train.microbatches,
            model_config.stage_microbatches,
            "rollouts",
        )
        return {"measured": held, **_train(config, model_config, sampler, run, trained, measured)}


def _train(
    config: DistillConfig,
    model_config: ModelConfig,
    sampler: Sampler,
    run: Run,
    asked: list[Exchange],
    measured: list[Exchange],
) -> dict[str, Any]:
    student = learner_of(
        config,
        run.folder,
        partial(Policy, model_config, value="none"),
        lambda dtype: policy_of(weights.open(config.model).load(model_config, dtype)),
    )
    teacher_config = runs_as(config.train, weights.open(config.teacher).config)
    teacher = weights.open(config.teacher).load(teacher_config, teacher_config.dtype)
    learner = dataclasses.replace(
        policy_learner(student),
        frozen=(student.frozen, teacher),
        assemble=lambda learned, frozen, key: Taught(student.assemble(learned, frozen[0], key), frozen[1]),
    )
    start = base_of(student) or weights.open(config.model).load(model_config, model_config.dtype)
    before = measure(config, sampler, start, teacher, measured)

    def draw(taught: Taught, number: int, _: list[Line]) -> tuple[Rows, Line]:
        numbers = drawn(len(asked), config.train.seed, number * config.rollouts, config.rollouts)
        student = taught.policy.transformer
        rows, is_own = gather(config, sampler, student, [asked[n] for n in numbers], number)
        ids = sampler.ids(rows)
        values = divergence(config, student, teacher, rows) | {"on_policy": float(is_own)}
        return rows, values | {"distinct_1": distinct(ids, 1), "distinct_2": distinct(ids, 2)}

    rounds = Rounds(run, learner, draw, Monitor(config.monitor))
    trained = train(
        run,
        learner,
        partial(distill_loss, config.beta, config.temperature),
        rounds.feed(),
        lambda taught, step: measure(config, sampler, taught.policy.transformer, teacher, measured),
        watch="divergence",
        flops_per_token=model_config.flops_per_token(sampler.width()),
    )
    rounds.close()
    return {
        "steps": trained.step,
        **{f"{name}_before": value for name, value in before.items()},
        **{f"{name}_after": value for name, value in trained.heldout.items()},
    }


def read(config: DistillConfig, tokenizer: Tokenizer) -> list[Exchange]:
    """The first question and answer of each conversation, in the order of a hash, each question once.

    An answer that calls a tool is left out: the student is not told of tools.
    """
    found: dict[int, Exchange] = {}
    calls = 0
    for file in source_files(Path(config.conversations) / "conversations"):
        for record in read_records(file, Conversation):
            turns = [message for message in record.messages if message["role"] != "system"]
            if turns[1].get("tool_calls"):
                calls += 1
                continue
            ids = render(turns[:1], tokenizer, generation_prompt=True)[0]
            if len(ids) <= config.longest_prompt:
                answer = [*tokenizer.encode(turns[1]["content"]), tokenizer.end][: config.max_new]
                found.setdefault(key("question", turns[0]["content"]), Exchange(ids, answer))
    if calls:
        say(f"align: {config.conversations}: left out {calls} conversations that begin with a tool call")
    if len(found) < 2:
        raise UserError(
            f"{config.conversations} has {len(found)} questions of at most {config.longest_prompt} tokens; "
            "raise longest_prompt"
        )
    return [found[hashed] for hashed in sorted(found)]


def gather(
    config: DistillConfig, sampler: Sampler, student: Transformer, asked: list[Exchange], update: int
) -> tuple[Rows, bool]:
    """Rows of questions and answers, and whether the student gave them."""
    is_own = key(config.train.seed, "who answers", update) < config.on_policy * 2**64
    if is_own:
        seed = key(config.train.seed, "answers", update)
        rows = sampler.answer(student, [one.ids for one in asked], seed)
    else:
        rows = pack([(one.ids, one.answer) for one in asked], sampler.width(), sampler.tokenizer.pad)
        rows["mask"] = rows["loss_weights"]
    return {name: rows[name] for name in ("tokens", "targets", "segment_ids", "positions", "mask")}, is_own


def distill_loss(
    beta: float, temperature: float, taught: Taught, batch: rollout.Batch
) -> tuple[jax.Array, jax.Array]:
    """Summed divergence of student and teacher over the answers' tokens, and their number."""
    apart_B = _apart(taught.policy.transformer, taught.teacher, batch, beta, temperature)
    return jnp.sum(apart_B), jnp.sum(batch["mask"])


def _apart(
    student: Transformer, teacher: Transformer, batch: rollout.Batch, beta: float, temperature: float
) -> jax.Array:
    """Summed over the tokens of each row, [B]; both models' logits [B, T, V] are in memory at once."""
    logits_BTV, teacher_BTV = (
        model(batch["tokens"], batch["segment_ids"], batch["positions"]) for model in (student, teacher)
    )
    taught_BTV = jax.lax.stop_gradient(teacher_BTV)
    apart_BT = gkd_of_tokens(logits_BTV, taught_BTV, beta=beta, temperature=temperature)
    return jnp.sum(apart_BT, axis=1, where=batch["mask"] > 0)


def divergence(
    config: DistillConfig, student: Transformer, teacher: Transformer, rows: Rows
) -> dict[str, float]:
    """Means over the tokens of the answers, so many rows at a time."""
    most = max(1, config.rollouts // config.train.microbatches)
    ours_BT, theirs_BT = (
        rollout.read_reference(model, rows, most, config.temperature) for model in (student, teacher)
    )
    run = partial(_rows_apart, config.beta, config.temperature, student, teacher)
    apart_B = meshes.map_rows(run, rows, most)
    mask_BT, count = rows["mask"], float(rows["mask"].sum())
    apart = float(((ours_BT - theirs_BT) * mask_BT).sum(dtype=np.float64))
    return {
        "divergence": float(apart_B.sum(dtype=np.float64)) / count,
        "kl": apart / len(mask_BT),
        "reward": -apart / count,
        "entropy": -float((ours_BT * mask_BT).sum(dtype=np.float64)) / count,
        "length": count / len(mask_BT),
    }


@partial(jax.jit, static_argnums=(0, 1))
def _rows_apart(
    beta: float, temperature: float, student: Transformer, teacher: Transformer, batch: rollout.Batch
) -> jax.Array:
    return _apart(student, teacher, batch, beta, temperature)


def measure(
    config: DistillConfig, sampler: Sampler, student: Transformer, teacher: Transformer, asked: list[Exchange]
) -> dict[str, float]:
    """The divergence on the student's own answers to questions that training does not see."""
    rows = sampler.answer(student, [one.ids for one in asked], key(config.train.seed, "measure"))
    found = divergence(config, student, teacher, rows)
    return {name: found[name] for name in ("divergence", "kl", "length")}
