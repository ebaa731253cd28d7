"""PPO against a reward model, with a KL penalty to the fine-tuned model (Ouyang et al. 2022)."""

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import weights
from jaxtrain.align import reward_model as rewards
from jaxtrain.align import rollout
from jaxtrain.align.heads import Policy, RewardModel, policy_learner, policy_of
from jaxtrain.align.losses import Estimator, moved, ppo_policy, ppo_value
from jaxtrain.align.monitor import Monitor, MonitorConfig, distinct
from jaxtrain.align.rollout import Pay, Rows, Sampler, drawn, fits
from jaxtrain.align.rounds import Line, Rounds
from jaxtrain.decode.samples import Samples
from jaxtrain.feed import prompts as questions
from jaxtrain.feed.shuffle import key
from jaxtrain.fields import Adjustable, Operational
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Limits, Positive, Share, Signed
from jaxtrain.tasks.utility import utility
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.context import Run, training
from jaxtrain.train.loop import train
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.weights.folder import write_about
from jaxtrain.weights.learners import base_of, learner_of, runs_as, without_dropout


@dataclass(frozen=True, kw_only=True)
class RewardSource:
    """One more reward model, centred and scaled by the fine-tuned model's answers as the first one is."""

    reward: str
    """Folder of the reward model's artifact."""
    weight: Signed
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
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            optimizer=OptimizerConfig(lr=3e-4, warmup_steps=5, schedule="constant", weight_decay=0.0),
            steps=120,
            evaluate_every=0,
            checkpoint_every=40,
        )
    )
    """A round of sampling comes every `epochs` times `minibatches` steps."""
    rollouts: Count = 128
    """Answers sampled a round."""
    epochs: Count = 2
    """Passes over the rollouts of a round."""
    minibatches: Count = 2
    """Parts of the rollouts, an optimizer step each."""
    longest_prompt: Count = 48
    """Tokens; longer questions are not asked."""
    max_new: Count = 32
    """Tokens of an answer at most."""
    kl_weight: float = 0.05
    """Reward lost for a nat of KL to the fine-tuned model; the first one, if it is adapted."""
    kl_kind: Estimator = "k1"
    """How a token's KL is estimated: k1, log-ratio; k2, half its square; k3, unbiased and never negative."""
    kl_target: float = 0.0
    """KL, nats a sequence, to which `kl_weight` is adapted (Ziegler et al. 2019); 0: it stays."""
    kl_horizon: Count = 2_000
    """Answers in which `kl_weight` changes by a fifth at most."""
    cut_penalty: float = 0.0
    """Reward lost by an answer that does not end within `max_new`."""
    gamma: Share = 1.0
    """Worth of a reward one token later (GAE)."""
    lam: Share = 0.95
    """How far an advantage looks ahead before it trusts the value head (GAE)."""
    clip: Positive = 0.2
    """Largest change of a token's probability ratio that is rewarded."""
    dual_clip: float = 0.0
    """Largest ratio by which a bad token is pushed down, above 1 (Ye et al. 2020); 0: any."""
    value: Literal["shared", "own"] = "shared"
    """The value head is on the policy's hidden states, or on a transformer of its own that begins as the
    reward model's."""
    value_weight: float = 0.1
    """Of the value loss beside the policy's."""
    monitor: Adjustable[MonitorConfig] = field(default_factory=MonitorConfig)
    measured: Annotated[int, Limits(2)] = 256
    """Answers sampled before and after, on questions that training does not see, to measure the gain."""
    sample_questions: Operational[tuple[str, ...]] = (
        "What is the capital of France?",
        "How can I make a friend happy?",
    )
    """Answered before the first step and at every evaluation; none: nothing is sampled."""

    def check(self) -> None:
        without_dropout(self.lora)
        self.train.need_steps()
        if self.dual_clip and self.dual_clip <= 1:
            raise UserError(f"dual_clip is {self.dual_clip}; it is a ratio above 1, such as 3, or 0 for none")


def train_policy(config: PPOConfig, folder: Path) -> dict[str, Any]:
    tokenizer = weights.open(config.model).tokenizer
    model_config = runs_as(config.train, weights.open(config.model).config)
    fits(model_config, config.longest_prompt, config.max_new)
    with training(config.train, folder, partial(write_about, model_config, tokenizer)) as run:
        asker = Asker(config, tokenizer)
        meshes.check_rows(
            config.rollouts,
            asker.sampler.width(),
            config.minibatches * config.train.microbatches,
            model_config.stage_microbatches,
            "rollouts",
        )
        return _train(config, model_config, asker, run)


