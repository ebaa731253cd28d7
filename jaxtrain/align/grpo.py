"""Group-relative policy optimisation on tasks: what grades a benchmark's answers pays for them.

Several answers to a problem are drawn together; each is pushed by how much better it is than the others of
its group, so there is no value model. One function with flags for the family (`losses.grpo`).

B rows = prompts · G answers of a group, T time
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import weights
from jaxtrain.align import rollout
from jaxtrain.align.heads import Policy, policy_learner
from jaxtrain.align.losses import Baseline, Group, group_advantage, grpo, moved, truncated_importance
from jaxtrain.align.monitor import Monitor, MonitorConfig, paid_for, variety
from jaxtrain.align.practice import Practice, PracticeConfig, divided, read
from jaxtrain.align.rollout import Rows, Sampler, drawn
from jaxtrain.align.rounds import Line, Rounds
from jaxtrain.decode.dialogues import Dialogue
from jaxtrain.feed.shuffle import key
from jaxtrain.fields import Adjustable, Operational
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Limits, Positive
from jaxtrain.train.config import OptimizerConfig, TrainConfig
from jaxtrain.train.context import training
from jaxtrain.weights.folder import write_about
from jaxtrain.weights.learners import runs_as, without_dropout

Answers = tuple[list[Dialogue], np.ndarray]
"""To one item, and what each is worth, [G]."""
LEARNED = ("tokens", "targets", "segment_ids", "positions", "mask", "logprobs")
"""What rows give to the loss as they are; the last in exact mode."""
TOKEN_MEANS = ("bnpo", "dapo", "cispo")
"""Kinds whose loss is a mean over tokens; of the others it is one over answers."""


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(PracticeConfig):
    """Improve a fine-tuned model on tasks whose answers are graded (GRPO and its kin)."""

    VERSION: ClassVar[int] = 2

    tasks: tuple[str, ...]
    """Tasks to practise, by name or as .py files that define a `task`, the same that evaluate measures. Each
    asks in the chat template, and has a file to practise on beside the one that is measured."""
    shares: tuple[Positive, ...] = ()
    """How many of a round's prompts are of each task, beside the others; none: of all alike."""
    kind: Group = "grpo"
    """How tokens are weighted and ratios clipped: see `jaxtrain.align.losses.grpo`. A minibatch is one batch
    to the mean, however it is cut, so bnpo and dapo are the same here."""
    advantage: Baseline = "grpo"
    """What an answer's reward is held against: its group's mean, in standard deviations (grpo) or as it is
    (dr_grpo), or the mean of the others (rloo)."""
    lora: LoRAConfig = LoRAConfig(rank=0)
    train: TrainConfig = TrainConfig(
        optimizer=OptimizerConfig(lr=1e-5, warmup_steps=5, schedule="constant", weight_decay=0.0),
        steps=100,
        evaluate_every=50,
        checkpoint_every=25,
    )
    """A round of sampling comes every `epochs` times `minibatches` steps."""
    monitor: Adjustable[MonitorConfig] = MonitorConfig()
    prompts: Count = 32
    """Items a round."""
    group: Annotated[int, Limits(2)] = 8
    """Answers to an item, at least 2."""
    resample: int = 0
    """Times that a round is sampled again, on other items, while fewer than `prompts` of its groups have
    unequal rewards (DAPO's dynamic sampling); what then lacks is filled with groups that teach nothing."""
    exact: bool = False
    """Answers are read by the program that drew them before each step, so that the loss's log-probabilities
    are those of the draw to the last bit, and ratios begin at 1 itself. The run ends with what that took."""
    sample_rows: Operational[Count] = rollout.AT_ONCE
    """Answers that are sampled side by side, to save memory; they say the same."""
    epochs: Count = 1
    """Passes over the answers of a round."""
    minibatches: Count = 1
    """Parts of the answers, an optimizer step each."""
    clip_low: Positive = 0.2
    """How far a ratio below 1 is rewarded."""
    clip_high: Positive = 0.2
    """How far a ratio above 1 is rewarded; of cispo the largest ratio itself, such as 5."""
    beta: float = 0.0
    """Weight of the KL to the reference in the loss (k3), a token."""
    kl_weight: float = 0.0
    """Reward lost for a nat of KL of the whole answer to the reference (k1), as in RLOO."""
    importance: Literal["truncated", "masked", "none"] = "truncated"
    """How tokens are weighted that are likelier in training than in sampling, or less likely: by that ratio,
    at most `importance_cap`; or not at all where the ratio is beyond the cap either way; or all alike."""
    importance_cap: Annotated[float, Limits(1)] = 2.0
    """The largest ratio that counts."""

    def check(self) -> None:
        without_dropout(self.lora)
        self.train.need_steps()
        if self.shares and len(self.shares) != len(self.tasks):
            raise UserError(
                f"shares has {len(self.shares)} numbers for {len(self.tasks)} tasks; give one each"
            )
        if self.rewards and not any(self.rewards.values()):
            raise UserError("rewards gives every answer 0; give a grade a weight, such as exact 1.0")
        if self.kind == "cispo" and self.clip_high < 1:
            raise UserError(
                f"clip_high is {self.clip_high}; of cispo it is the largest ratio itself: give 5, say"
            )


