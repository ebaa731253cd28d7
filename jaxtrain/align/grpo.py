"""Group-relative policy optimisation on problems whose answers a program can check.

Several answers to a problem are drawn together; each is pushed by how much better it is than the others of
its group, so there is no value model. One function with flags for the family (`losses.grpo`).

B rows = prompts · G answers of a group, T time
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import weights
from jaxtrain.align import rollout
from jaxtrain.align.heads import Policy, policy_learner
from jaxtrain.align.losses import Baseline, Group, group_advantage, grpo, moved, truncated_importance
from jaxtrain.align.monitor import Monitor, MonitorConfig, variety
from jaxtrain.align.rollout import Rows, Sampler, drawn
from jaxtrain.align.rounds import Line, Rounds
from jaxtrain.feed.shuffle import key
from jaxtrain.fields import Adjustable, Operational
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import distributed
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Limits, Positive, Signed
from jaxtrain.runtime.progress import say
from jaxtrain.tasks import sandbox
from jaxtrain.tasks.verifiable import GRADERS, Problem, check_tests, read_problems
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.context import training
from jaxtrain.train.loop import train
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.weights.folder import write_about
from jaxtrain.weights.learners import runs_as, without_dropout

TOKEN_MEANS = ("bnpo", "dapo", "cispo")
"""Kinds whose loss is a mean over tokens; of the others it is one over answers."""


@dataclass(frozen=True, kw_only=True)
class GRPOConfig:
    """Improve a fine-tuned model on problems whose answers can be checked (GRPO and its kin)."""

    VERSION: ClassVar[int] = 1

    model: str
    """Folder of the finetune artifact: the first policy and the reference."""
    problems: str
    """`.jsonl` file with a `question` and an `answer` a line, to practise on."""
    heldout: str
    """The same, to measure on."""
    out: str
    """Folder to write."""
    rewards: dict[str, Signed] = field(default_factory=lambda: {"exact": 1.0})
    """Weight of each grader's grade (0 to 1) in the reward: exact, the whole answer is right; number, its
    last number is; result, it ends in `#### ` and the right number; form, in `#### ` and any; code, the
    program that it holds passes the tests in `answer`. The program runs in a sandbox, the tests beside it in
    another: they call its functions with plain values (None, numbers, text, lists, …)."""
    instruction: str = ""
    """Put behind every question."""
    kind: Group = "grpo"
    """How tokens are weighted and ratios clipped: see `jaxtrain.align.losses.grpo`. A minibatch is one batch
    to the mean, however it is cut, so bnpo and dapo are the same here."""
    advantage: Baseline = "grpo"
    """What an answer's reward is held against: its group's mean, in standard deviations (grpo) or as it is
    (dr_grpo), or the mean of the others (rloo)."""
    lora: LoRAConfig = field(default_factory=lambda: LoRAConfig(rank=0))
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            optimizer=OptimizerConfig(lr=1e-5, warmup_steps=5, schedule="constant", weight_decay=0.0),
            steps=100,
            evaluate_every=50,
            checkpoint_every=25,
        )
    )
    """A round of sampling comes every `epochs` times `minibatches` steps."""
    monitor: Adjustable[MonitorConfig] = field(default_factory=MonitorConfig)
    prompts: Count = 32
    """Problems a round."""
    group: Annotated[int, Limits(2)] = 8
    """Answers to a problem, at least 2."""
    resample: int = 0
    """Times that a round is sampled again, on other problems, while fewer than `prompts` of its groups have
    unequal rewards (DAPO's dynamic sampling); what then lacks is filled with groups that teach nothing."""
    sample_rows: Operational[Count] = rollout.AT_ONCE
    """Answers that are sampled side by side, to save memory; they say the same."""
    epochs: Count = 1
    """Passes over the answers of a round."""
    minibatches: Count = 1
    """Parts of the answers, an optimizer step each."""
    longest_prompt: Count = 64
    """Tokens; longer problems are left out, and counted."""
    max_new: Count = 64
    """Tokens of an answer at most."""
    temperature: Positive = 1.0
    """Of sampling, and of the log-probabilities that are learned from."""
    clip_low: Positive = 0.2
    """How far a ratio below 1 is rewarded."""
    clip_high: Positive = 0.2
    """How far a ratio above 1 is rewarded; of cispo the largest ratio itself, such as 5."""
    beta: float = 0.0
    """Weight of the KL to the reference in the loss (k3), a token."""
    kl_weight: float = 0.0
    """Reward lost for a nat of KL of the whole answer to the reference (k1), as in RLOO."""
    importance_cap: float = 2.0
    """Largest weight of a token for being likelier in training than in sampling; 0: tokens weigh the same."""
    measured: Count = 256
    """Held-out problems answered, greedily and sampled, to measure the grades."""

    def check(self) -> None:
        without_dropout(self.lora)
        self.train.need_steps()
        if unknown := sorted(set(self.rewards) - set(GRADERS)):
            raise UserError(f"rewards has no grader {unknown[0]!r}; there are {', '.join(GRADERS)}")
        if not any(self.rewards.values()):
            raise UserError("rewards gives every answer 0; give a grader a weight, such as exact 1.0")
        if self.kind == "cispo" and self.clip_high < 1:
            raise UserError(
                f"clip_high is {self.clip_high}; of cispo it is the largest ratio itself: give 5, say"
            )


@dataclass(frozen=True)
class Asked:
    """A problem with the ids of its prompt."""

    problem: Problem
    ids: list[int]


def train_grpo(config: GRPOConfig, folder: Path) -> dict[str, Any]:
    if "code" in config.rewards:
        sandbox.run("")  # where no program may be run, that is said before any training
    tokenizer = weights.open(config.model).tokenizer
    model = runs_as(config.train, weights.open(config.model).config)
    sampler = Sampler(
        tokenizer, config.longest_prompt, config.max_new, config.temperature, config.sample_rows
    )
    sampler.check(model)
    practised, left_out = read(config.problems, config, tokenizer)
    heldout, _ = read(config.heldout, config, tokenizer)
    heldout = heldout[: config.measured]
    say(f"align: {len(practised)} problems to practise ({left_out} too long), {len(heldout)} to measure on")
    with training(config.train, folder, partial(write_about, model, tokenizer)) as run:
        rows, parts = config.prompts * config.group, config.minibatches * config.train.microbatches
        meshes.check_rows(rows, sampler.width(), parts, model.stage_microbatches, "prompts times group")
        learner, reference = policy_learner(config, run.folder, model)
        before = measure(config, sampler, reference, heldout)

        def draw(policy: Policy, number: int, _: list[Line]) -> tuple[Rows, Line]:
            rows, values = gather(config, sampler, practised, policy, number)
            rows, means = experience(config, policy, reference, rows)
            return rows, values | means

        rounds = Rounds(run, learner, draw, Monitor(config.monitor), config.epochs, config.minibatches)
        trained = train(
            run,
            learner,
            partial(policy_loss, config),
            rounds.feed(),
            lambda policy, step: measure(config, sampler, policy.transformer, heldout),
            watch=f"-{next(iter(config.rewards))}",
            flops_per_token=model.flops_per_token(sampler.width()),
        )
        rounds.close()
        return {
            "kind": config.kind,
            "problems": len(practised),
            "problems_too_long": left_out,
            "measured": len(heldout),
            "steps": trained.step,
            "rounds": len(rounds.lines),
            **{f"{name}_before": value for name, value in before.items()},
            **{f"{name}_after": value for name, value in trained.heldout.items()},
            "kl": rounds.lines[-1]["kl"],
        }


def read(path: str, config: GRPOConfig, tokenizer: Tokenizer) -> tuple[list[Asked], int]:
    """The problems of a file with the ids of their prompts, and how many are too long."""
    asked = []
    problems = read_problems(path)
    if "code" in config.rewards:
        check_tests(path, problems)
    for problem in problems:
        content = f"{problem.question}\n{config.instruction}" if config.instruction else problem.question
        ids = render([{"role": "user", "content": content}], tokenizer, generation_prompt=True)[0]
        if len(ids) <= config.longest_prompt:
            asked.append(Asked(problem, ids))
    if not asked:
        raise UserError(
            f"{path} has no problem of at most {config.longest_prompt} tokens; raise longest_prompt"
        )
    return asked, len(problems) - len(asked)


def gather(
    config: GRPOConfig, sampler: Sampler, problems: Sequence[Asked], policy: Policy, update: int
) -> tuple[Rows, Line]:
    """Answers of a round, rows of a group together, with their `reward` [B, T]; and their grades' means.

    Groups with unequal rewards come first; under dynamic sampling others only fill up.
    """
    taught: list[Rows] = []
    idle: list[Rows] = []
    grades: list[dict[str, float]] = []
    texts: list[list[int]] = []
    for attempt in range(config.resample + 1):
        number = update * (config.resample + 1) + attempt
        asked = drawn(problems, config.train.seed, number, config.prompts)
        each = [one for one in asked for _ in range(config.group)]
        seed = key(config.train.seed, "answers", update, attempt)
        answered = sampler.answer(policy.transformer, [one.ids for one in each], seed)
        graded = grade(config, sampler.texts(answered), each)
        reward_B = np.array([sum(config.rewards[k] * v for k, v in one.items()) for one in graded])
        rows = rollout.with_reward(answered, reward_B)
        for at in range(0, len(each), config.group):
            part = {name: values[at : at + config.group] for name, values in rows.items()}
            (taught if np.ptp(reward_B[at : at + config.group]) > 0 else idle).append(part)
        grades += graded
        texts += sampler.ids(rows)
        if len(taught) >= config.prompts:
            break
    chosen = (taught + idle)[: config.prompts]
    values = {name: float(np.mean([one[name] for one in grades])) for name in config.rewards}
    return {name: np.concatenate([part[name] for part in chosen]) for name in chosen[0]}, values | {
        "taught": min(len(taught), config.prompts) / config.prompts,
        "sampled": len(grades),
        **variety(texts),
    }


def grade(config: GRPOConfig, texts: Sequence[str], asked: Sequence[Asked]) -> list[dict[str, float]]:
    """The grades of each answer; of several processes the first alone runs programs."""

    def graded(text: str, one: Asked) -> list[float]:
        return [GRADERS[name](text, one.problem.answer) for name in config.rewards]

    found = np.zeros((len(texts), len(config.rewards)))
    if jax.process_index() == 0:
        # each program waits for a process of its own
        with ThreadPoolExecutor(os.cpu_count()) as side_by_side:
            found = np.array(list(side_by_side.map(graded, texts, asked)))
    return [dict(zip(config.rewards, row, strict=True)) for row in distributed.from_first(found).tolist()]


def experience(config: GRPOConfig, policy: Policy, reference: Transformer, rows: Rows) -> tuple[Rows, Line]:
    """What is learned from: the rows with old (and reference) log-probabilities, and weighted advantages."""
    most = len(rows["tokens"]) // (config.minibatches * config.train.microbatches)
    old_BT, _ = rollout.read_back(policy, rows, most, config.temperature)
    reference_BT = rollout.read_reference(reference, rows, most, config.temperature)
    weight_BT = rows["mask"]
    if config.importance_cap:
        weight_BT = np.asarray(
            truncated_importance(old_BT, rows["sampler_logprobs"], rows["mask"], cap=config.importance_cap)
        )
    reward_B = rows["reward"][:, 0]
    if config.kl_weight:
        reward_B = reward_B - config.kl_weight * np.sum((old_BT - reference_BT) * rows["mask"], axis=1)
    advantage_BG = group_advantage(reward_B.reshape(-1, config.group), kind=config.advantage)
    learned = {name: rows[name] for name in ("tokens", "targets", "segment_ids", "positions", "mask")}
    learned["old_logprobs"] = old_BT
    learned["advantages"] = np.asarray(advantage_BG).reshape(-1, 1) * weight_BT
    if config.beta:
        learned["reference_logprobs"] = reference_BT
    return learned, rollout.measure(rows, old_BT, reference_BT)


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
    config: GRPOConfig, sampler: Sampler, model: Transformer, asked: Sequence[Asked]
) -> dict[str, float]:
    """Mean grades on held-out problems of the likeliest answers, and of sampled ones (`sampled_…`)."""
    found = {}
    for greedy in (True, False):
        rows = sampler.answer(model, [one.ids for one in asked], key(config.train.seed, "measure"), greedy)
        grades = grade(config, sampler.texts(rows), asked)
        for name in config.rewards:
            found[name if greedy else f"sampled_{name}"] = float(np.mean([one[name] for one in grades]))
    return found
