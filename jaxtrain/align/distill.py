"""Distillation from a larger model on what the student itself says (GKD, Agarwal et al. 2024).

A student that only copies answers of others never learns from its own mistakes; here it answers, and the
teacher's whole distribution at every one of its tokens is what it is held against.

B batch, T time, V vocab
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import weights
from jaxtrain.align import rollout
from jaxtrain.align.adapters import Learner
from jaxtrain.align.losses import gkd
from jaxtrain.align.monitor import Monitor, MonitorConfig, distinct
from jaxtrain.align.preference import pack
from jaxtrain.align.rollout import Policy, Sampler, drawn, policy_of
from jaxtrain.align.rounds import Line, Rounds, Rows, improve
from jaxtrain.document import Conversation, read_records, source_files
from jaxtrain.feed.shuffle import key
from jaxtrain.fields import Adjustable, Operational
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.progress import say
from jaxtrain.runtime.trackers import Tracker
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.weights import folder as store


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
    beta: float = 0.5
    """Between KL(teacher ‖ student), 0, which covers all that the teacher may say, and KL(student ‖ teacher),
    1, which keeps to what it says most."""
    on_policy: float = 1.0
    """Share of the rounds in which the student answers; in others the conversations' answers are taken."""
    temperature: float = 1.0
    """Of sampling, and of both distributions in the loss."""
    lora: LoRAConfig = field(default_factory=lambda: LoRAConfig(rank=0))
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=1e-4, warmup_steps=5, schedule="linear", weight_decay=0.0)
    )
    mesh: Operational[MeshConfig] = field(default_factory=MeshConfig)
    monitor: Adjustable[MonitorConfig] = field(default_factory=MonitorConfig)
    updates: Adjustable[int] = 100
    """Rounds of answering and learning."""
    rollouts: int = 64
    """Answers a round; one optimizer step."""
    longest_prompt: int = 48
    """Tokens; longer questions are not asked."""
    max_new: int = 32
    """Tokens of an answer at most; longer ones of the conversations are cut."""
    measured: int = 128
    """Questions that training does not see, on which the divergence is measured before and after."""
    checkpoint_every: Operational[int] = 25
    """Rounds between checkpoints."""
    trackers: Operational[tuple[Tracker, ...]] = ("tensorboard",)
    """Where the numbers are shown beside `metrics.jsonl`: tensorboard, wandb, mlflow, trackio."""
    seed: int = 0
    """Of questions and answers."""


@dataclass(frozen=True)
class Exchange:
    """A question as the student is asked it, and the answer that the conversation has."""

    ids: list[int]
    answer: list[int]


def train_distilled(config: DistillConfig, folder: Path) -> dict[str, Any]:
    with jax.set_mesh(meshes.make(config.mesh)):
        return _train(config, weights.open(config.model).tokenizer, folder)


