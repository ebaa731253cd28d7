"""PPO against a reward model, with a KL penalty to the fine-tuned model (Ouyang et al. 2022)."""

import dataclasses
import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import weights
from jaxtrain.align import reward_model as rewards
from jaxtrain.align import rollout
from jaxtrain.align.adapters import Learner
from jaxtrain.align.losses import Estimator, ppo_policy, ppo_value
from jaxtrain.align.monitor import Monitor, MonitorConfig, distinct
from jaxtrain.align.reward_model import RewardModel
from jaxtrain.align.rollout import Pay, Policy, Sampler, drawn, policy_of
from jaxtrain.align.rounds import Line, Rounds, Rows, improve
from jaxtrain.decode.generate import sample
from jaxtrain.feed import prompts as questions
from jaxtrain.feed.shuffle import key
from jaxtrain.fields import Adjustable, Operational
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.trackers import Tracker
from jaxtrain.tasks.utility import utility
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.weights import folder as store


@dataclass(frozen=True, kw_only=True)
class RewardSource:
    """One more reward model, centred and scaled by the fine-tuned model's answers as the first one is."""

    reward: str
    """Folder of the reward model's artifact."""
    weight: float
    """Of its score in the sum; the first one's is 1."""


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Improve a fine-tuned model against a reward model by proximal policy optimisation."""

    VERSION: ClassVar[int] = 1

    model: str
    """Folder of the finetune artifact: the first policy, and the reference of the KL penalty."""
    reward: str
    """Folder of the reward model's artifact."""
    also: tuple[RewardSource, ...] = ()
    """Further reward models, added to it."""
    conversations: str
    """Folder of the clean artifact whose questions are asked; none that raters saw."""
    out: str
    """Folder to write."""
    lora: LoRAConfig = field(default_factory=lambda: LoRAConfig(rank=0))
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            lr=3e-4, warmup_steps=5, schedule="constant", weight_decay=0.0
        )
    )
    mesh: Operational[MeshConfig] = field(default_factory=MeshConfig)
    updates: Adjustable[int] = 30
    """Rounds of sampling and learning."""
    rollouts: int = 128
    """Answers sampled a round."""
    epochs: int = 2
    """Passes over the rollouts of a round."""
    minibatches: int = 2
    """Parts of the rollouts, an optimizer step each."""
    microbatches: int = 1
    """Parts that a minibatch is cut into to save memory; the step is the same."""
    longest_prompt: int = 48
    """Tokens; longer questions are not asked."""
    max_new: int = 32
    """Tokens of an answer at most."""
    kl_weight: float = 0.05
    """Reward lost for a nat of KL to the fine-tuned model; the first one, if it is adapted."""
    kl_kind: Estimator = "k1"
    """How a token's KL is estimated: k1, log-ratio; k2, half its square; k3, unbiased and never negative."""
    kl_target: float = 0.0
    """KL, nats a sequence, to which `kl_weight` is adapted (Ziegler et al. 2019); 0: it stays."""
    kl_horizon: int = 2_000
    """Answers in which `kl_weight` changes by a fifth at most."""
    cut_penalty: float = 0.0
    """Reward lost by an answer that does not end within `max_new`."""
    gamma: float = 1.0
    """Worth of a reward one token later (GAE)."""
    lam: float = 0.95
    """How far an advantage looks ahead before it trusts the value head (GAE)."""
    clip: float = 0.2
    """Largest change of a token's probability ratio that is rewarded."""
    dual_clip: float = 0.0
    """Largest ratio by which a bad token is pushed down, above 1 (Ye et al. 2020); 0: any."""
    value: Literal["shared", "own"] = "shared"
    """The value head is on the policy's hidden states, or on a transformer of its own that begins as the
    reward model's."""
    value_weight: float = 0.1
    """Of the value loss beside the policy's."""
    monitor: Adjustable[MonitorConfig] = field(default_factory=MonitorConfig)
    measured: int = 256
    """Answers sampled before and after, on questions that training does not see, to measure the gain."""
    checkpoint_every: Operational[int] = 10
    """Rounds between checkpoints."""
    sample_questions: Operational[tuple[str, ...]] = (
        "What is the capital of France?",
        "How can I make a friend happy?",
    )
    """Answered before and after."""
    trackers: Operational[tuple[Tracker, ...]] = ("tensorboard",)
    """Where the numbers are shown beside `metrics.jsonl`: tensorboard, wandb, mlflow, trackio."""
    seed: int = 0
    """Of questions, answers and the value head."""


def train_policy(config: PPOConfig, folder: Path) -> dict[str, Any]:
    with jax.set_mesh(meshes.make(config.mesh)):
        return _train(config, weights.open(config.model).tokenizer, folder)


