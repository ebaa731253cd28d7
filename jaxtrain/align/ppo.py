"""PPO against a reward model, with a KL penalty to the fine-tuned model (Ouyang et al. 2022).

B rows, T time, S reward models
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain import artifact, weights
from jaxtrain.align import reward_model as rewards
from jaxtrain.align import rollout
from jaxtrain.align.heads import Policy, policy_learner
from jaxtrain.align.losses import Estimator, gae, kl, moved, ppo_policy, ppo_value, whiten
from jaxtrain.align.monitor import Monitor, MonitorConfig, variety
from jaxtrain.align.rollout import Rows, Sampler, drawn
from jaxtrain.align.rounds import Line, Rounds
from jaxtrain.config import Stage
from jaxtrain.decode.answers import Samples, chats
from jaxtrain.feed import prompts
from jaxtrain.feed.shuffle import key
from jaxtrain.fields import Adjustable, Operational
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Limits, Positive, Share, Signed
from jaxtrain.tasks.utility import utility
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.config import OptimizerConfig, TrainConfig
from jaxtrain.train.context import training
from jaxtrain.weights.folder import write_about
from jaxtrain.weights.learners import runs_as, without_dropout


@dataclass(frozen=True, kw_only=True)
class RewardSource:
    """One more reward model, centred and scaled by the fine-tuned model's answers as the first one is."""

    reward: str
    """Folder of the reward model's artifact."""
    weight: Signed
    """Of its score in the sum; the first one's is 1."""