def _train(config: DistillConfig, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    rounds = _rounds(config)
    if weights.open(config.teacher).tokenizer.fingerprint != tokenizer.fingerprint:
        raise UserError(f"{config.teacher} has another tokenizer than {config.model}; take one of the same")
    model_config = store.read_config(config.model)
    store.write_config(folder, model_config)
    tokenizer.save_in(folder)
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
    learner = Learner.of(
        config,
        folder,
        make=partial(Policy, model_config, value="none"),
        load=lambda weights: policy_of(store.load(config.model, weights=weights)),
    )
    teacher = store.load(config.teacher)
    optimizer = optimizers.make(config.optimizer, config.updates)
    before = measure(config, sampler, learner.base or store.load(config.model), teacher, measured)

    def play(policy: Policy, update: int, _: list[Line]) -> tuple[Rows, Line]:
        numbers = drawn(len(trained), config.seed, update * config.rollouts, config.rollouts)
        asked = [trained[n] for n in numbers]
        rows, is_own = gather(config, sampler, policy.transformer, asked, update)
        ids = sampler.ids(rows)
        means = _divergence(policy.transformer, teacher, put(rows), config.beta, config.temperature)
        values = {name: float(value) for name, value in means.items()} | {"on_policy": float(is_own)}
        return rows, values | {"distinct_1": distinct(ids, 1), "distinct_2": distinct(ids, 2)}

    policy, lines = improve(
        folder,
        rounds,
        learner=learner,
        optimizer=optimizer,
        loss=partial(distill_loss, config.beta, config.temperature),
        play=play,
        monitor=Monitor(config.monitor),
        trackers=config.trackers,
        beside={"teacher": teacher},
    )
    after = measure(config, sampler, policy.transformer, teacher, measured)
    return {
        "updates": len(lines),
        "measured": held,
        **{f"{name}_before": value for name, value in before.items()},
        **{f"{name}_after": value for name, value in after.items()},
    }


def _rounds(config: DistillConfig) -> Rounds:
    for name in ("beta", "on_policy"):
        if not 0 <= getattr(config, name) <= 1:
            raise UserError(f"{name} is {getattr(config, name)}; it is between 0 and 1")
    if config.temperature <= 0:
        raise UserError("temperature is above 0; at 0 a distribution has nothing to teach")
    rounds = Rounds(
        updates=config.updates,
        epochs=1,
        minibatches=1,
        checkpoint_every=config.checkpoint_every,
        seed=config.seed,
    )
    rounds.check(config.rollouts, "rollouts")
    return rounds


def read(config: DistillConfig, tokenizer: Tokenizer) -> list[Exchange]:
    """The first question and answer of each conversation, in the order of a hash, each question once.

    An answer that calls a tool is left out: the student is not told of tools.
    """
    found: dict[int, Exchange] = {}
    calls = 0
    for file in source_files(Path(config.conversations) / "conversations"):
        for record in read_records(file, Conversation):
            assert isinstance(record, Conversation)
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
    is_own = key(config.seed, "who answers", update) < config.on_policy * 2**64
    if is_own:
        seed = key(config.seed, "answers", update)
        rows = jax.device_get(sampler.answer(student, [one.ids for one in asked], seed))
    else:
        length = config.longest_prompt + config.max_new + 1
        rows = pack([(one.ids, one.answer) for one in asked], length, sampler.tokenizer.pad)
        rows["mask"] = rows["loss_weights"]
    return {name: rows[name] for name in ("tokens", "targets", "segment_ids", "positions", "mask")}, is_own


def put(rows: Rows) -> rollout.Batch:
    return meshes.put_batch(rows, jax.sharding.get_mesh())


def distill_loss(
    beta: float, temperature: float, policy: Policy, batch: dict[str, Any]
) -> tuple[jax.Array, jax.Array]:
    """Summed divergence of student and teacher over the answers' tokens, and their number."""
    return _apart(policy.transformer, batch["teacher"], batch, beta, temperature), jnp.sum(batch["mask"])


def _apart(
    student: Transformer, teacher: Transformer, batch: dict[str, Any], beta: float, temperature: float
) -> jax.Array:
    """Summed over the tokens; both models' logits [B, T, V] are in memory at once."""
    logits_BTV, teacher_BTV = (
        model(batch["tokens"], batch["segment_ids"], batch["positions"]) for model in (student, teacher)
    )
    taught_BTV = jax.lax.stop_gradient(teacher_BTV)
    return gkd(logits_BTV, taught_BTV, batch["mask"], beta=beta, temperature=temperature, denominator=1.0)


@partial(jax.jit, static_argnames=("beta", "temperature"))
def _divergence(
    student: Transformer, teacher: Transformer, batch: rollout.Batch, beta: float, temperature: float
) -> dict[str, jax.Array]:
    """Means over the tokens of the answers."""
    mask_BT, rows = batch["mask"], batch["mask"].shape[0]
    count = jnp.sum(mask_BT)
    ours_BT, theirs_BT = (rollout.logprobs(model, batch, temperature) for model in (student, teacher))
    apart = jnp.sum((ours_BT - theirs_BT) * mask_BT)
    return {
        "divergence": _apart(student, teacher, batch, beta, temperature) / count,
        "kl": apart / rows,
        "reward": -apart / count,
        "surprise": -jnp.sum(ours_BT * mask_BT) / count,
        "length": count / rows,
    }


def measure(
    config: DistillConfig, sampler: Sampler, student: Transformer, teacher: Transformer, asked: list[Exchange]
) -> dict[str, float]:
    """The divergence on the student's own answers to questions that training does not see."""
    size = -(-len(asked) // meshes.batch_rows()) * meshes.batch_rows()
    each = [asked[n % len(asked)].ids for n in range(size)]
    rows = jax.device_get(sampler.answer(student, each, key(config.seed, "measure")))
    batch = put({name: np.asarray(values) for name, values in rows.items()})
    found = _divergence(student, teacher, batch, config.beta, config.temperature)
    return {name: float(found[name]) for name in ("divergence", "kl", "length")}