def policy_loss(config: PPOConfig, policy: Policy, batch: rollout.Batch) -> tuple[jax.Array, jax.Array]:
    """Summed PPO loss of policy and value, and the number of sampled tokens."""
    logprob_BT, value_BT = policy(batch)
    mask_BT = batch["mask"]
    loss = ppo_policy(
        logprob_BT,
        batch["old_logprobs"],
        batch["advantages"],
        mask_BT,
        clip=config.clip,
        dual_clip=config.dual_clip or None,
        denominator=1.0,
    )
    value = ppo_value(
        value_BT, batch["old_values"], batch["returns"], mask_BT, clip=config.clip, denominator=1.0
    )
    return loss + config.value_weight * value, jnp.sum(mask_BT)


def kl_weight(config: PPOConfig, lines: list[Line]) -> float:
    """Of the next round: raised where the KL of the last was above its target, lowered where it was below.

    weight · (1 + clip(KL / target − 1, ±0.2) · rollouts / horizon), Ziegler et al. 2019.
    """
    if not lines:
        return config.kl_weight
    last = lines[-1]["kl_weight"]
    if not config.kl_target:
        return last
    error = float(np.clip(lines[-1]["kl"] / config.kl_target - 1, -0.2, 0.2))
    return last * (1 + error * config.rollouts / config.kl_horizon)