@dataclass(frozen=True, kw_only=True)
class PPOConfig(Stage):
    """Improve a fine-tuned model against a reward model by proximal policy optimisation."""

    model: str
    """Folder of the finetune artifact: the first policy, and the reference of the KL penalty."""
    reward: str
    """Folder of the reward model's artifact."""
    also: tuple[RewardSource, ...] = ()
    """Further reward models, added to it."""
    conversations: str
    """Folder of the clean artifact whose questions are asked; none that raters saw."""
    lora: LoRAConfig = LoRAConfig(rank=0)
    train: TrainConfig = TrainConfig(
        optimizer=OptimizerConfig(lr=3e-4, warmup_steps=5, schedule="constant", weight_decay=0.0),
        steps=120,
        evaluate_every=0,
        checkpoint_every=40,
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
    exact: bool = False
    """As of GRPO: what the loss reads is what was drawn, to the last bit."""
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
    monitor: Adjustable[MonitorConfig] = MonitorConfig()
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
    model = runs_as(config.train, weights.open(config.model).config)
    sampler = Sampler(tokenizer, config.longest_prompt, config.max_new).check(model)
    sampler.exact = config.exact * (config.rollouts // config.minibatches)
    measured, asked = questions(config, tokenizer)
    with training(config.train, folder, partial(write_about, model, tokenizer)) as run:
        parts = config.minibatches * config.train.microbatches
        meshes.check_rows(config.rollouts, sampler.width(), parts, model.stage_microbatches, "rollouts")

        def critic() -> Transformer | None:
            return rewards.load(config.reward).transformer if config.value == "own" else None

        learner, reference = policy_learner(config, run.folder, model, config.value, critic)
        judges = Judges(config, sampler, reference, measured)
        most = config.rollouts // parts
        before = judges.measure(reference, most)
        talks = chats(config.sample_questions)
        samples = Samples(run.folder, talks, sampler.tokenizer, config.train.seed, temperature=1.0)
        samples.write(reference, 0)

        def draw(policy: Policy, number: int, lines: list[Line]) -> tuple[Rows, Line]:
            ids = drawn(asked, config.train.seed, number, config.rollouts)
            rows = sampler.answer(policy.transformer, ids, key(config.train.seed, "answers", number))
            if config.exact:
                rows["logprobs"] = sampler.read(policy.transformer, rows)
            values: Line = {"kl_weight": kl_weight(config, lines), **variety(sampler.ids(rows))}
            if judges.simulated:
                values["utility"] = float(judges.utilities(rows).mean())
            rows = rollout.with_reward(rows, judges.reward(rows))
            rows, means = experience(config, policy, reference, rows, values["kl_weight"], most)
            return rows, means | values

        def evaluate(policy: Policy, step: int) -> dict[str, float]:
            samples.write(policy.transformer, step)
            return judges.measure(policy.transformer, most)

        monitor = Monitor(config.monitor, before.get("utility_sd"))
        exact = sampler if config.exact else None
        rounds = Rounds(run, learner, draw, monitor, config.epochs, config.minibatches, exact)
        flops = model.flops_per_token(sampler.width())
        trained = rounds.train(partial(policy_loss, config), evaluate, "-reward", flops)
        after = trained.heldout
        counts = {"simulated": judges.simulated, "steps": trained.step, "rounds": len(rounds.lines)}
        counts |= {"kl": after["kl"], "reward_before": before["reward"], "reward_after": after["reward"]}
        counts |= {"measured": len(measured)}
        if judges.simulated:
            gain = (after["utility"] - before["utility"]) / before["utility_sd"]
            counts |= {"utility_before": before["utility"], "utility_sd_before": before["utility_sd"]}
            counts |= {"utility_after": after["utility"], "utility_gain_sd": gain}
        return counts


def questions(config: PPOConfig, tokenizer: Tokenizer) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of the questions to measure on, and of those to learn from: none of them raters saw."""
    asked = prompts.load(config.conversations, tokenizer, config.longest_prompt, part=1, parts=2)
    held = min(config.measured, len(asked) // 2)
    if held < 2:
        raise UserError(
            f"measured is {config.measured} and {config.conversations} has {len(asked)} questions of at "
            f"most {config.longest_prompt} tokens; give at least 2 and 4: raise one of them"
        )
    ids = [prompt.ids for prompt in asked]
    return ids[:held], ids[held:]


def policy_loss(
    config: PPOConfig, policy: Policy, batch: rollout.Batch
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Summed PPO loss of policy and value, the number of sampled tokens, and how far the policy has moved."""
    logprob_BT, value_BT = policy(batch)
    mask_BT = batch["mask"]
    before = logprob_BT, batch["old_logprobs"], batch["advantages"], mask_BT
    loss = ppo_policy(*before, clip=config.clip, dual_clip=config.dual_clip)
    value = ppo_value(value_BT, batch["old_values"], batch["returns"], mask_BT, clip=config.clip)
    told = moved(*before, config.clip, config.clip)
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


class Judges:
    """What a policy is held against: the fine-tuned model, and reward models, each centred and scaled by what
    they say of that model's answers to the measured questions."""

    def __init__(
        self, config: PPOConfig, sampler: Sampler, reference: Transformer, measured: list[list[int]]
    ):
        self.config, self.sampler, self.reference, self.measured = config, sampler, reference, measured
        sources = (RewardSource(reward=config.reward, weight=1.0), *config.also)
        made = [artifact.require(source.reward, "align") for source in sources]
        self.simulated = all(one["counts"]["simulated"] for one in made)
        """Whether the reward models learned from simulated raters, whose true utility is known."""
        self._models = [rewards.load(source.reward) for source in sources]
        self._weights_S1 = np.array([[source.weight] for source in sources])
        scores_SB = self._scores(self._answers(reference))
        self._mean_S1 = scores_SB.mean(axis=1, keepdims=True)
        self._sd_S1 = scores_SB.std(axis=1, ddof=1, keepdims=True)

    def reward(self, rows: Rows) -> np.ndarray:
        """[B]"""
        return np.sum(self._weights_S1 * (self._scores(rows) - self._mean_S1) / self._sd_S1, axis=0)

    def utilities(self, rows: Rows) -> np.ndarray:
        return np.array([utility(self.sampler.tokenizer.decode(ids)) for ids in self.sampler.ids(rows)])

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

    def _scores(self, rows: Rows) -> np.ndarray:
        """Of each reward model, float64 [S, B]."""
        return np.array([rewards.score(model, rows) for model in self._models], np.float64)

    def _answers(self, model: Transformer) -> Rows:
        return self.sampler.answer(model, self.measured, key(self.config.train.seed, "measure"))


def experience(
    config: PPOConfig, policy: Policy, reference: Transformer, rows: Rows, kl_weight: float, most: int
) -> tuple[Rows, Line]:
    """What is learned from: old log-probabilities and values, advantages and returns of every sampled token;
    and the means of the round. So many rows at a time.

    The reward is −kl_weight · KL's estimate at every token, plus the answer's `reward` at its last sampled
    token, less `cut_penalty` where the answer was cut short.
    """
    logprob_BT, value_BT = rollout.read_back(policy, rows, most)
    reference_BT = rollout.read_reference(reference, rows, most)
    old_BT = rows["sampler_logprobs"] if config.exact else logprob_BT
    rows = rows | {"old_logprobs": old_BT, "old_values": value_BT, "reference": reference_BT}
    batch = meshes.put_batch(meshes.own_rows(rows), jax.sharding.get_mesh())
    costs = kl_weight, config.cut_penalty, config.gamma, config.lam
    learned = meshes.fetch(_advantages(batch, jnp.array(costs, jnp.float32), config.kl_kind))
    return rows | learned, rollout.measure(rows, logprob_BT, reference_BT)


@partial(jax.jit, static_argnums=2)
def _advantages(batch: rollout.Batch, costs: jax.Array, kl_kind: Estimator) -> rollout.Batch:
    kl_weight, cut_penalty, gamma, lam = costs
    mask_BT = batch["mask"]
    apart_BT = kl(batch["old_logprobs"], batch["reference"], kl_kind) * mask_BT
    reward_BT = batch["reward"] * batch["rewarded"] - cut_penalty * batch["cut"] - kl_weight * apart_BT
    in_time = (
        jax.sharding.reshard(x_BT, P(meshes.BATCH, None))
        for x_BT in (reward_BT, batch["old_values"], mask_BT)
    )
    advantage_BT, return_BT = (
        jax.sharding.reshard(x_BT, rollout.ROWS) for x_BT in gae(*in_time, gamma=gamma, lam=lam)
    )
    return {"advantages": whiten(advantage_BT, mask_BT), "returns": return_BT}
