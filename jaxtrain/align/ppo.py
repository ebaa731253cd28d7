"""PPO against a reward model, with a KL penalty to the fine-tuned model (Ouyang et al. 2022)."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.align import reward_model as rewards
from jaxtrain.align import rollout
from jaxtrain.align.losses import ppo_policy, ppo_value
from jaxtrain.feed import prompts as questions
from jaxtrain.feed.shuffle import Permutation, key
from jaxtrain.model import store
from jaxtrain.model.generate import generate, pad_left, row_keys, sample
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.checkpoint import Checkpoints
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.metrics import MetricsLog, show
from jaxtrain.runtime.progress import say
from jaxtrain.tasks.utility import utility
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import TrainState, initializer, new_state
from jaxtrain.train.step import make_step


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Improve a fine-tuned model against a reward model by proximal policy optimisation."""

    model: str
    """Folder of the finetune artifact: the first policy, and the reference of the KL penalty."""
    reward: str
    """Folder of the reward model's artifact."""
    conversations: str
    """Folder of the clean artifact whose questions are asked; none that raters saw."""
    out: str
    """Folder to write."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            lr=3e-4, warmup_steps=5, schedule="constant", weight_decay=0.0
        )
    )
    mesh: MeshConfig = field(default_factory=MeshConfig)
    updates: int = 30
    """Rounds of sampling and learning."""
    rollouts: int = 128
    """Answers sampled a round."""
    epochs: int = 2
    """Passes over the rollouts of a round."""
    minibatches: int = 2
    """Parts of the rollouts, an optimizer step each."""
    longest_prompt: int = 48
    """Tokens; longer questions are not asked."""
    max_new: int = 32
    """Tokens of an answer at most."""
    kl_weight: float = 0.05
    """Reward lost for a nat of KL to the fine-tuned model."""
    clip: float = 0.2
    """Largest change of a token's probability ratio that is rewarded."""
    value_weight: float = 0.1
    """Of the value loss beside the policy's."""
    measured: int = 256
    """Answers sampled before and after, on questions that training does not see, to measure the utility."""
    checkpoint_every: int = 10
    """Rounds between checkpoints."""
    sample_questions: tuple[str, ...] = ("What is the capital of France?", "How can I make a friend happy?")
    """Answered before and after."""
    seed: int = 0
    """Of questions, answers and the value head."""


def train_policy(config: PPOConfig, folder: Path) -> dict[str, Any]:
    with jax.set_mesh(meshes.make(config.mesh)):
        return _train(config, Tokenizer.load(Path(config.model) / "tokenizer"), folder)


def policy_loss(
    policy: rollout.Policy, batch: dict[str, jax.Array], clip: float, value_weight: float
) -> tuple[jax.Array, jax.Array]:
    """Summed PPO loss of policy and value, and the number of sampled tokens."""
    logprob_BT, value_BT = policy(batch)
    mask_BT = batch["mask"]
    loss = ppo_policy(
        logprob_BT, batch["old_logprobs"], batch["advantages"], mask_BT, clip=clip, denominator=1.0
    )
    value = ppo_value(value_BT, batch["old_values"], batch["returns"], mask_BT, clip=clip, denominator=1.0)
    return loss + value_weight * value, jnp.sum(mask_BT)