def policy_loss(
    config: PPOConfig, policy: Policy, batch: rollout.Batch
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Summed PPO loss of policy and value, the number of sampled tokens, and how far the policy has moved."""
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
    told = moved(logprob_BT, batch["old_logprobs"], batch["advantages"], mask_BT, config.clip, config.clip)
    return loss + config.value_weight * value, jnp.sum(mask_BT), told


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
        numbers = drawn(len(self.trained), self.config.train.seed, update * count, count)
        return [self.trained[n].ids for n in numbers]


@dataclass(frozen=True)
class Source:
    """A reward model, what its score weighs, and the scores of the fine-tuned model's answers."""

    model: RewardModel
    weight: float = 1.0
    mean: float = 0.0
    sd: float = 1.0

    def reward(self, rows: Rows) -> np.ndarray:
        return self.weight * (rewards.score(self.model, rows) - self.mean) / self.sd


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
        rows = self._answers(self.reference)
        scores = [rewards.score(source.model, rows).astype(np.float64) for source in self.sources]
        scaled = (
            dataclasses.replace(source, mean=float(found.mean()), sd=float(found.std(ddof=1)))
            for source, found in zip(self.sources, scores, strict=True)
        )
        return dataclasses.replace(self, sources=tuple(scaled))

    def _answers(self, model: Transformer) -> Rows:
        """Answers to the measured questions."""
        seed = key(self.asker.config.train.seed, "measure")
        return self.asker.sampler.answer(model, [asked.ids for asked in self.asker.measured], seed)

    def reward(self, rows: Rows) -> np.ndarray:
        return sum(source.reward(rows) for source in self.sources)

    def utilities(self, rows: Rows) -> np.ndarray:
        return np.array([utility(text) for text in self.asker.sampler.texts(rows)])

    def measure(self, model: Transformer, most: int) -> dict[str, float]:
        """Reward and KL of answers to questions that training does not see; their utility where known."""
        rows = self._answers(model)
        apart_BT = (
            rollout.read_reference(model, rows, most) - rollout.read_reference(self.reference, rows, most)
        ) * rows["mask"]
        found = {"reward": float(self.reward(rows).mean()), "kl": float(apart_BT.sum(axis=1).mean())}
        if self.simulated:
            utilities = self.utilities(rows)
            found |= {"utility": float(utilities.mean()), "utility_sd": float(utilities.std(ddof=1))}
        return found


def _train(config: PPOConfig, model_config: ModelConfig, asker: Asker, run: Run) -> dict[str, Any]:
    sources = (Source(rewards.load(config.reward)),)
    sources += tuple(Source(rewards.load(more.reward), more.weight) for more in config.also)
    folders = (config.reward, *(more.reward for more in config.also))
    simulated = all(rewards.is_simulated(folder) for folder in folders)

    def load(dtype: str) -> Policy:  # its own copy: the step donates it
        own = rewards.load(config.reward).transformer if config.value == "own" else None
        return policy_of(weights.open(config.model).load(model_config, dtype), own, config.value)

    make = partial(Policy, model_config, value=config.value)
    learner = policy_learner(learner_of(config, run.folder, make, load))
    reference = base_of(learner) or weights.open(config.model).load(model_config, model_config.dtype)
    judges = Judges(asker, reference, sources, simulated).calibrated()
    most = config.rollouts // (config.minibatches * config.train.microbatches)
    before = judges.measure(judges.reference, most)
    tokenizer = asker.sampler.tokenizer
    samples = Samples.of_chat(run.folder, tokenizer, config.sample_questions, config.train.seed, 1.0)
    samples.write(judges.reference, 0)
    monitor = Monitor(config.monitor, before.get("utility_sd"))
    draw = partial(_draw, config, judges, most)
    rounds = Rounds(run, learner, draw, monitor, config.epochs, config.minibatches)

    def evaluate(policy: Policy, step: int) -> dict[str, float]:
        samples.write(policy.transformer, step)
        return judges.measure(policy.transformer, most)

    trained = train(
        run,
        learner,
        partial(policy_loss, config),
        rounds.feed(),
        evaluate,
        watch="-reward",
        flops_per_token=model_config.flops_per_token(asker.sampler.width()),
    )
    rounds.close()
    after = trained.heldout
    counts = {
        "simulated": simulated,
        "steps": trained.step,
        "rounds": len(rounds.lines),
        "kl": after["kl"],
        "reward_before": before["reward"],
        "reward_after": after["reward"],
        "measured": len(asker.measured),
    }
    if simulated:
        gain = (after["utility"] - before["utility"]) / before["utility_sd"]
        counts |= {"utility_before": before["utility"], "utility_sd_before": before["utility_sd"]}
        counts |= {"utility_after": after["utility"], "utility_gain_sd": gain}
    return counts


def _draw(
    config: PPOConfig, judges: Judges, most: int, policy: Policy, number: int, lines: list[Line]
) -> tuple[Rows, Line]:
    """Answers of a round, and what is learned from them."""
    asker, weight = judges.asker, kl_weight(config, lines)
    seed = key(config.train.seed, "answers", number)
    rows = asker.sampler.answer(policy.transformer, asker.round(number), seed)
    ids = asker.sampler.ids(rows)
    values: Line = {"kl_weight": weight, "distinct_1": distinct(ids, 1), "distinct_2": distinct(ids, 2)}
    if judges.simulated:
        values["utility"] = float(judges.utilities(rows).mean())
    rows = rollout.with_reward(rows, judges.reward(rows))
    pay = Pay(kl_kind=config.kl_kind, cut_penalty=config.cut_penalty, gamma=config.gamma, lam=config.lam)
    rows, means = rollout.experience(policy, judges.reference, rows, weight, pay, most)
    return rows, means | values