class Asker:
    """Which questions are asked to learn from, and which to measure."""

    def __init__(self, config: PPOConfig, tokenizer: Tokenizer):
        asked = questions.load(config.conversations, tokenizer, config.longest_prompt, part=1, parts=2)
        held = min(config.measured, len(asked) // 2)
        if held < 2:
            raise UserError(
                f"measured is {config.measured} and {config.conversations} has {len(asked)} questions of at "
                f"most {config.longest_prompt} tokens; give at least 2 and 4: raise one of them"
            )
        self.measured, self.trained = asked[:held], asked[held:]
        self.config = config
        self.sampler = Sampler(
            tokenizer=tokenizer, longest_prompt=config.longest_prompt, max_new=config.max_new
        )

    def round(self, update: int) -> list[list[int]]:
        """Ids of the prompts of a round: a function of seed and round."""
        count = self.config.rollouts
        numbers = drawn(len(self.trained), self.config.seed, update * count, count)
        return [self.trained[n].ids for n in numbers]


@dataclass(frozen=True)
class Source:
    """A reward model, what its score weighs, and the scores of the fine-tuned model's answers."""

    model: RewardModel
    weight: float = 1.0
    mean: float = 0.0
    sd: float = 1.0

    def reward(self, batch: rollout.Batch) -> np.ndarray:
        return self.weight * (np.asarray(_score(self.model, batch)) - self.mean) / self.sd


@jax.jit
def _score(model: RewardModel, batch: rollout.Batch) -> jax.Array:
    return model(batch)


@dataclass(frozen=True)
class Judges:
    """Everything that a policy is held against."""

    asker: Asker
    reference: Transformer
    sources: tuple[Source, ...]
    simulated: bool
    """Whether the reward models learned from simulated raters, whose true utility is known."""

    def calibrated(self) -> "Judges":
        """Each source centred and scaled by the reference's answers to the measured questions."""
        batch = self._answers(self.reference)
        scores = [np.asarray(_score(source.model, batch), np.float64) for source in self.sources]
        scaled = (
            dataclasses.replace(source, mean=float(found.mean()), sd=float(found.std(ddof=1)))
            for source, found in zip(self.sources, scores, strict=True)
        )
        return dataclasses.replace(self, sources=tuple(scaled))

    def _answers(self, model: Transformer) -> rollout.Batch:
        """Answers to the measured questions; the first fill up what the devices cannot share."""
        asked = self.asker.measured
        rows = -(-len(asked) // meshes.batch_rows()) * meshes.batch_rows()
        ids = [asked[n % len(asked)].ids for n in range(rows)]
        return self.asker.sampler.answer(model, ids, key(self.asker.config.seed, "measure"))

    def reward(self, batch: rollout.Batch) -> np.ndarray:
        return sum(source.reward(batch) for source in self.sources)

    def utilities(self, batch: dict[str, Any]) -> np.ndarray:
        return np.array([utility(text) for text in self.asker.sampler.texts(batch)])

    def measure(self, model: Transformer) -> dict[str, float]:
        """Reward and KL of answers to questions that training does not see; their utility where known."""
        batch = self._answers(model)
        kl_B = _kl(model, self.reference, batch)
        found = {"reward": float(self.reward(batch).mean()), "kl": float(kl_B.mean())}
        if self.simulated:
            utilities = self.utilities(batch)
            found |= {"utility": float(utilities.mean()), "utility_sd": float(utilities.std(ddof=1))}
        return found


@jax.jit
def _kl(model: Transformer, reference: Transformer, batch: rollout.Batch) -> jax.Array:
    apart_BT = rollout.logprobs(model, batch) - rollout.logprobs(reference, batch)
    return jnp.sum(apart_BT * batch["mask"], axis=1)


def _train(config: PPOConfig, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    rounds = _rounds(config)
    model_config = store.read_config(config.model)
    store.write_config(folder, model_config)
    tokenizer.save_in(folder)
    sources = (Source(rewards.load(config.reward)),)
    sources += tuple(Source(rewards.load(more.reward), more.weight) for more in config.also)
    folders = (config.reward, *(more.reward for more in config.also))
    simulated = all(rewards.is_simulated(folder) for folder in folders)

    def load(weights: str) -> Policy:  # its own copy: the step donates it
        own = rewards.load(config.reward).transformer if config.value == "own" else None
        return policy_of(store.load(config.model, weights=weights), own, config.value)

    learner = Learner.of(config, folder, make=partial(Policy, model_config, value=config.value), load=load)
    reference = learner.base or store.load(config.model)
    judges = Judges(Asker(config, tokenizer), reference, sources, simulated).calibrated()
    optimizer = optimizers.make(config.optimizer, config.updates * rounds.steps)
    before = judges.measure(judges.reference)
    policy, lines = improve(
        folder,
        rounds,
        learner=learner,
        optimizer=optimizer,
        loss=partial(policy_loss, config),
        play=partial(_play, config, judges),
        monitor=Monitor(config.monitor, before.get("utility_sd")),
        trackers=config.trackers,
    )
    after = judges.measure(policy.transformer)
    _write_samples(
        folder / "samples.jsonl",
        config,
        judges.asker.sampler,
        [(0, judges.reference), (len(lines), policy.transformer)],
    )
    counts = {
        "simulated": simulated,
        "updates": len(lines),
        "kl": after["kl"],
        "reward_before": before["reward"],
        "reward_after": after["reward"],
        "measured": len(judges.asker.measured),
    }
    if simulated:
        gain = (after["utility"] - before["utility"]) / before["utility_sd"]
        counts |= {"utility_before": before["utility"], "utility_sd_before": before["utility_sd"]}
        counts |= {"utility_after": after["utility"], "utility_gain_sd": gain}
    return counts


def _play(
    config: PPOConfig, judges: Judges, policy: Policy, update: int, lines: list[Line]
) -> tuple[Rows, Line]:
    """Answers of a round, and what is learned from them."""
    asker, weight = judges.asker, kl_weight(config, lines)
    seed = key(config.seed, "answers", update)
    answered = asker.sampler.answer(policy.transformer, asker.round(update), seed)
    rows = rollout.with_reward(answered, judges.reward(answered))
    batch = meshes.put_batch(rows, jax.sharding.get_mesh())
    pay = Pay(kl_kind=config.kl_kind, cut_penalty=config.cut_penalty, gamma=config.gamma, lam=config.lam)
    batch, measures = rollout.experience(policy, judges.reference, batch, weight, pay)
    ids = asker.sampler.ids(rows)
    values: Line = {**vars(measures), "kl_weight": weight}
    values |= {"distinct_1": distinct(ids, 1), "distinct_2": distinct(ids, 2)}
    if judges.simulated:
        values["utility"] = float(judges.utilities(rows).mean())
    return batch, values


def _rounds(config: PPOConfig) -> Rounds:
    """When the loop does what; UserError for what cannot be."""
    rounds = Rounds(
        updates=config.updates,
        epochs=config.epochs,
        minibatches=config.minibatches,
        microbatches=config.microbatches,
        checkpoint_every=config.checkpoint_every,
        seed=config.seed,
        clip=(config.clip, config.clip),
    )
    rounds.check(config.rollouts, "rollouts")
    if config.dual_clip and config.dual_clip <= 1:
        raise UserError(f"dual_clip is {config.dual_clip}; it is a ratio above 1, such as 3, or 0 for none")
    return rounds


def _write_samples(
    path: Path, config: PPOConfig, sampler: Sampler, models: list[tuple[int, Transformer]]
) -> None:
    tokenizer = sampler.tokenizer
    prompts = [
        render([{"role": "user", "content": text}], tokenizer, generation_prompt=True)[0]
        for text in config.sample_questions
    ]
    with path.open("w", encoding="utf-8") as file:
        for step, model in models:
            answers = sample(
                model, prompts, seed=config.seed, max_new=48, stop=tokenizer.end, pad=tokenizer.pad
            )
            for question, ids in zip(config.sample_questions, answers, strict=True):
                text = tokenizer.decode([i for i in ids if i != tokenizer.end])
                line = {"step": step, "prompt": question, "completion": text}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