class Asker:
    """Prompts of a round, and the answers of a model to them."""

    def __init__(self, config: PPOConfig, tokenizer: Tokenizer):
        asked = questions.load(config.conversations, tokenizer, config.longest_prompt, part=1, parts=2)
        held = min(config.measured, len(asked) // 2)
        if held < 2:
            raise UserError(
                f"measured is {config.measured} and {config.conversations} has {len(asked)} questions of at "
                f"most {config.longest_prompt} tokens; give at least 2 and 4: raise one of them"
            )
        self.measured, self.trained = asked[:held], asked[held:]
        self.config, self.tokenizer = config, tokenizer
        self.stop = tokenizer.end

    def round(self, update: int) -> list[list[int]]:
        """Ids of the prompts of a round: a function of seed and round."""
        size, first = len(self.trained), update * self.config.rollouts
        orders = {}
        ids = []
        for n in range(first, first + self.config.rollouts):
            epoch = n // size
            orders.setdefault(epoch, Permutation(size, key(self.config.seed, "prompts", epoch)))
            ids.append(self.trained[orders[epoch][n % size]].ids)
        return ids

    def answer(self, model: Transformer, prompts: list[list[int]], seed: int) -> dict[str, jax.Array]:
        """Whole rows of prompts and sampled answers, on the mesh."""
        tokens, segments = pad_left(prompts, self.config.longest_prompt, self.tokenizer.pad)
        batch = meshes.put_batch({"tokens": tokens, "segments": segments}, jax.sharding.get_mesh())
        answers = generate(
            model,
            batch["tokens"],
            batch["segments"],
            row_keys(jax.random.key(seed), len(prompts)),
            max_new=self.config.max_new,
            temperature=1.0,
            stop=self.stop,
            pad=self.tokenizer.pad,
        )
        return _rows(batch["tokens"], batch["segments"], answers, end=self.stop)

    def texts(self, batch: dict[str, Any]) -> list[str]:
        """The sampled answers as text."""
        tokens, mask = np.asarray(batch["targets"]), np.asarray(batch["mask"]) > 0
        return [
            self.tokenizer.decode([i for i in row[kept].tolist() if i != self.stop])
            for row, kept in zip(tokens, mask, strict=True)
        ]


_rows = jax.jit(rollout.rows, static_argnames="end")


def _train(config: PPOConfig, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    _check(config)
    model_config = store.read_config(config.model)
    store.write_config(folder, model_config)
    shutil.copytree(Path(config.model) / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    asker = Asker(config, tokenizer)
    reference, reward_model = store.load(config.model), rewards.load(config.reward)
    optimizer = optimizers.make(config.optimizer, config.updates * config.epochs * config.minibatches)
    step_function = make_step(
        partial(policy_loss, clip=config.clip, value_weight=config.value_weight), optimizer, watch_loss=False
    )

    def pretrained() -> rollout.Policy:
        fresh = jax.eval_shape(partial(rollout.Policy, model_config), jax.random.key(config.seed))
        fresh.transformer = store.load(config.model)  # its own copy: the step donates it
        fresh.value_D = rollout.value_head(model_config)
        return fresh

    before = _measure(asker, reference, reference, reward_model, (0.0, 1.0))
    scale = (before["score_mean"], before["score_sd"])
    checkpoints = Checkpoints(folder / "checkpoint")
    init = initializer(partial(rollout.Policy, model_config), optimizer, config.seed)
    state = (
        _resume(checkpoints, init) if checkpoints.latest is not None else new_state(pretrained(), optimizer)
    )
    steps_a_round = config.epochs * config.minibatches
    first = int(state.step) // steps_a_round
    log = MetricsLog(folder / "metrics.jsonl", resume_step=first)
    metrics: dict[str, jax.Array] = {}
    for update in range(first, config.updates):
        batch = asker.answer(
            state.model.transformer, asker.round(update), seed=key(config.seed, "answers", update) % 2**31
        )
        batch, measures = rollout.experience(
            state.model, reference, reward_model, batch, *scale, config.kl_weight
        )
        for minibatch in _minibatches(batch, config, update):
            state, metrics = step_function(state, minibatch)
        values = {name: float(value) for name, value in dataclasses.asdict(measures).items()}
        values["utility"] = float(np.mean([utility(text) for text in asker.texts(batch)]))
        values["grad_norm"] = float(metrics["grad_norm"])
        log.step(update + 1, values)
        log.flush()
        if (update + 1) % 5 == 0 or update == 0:
            show(update + 1, config.updates, values, "round")
        if (update + 1) % config.checkpoint_every == 0 or update + 1 == config.updates:
            value_head = dataclasses.replace(state, model=state.model.value_D)
            checkpoints.save(
                int(state.step), state.model.transformer, value_head
            )  # `model` is what later stages load
    log.close()
    checkpoints.close()
    after = _measure(asker, state.model.transformer, reference, reward_model, scale)
    _write_samples(
        folder / "samples.jsonl", config, asker, [(0, reference), (config.updates, state.model.transformer)]
    )
    return {
        "simulated": True,
        "updates": config.updates,
        "utility_before": before["utility_mean"],
        "utility_sd_before": before["utility_sd"],
        "utility_after": after["utility_mean"],
        "utility_gain_sd": (after["utility_mean"] - before["utility_mean"]) / before["utility_sd"],
        "kl": after["kl"],
        "reward_before": 0.0,
        "reward_after": after["score_mean"],
        "measured": len(asker.measured),
    }


def _check(config: PPOConfig) -> None:
    parts = config.minibatches * meshes.batch_rows()
    if min(config.epochs, config.minibatches, config.rollouts) < 1 or config.rollouts % parts:
        raise UserError(
            f"rollouts is {config.rollouts}; {config.minibatches} minibatches, each shared by "
            f"{meshes.batch_rows()} devices, need a multiple of {parts}, and epochs at least 1"
        )


def _resume(checkpoints: Checkpoints, init: Callable[[], TrainState]) -> TrainState:
    state = meshes.abstract(init, jax.sharding.get_mesh())
    policy = state.model
    value_head = dataclasses.replace(state, model=policy.value_D)
    step, policy.transformer, training = checkpoints.restore(policy.transformer, value_head)
    policy.value_D = training.model
    say(f"resuming after step {step}")
    return dataclasses.replace(training, model=policy)


def _minibatches(
    batch: dict[str, jax.Array], config: PPOConfig, update: int
) -> Iterator[dict[str, jax.Array]]:
    """Each pass over the rollouts in a new order, in equal parts; on the host, rows are small."""
    rows, mesh = jax.device_get(batch), jax.sharding.get_mesh()
    for epoch in range(config.epochs):
        order = np.random.default_rng(key(config.seed, "minibatches", update, epoch)).permutation(
            config.rollouts
        )
        for part in np.split(order, config.minibatches):
            yield meshes.put_batch({name: values[part] for name, values in rows.items()}, mesh)


def _measure(
    asker: Asker,
    model: Transformer,
    reference: Transformer,
    reward_model: rewards.RewardModel,
    scale: tuple[float, float],
) -> dict[str, float]:
    """True utility, reward and KL of answers to questions that training does not see."""
    rows = -(-len(asker.measured) // meshes.batch_rows()) * meshes.batch_rows()
    ids = [asker.measured[n % len(asker.measured)].ids for n in range(rows)]
    batch = asker.answer(model, ids, seed=key(asker.config.seed, "measure") % 2**31)
    score_B, kl_B = jax.device_get(_score_and_kl(model, reference, reward_model, batch))
    scores = (score_B - scale[0]) / scale[1]
    utilities = np.array([utility(text) for text in asker.texts(batch)])
    return {
        "utility_mean": float(utilities.mean()),
        "utility_sd": float(utilities.std(ddof=1)),
        "kl": float(kl_B.mean()),
        "score_mean": float(scores.mean()),
        "score_sd": float(scores.std(ddof=1)),
    }


@jax.jit
def _score_and_kl(
    model: Transformer, reference: Transformer, reward_model: rewards.RewardModel, batch: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    logprobs = (rollout.logprobs(weights, batch) for weights in (model, reference))
    policy_BT, reference_BT = logprobs
    return reward_model(batch), jnp.sum((policy_BT - reference_BT) * batch["mask"], axis=1)


def _write_samples(
    path: Path, config: PPOConfig, asker: Asker, models: list[tuple[int, Transformer]]
) -> None:
    prompts = [
        render([{"role": "user", "content": text}], asker.tokenizer, generation_prompt=True)[0]
        for text in config.sample_questions
    ]
    with path.open("w") as file:
        for step, model in models:
            answers = sample(
                model, prompts, seed=config.seed, max_new=48, stop=asker.stop, pad=asker.tokenizer.pad
            )
            for question, ids in zip(config.sample_questions, answers, strict=True):
                text = asker.tokenizer.decode([i for i in ids if i != asker.stop])
                file.write(
                    json.dumps({"step": step, "prompt": question, "completion": text}, ensure_ascii=False)
                    + "\n"
                )