def train_grpo(config: GRPOConfig, folder: Path) -> dict[str, Any]:
    tokenizer = weights.open(config.model).tokenizer
    model = runs_as(config.train, weights.open(config.model).config)
    sampler = config.sampler(tokenizer, model, config.sample_rows)
    sampler.exact = config.exact * (config.prompts * config.group // config.minibatches)
    shares = divided(config.prompts, config.shares or (1.0,) * len(config.tasks))
    practices = read(config, config.tasks, tokenizer, shares)
    with training(config.train, folder, partial(write_about, model, tokenizer)) as run:
        rows, parts = config.prompts * config.group, config.minibatches * config.train.microbatches
        meshes.check_rows(rows, sampler.width(), parts, model.stage_microbatches, "prompts times group")
        learner, reference = policy_learner(config, run.folder, model)
        before = measure(config, sampler, reference, practices)

        def draw(policy: Policy, number: int, lines: list[Line]) -> tuple[Rows, Line]:
            rows, values = gather(config, sampler, practices, policy, number, lines)
            rows, means = experience(config, policy, reference, rows)
            return rows, values | means

        monitor = Monitor(config.monitor)
        exact = sampler if config.exact else None
        rounds = Rounds(run, learner, draw, monitor, config.epochs, config.minibatches, exact)
        trained = rounds.train(
            partial(policy_loss, config),
            lambda policy, step: measure(config, sampler, policy.transformer, practices),
            f"-{practices[0].task.name}_{practices[0].task.metric}",
            model.flops_per_token(sampler.width()),
        )
        return {
            "kind": config.kind,
            "problems": sum(len(one.practised) for one in practices),
            "problems_too_long": sum(one.left_out for one in practices),
            "measured": sum(len(one.heldout) for one in practices),
            "steps": trained.step,
            "rounds": len(rounds.lines),
            **{f"{name}_before": value for name, value in before.items()},
            **{f"{name}_after": value for name, value in trained.heldout.items()},
            "kl": rounds.lines[-1]["kl"],
        }


def gather(
    config: GRPOConfig,
    sampler: Sampler,
    practices: Sequence[Practice],
    policy: Policy,
    number: int,
    lines: Sequence[Line] = (),
) -> tuple[Rows, Line]:
    """Dialogues of a round, rows of a group together, with their `reward` [B, T]; and what the round logs.

    Groups with unequal rewards come first; under dynamic sampling others only fill up what a task lacks.
    Grades are means over all that was sampled. lines: of the rounds before, behind whose items it asks on.
    """
    taught: list[list[Answers]] = [[] for _ in practices]
    idle: list[list[Answers]] = [[] for _ in practices]
    told: defaultdict[str, list[float]] = defaultdict(list)
    paid: list[float] = []
    lengths: list[int] = []
    seed = config.train.seed
    asked_before = sum(int(line["sampled"]) for line in lines) // (config.prompts * config.group)
    for attempt in range(config.resample + 1):
        place = asked_before + attempt
        asked = [
            [each for each in drawn(one.practised, seed, place, one.prompts) for _ in range(config.group)]
            for one in practices
        ]
        items, openings = zip(*chain(*asked), strict=True)
        played = sampler.play(policy.transformer, items, openings, key(seed, "answers", number, attempt))
        rest = iter(played)
        for one, of_task, unequal, equal in zip(practices, asked, taught, idle, strict=True):
            dialogues = list(islice(rest, len(of_task)))
            found = one.judged(of_task, dialogues)
            told["grade"] += found[one.task.metric].tolist()
            paid += found["paid"].tolist()
            for name, values_N in found.items():
                told[f"{one.task.name}_{name}"] += values_N.tolist()
            for first in range(0, len(dialogues), config.group):
                group = slice(first, first + config.group)
                worth_G = found["paid"][group]
                (unequal if np.ptp(worth_G) > 0 else equal).append((dialogues[group], worth_G))
        lengths += [sum(one.mask) for one in played]
        told["turns"] += [one.turns for one in played]
        told["tool_calls"] += [one.calls for one in played]
        told["tool_failures"] += [one.failed for one in played]
        lacking = [max(0, one.prompts - len(found)) for one, found in zip(practices, taught, strict=True)]
        if not any(lacking):
            break
    kept = [*chain(*(found[: one.prompts] for one, found in zip(practices, taught, strict=True)))]
    filled = chain(*(found[:most] for most, found in zip(lacking, idle, strict=True)))
    dialogues, worth = zip(*kept, *filled, strict=True)
    rows = sampler.rows([*chain(*dialogues)])
    values = {name: float(np.mean(found)) for name, found in told.items()}
    values |= paid_for(paid, {"grade": told["grade"], "length": lengths}, config.group)
    for one in practices:
        values |= {f"{one.task.name}_{name}": float(value) for name, value in one.task.counts().items()}
    values |= {"taught": len(kept) / config.prompts, "sampled": len(paid), **variety(sampler.ids(rows))}
    if config.exact:
        rows["logprobs"] = sampler.read(policy.transformer, rows)
    return rollout.with_reward(rows, np.concatenate(worth)), values


def experience(config: GRPOConfig, policy: Policy, reference: Transformer, rows: Rows) -> tuple[Rows, Line]:
    """What is learned from: the rows with old (and reference) log-probabilities, and weighted advantages."""
    most = len(rows["tokens"]) // (config.minibatches * config.train.microbatches)
    old_BT, _ = rollout.read_back(policy, rows, most, config.temperature)
    reference_BT = rollout.read_reference(reference, rows, most, config.temperature)
    weight_BT = importance(config, old_BT, rows)
    reward_B = rows["reward"][:, 0]
    if config.kl_weight:
        reward_B = reward_B - config.kl_weight * np.sum((old_BT - reference_BT) * rows["mask"], axis=1)
    advantage_BG = group_advantage(reward_B.reshape(-1, config.group), kind=config.advantage)
    learned = {name: rows[name] for name in LEARNED if name in rows}
    learned["old_logprobs"] = rows["sampler_logprobs"] if config.exact else old_BT
    learned["advantages"] = np.asarray(advantage_BG).reshape(-1, 1) * weight_BT
    if config.beta:
        learned["reference_logprobs"] = reference_BT
    return learned, rollout.measure(rows, old_BT, reference_BT)


def importance(config: GRPOConfig, old_BT: np.ndarray, rows: Rows) -> np.ndarray:
    """What a token weighs for the sampler not being the trainer (`losses.truncated_importance`), [B, T]."""
    mask_BT, cap = rows["mask"], config.importance_cap
    if config.importance == "none":
        return mask_BT
    weight_BT = np.asarray(truncated_importance(old_BT, rows["sampler_logprobs"], mask_BT, cap=cap))
    if config.importance == "truncated":
        return weight_BT
    apart_BT = np.abs(old_BT - rows["sampler_logprobs"])
    return np.where(apart_BT <= np.log(cap), weight_BT, 0.0).astype(np.float32)


def policy_loss(
    config: GRPOConfig, policy: Policy, batch: rollout.Batch
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Summed loss of the answers, what divides it over the whole batch, and how far the policy has moved."""
    logprob_BT, _ = policy(batch, config.temperature)
    mask_BT = batch["mask"]
    before = logprob_BT, batch["old_logprobs"], batch["advantages"], mask_BT
    loss = grpo(
        *before,
        kind=config.kind,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        ref_logp=batch.get("reference_logprobs"),
        beta=config.beta,
    )
    told = moved(*before, config.clip_low, config.clip_high - (config.kind == "cispo"))
    answers = jnp.float32(mask_BT.shape[0])
    if config.kind in TOKEN_MEANS:
        return loss, jnp.sum(mask_BT), told
    return loss, answers * config.max_new if config.kind == "dr_grpo" else answers, told


def measure(
    config: GRPOConfig, sampler: Sampler, model: Transformer, practices: Sequence[Practice]
) -> dict[str, float]:
    """Mean grades on held-out items of the likeliest answers, and of sampled ones (`…_sampled`)."""
    found = {}
    for one in practices:
        items, openings = zip(*one.heldout, strict=True)
        for greedy, ending in ((True, ""), (False, "_sampled")):
            played = sampler.play(model, items, openings, key(config.train.seed, "measure"), greedy)
            for name, values_N in one.judged(one.heldout, played).items():
                found[f"{one.task.name}_{name}{ending}"] = float(np.mean(values_N))
    return found
