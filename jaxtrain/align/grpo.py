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
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import weights
from jaxtrain.align import rollout
from jaxtrain.align.adapters import Learner
from jaxtrain.align.losses import Baseline, Group, group_advantage, grpo, truncated_importance
from jaxtrain.align.monitor import Monitor, MonitorConfig, distinct
from jaxtrain.align.rollout import Policy, Sampler, drawn, policy_of
from jaxtrain.align.rounds import Line, Rounds, Rows, improve
from jaxtrain.feed.shuffle import key
from jaxtrain.fields import Adjustable, Operational
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.progress import say
from jaxtrain.runtime.trackers import Tracker
from jaxtrain.tasks import sandbox
from jaxtrain.tasks.verifiable import GRADERS, Problem, check_tests, read_problems
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.weights import folder as store

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
    rewards: dict[str, float] = field(default_factory=lambda: {"exact": 1.0})
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
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            lr=1e-5, warmup_steps=5, schedule="constant", weight_decay=0.0
        )
    )
    mesh: Operational[MeshConfig] = field(default_factory=MeshConfig)
    monitor: Adjustable[MonitorConfig] = field(default_factory=MonitorConfig)
    updates: Adjustable[int] = 100
    """Rounds of sampling and learning."""
    prompts: int = 32
    """Problems a round."""
    group: int = 8
    """Answers to a problem, at least 2."""
    resample: int = 0
    """Times that a round is sampled again, on other problems, while fewer than `prompts` of its groups have
    unequal rewards (DAPO's dynamic sampling); what then lacks is filled with groups that teach nothing."""
    epochs: int = 1
    """Passes over the answers of a round."""
    minibatches: int = 1
    """Parts of the answers, an optimizer step each."""
    microbatches: int = 1
    """Parts that a minibatch is cut into to save memory; the step is the same."""
    longest_prompt: int = 64
    """Tokens; longer problems are left out, and counted."""
    max_new: int = 64
    """Tokens of an answer at most."""
    temperature: float = 1.0
    """Of sampling, and of the log-probabilities that are learned from."""
    clip_low: float = 0.2
    """How far a ratio below 1 is rewarded."""
    clip_high: float = 0.2
    """How far a ratio above 1 is rewarded; of cispo the largest ratio itself, such as 5."""
    beta: float = 0.0
    """Weight of the KL to the reference in the loss (k3), a token."""
    kl_weight: float = 0.0
    """Reward lost for a nat of KL of the whole answer to the reference (k1), as in RLOO."""
    importance_cap: float = 2.0
    """Largest weight of a token for being likelier in training than in sampling; 0: tokens weigh the same."""
    measured: int = 256
    """Held-out problems answered, greedily and sampled, to measure the grades."""
    measure_every: Operational[int] = 50
    """Rounds between measurements; also before the first and after the last."""
    checkpoint_every: Operational[int] = 25
    """Rounds between checkpoints."""
    trackers: Operational[tuple[Tracker, ...]] = ("tensorboard",)
    """Where the numbers are shown beside `metrics.jsonl`: tensorboard, wandb, mlflow, trackio."""
    seed: int = 0
    """Of problems and answers."""


@dataclass(frozen=True)
class Asked:
    """A problem with the ids of its prompt."""

    problem: Problem
    ids: list[int]


def train_grpo(config: GRPOConfig, folder: Path) -> dict[str, Any]:
    with jax.set_mesh(meshes.make(config.mesh)):
        return _train(config, weights.open(config.model).tokenizer, folder)


def _train(config: GRPOConfig, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    rounds = _rounds(config)
    model_config = store.read_config(config.model)
    store.write_config(folder, model_config)
    tokenizer.save_in(folder)
    practised, left_out = read(config.problems, config, tokenizer)
    heldout, _ = read(config.heldout, config, tokenizer)
    heldout = heldout[: config.measured]
    say(f"align: {len(practised)} problems to practise ({left_out} too long), {len(heldout)} to measure on")
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
    reference = learner.base or store.load(config.model)
    optimizer = optimizers.make(config.optimizer, config.updates * rounds.steps)
    before = measure(config, sampler, reference, heldout)

    def play(policy: Policy, update: int, _: list[Line]) -> tuple[Rows, Line]:
        found: Line = {}
        if update and update % config.measure_every == 0:
            found = {
                f"heldout_{k}": v for k, v in measure(config, sampler, policy.transformer, heldout).items()
            }
        rows, values = gather(config, sampler, practised, policy, update)
        rows, means = experience(config, policy, reference, rows)
        return rows, values | means | found

    policy, lines = improve(
        folder,
        rounds,
        learner=learner,
        optimizer=optimizer,
        loss=partial(policy_loss, config),
        play=play,
        monitor=Monitor(config.monitor),
        trackers=config.trackers,
    )
    after = measure(config, sampler, policy.transformer, heldout)
    return {
        "kind": config.kind,
        "updates": len(lines),
        "problems": len(practised),
        "problems_too_long": left_out,
        "measured": len(heldout),
        **{f"{name}_before": value for name, value in before.items()},
        **{f"{name}_after": value for name, value in after.items()},
        "kl": lines[-1]["kl"],
    }


def _rounds(config: GRPOConfig) -> Rounds:
    """When the loop does what; UserError for what cannot be."""
    rounds = Rounds(
        updates=config.updates,
        epochs=config.epochs,
        minibatches=config.minibatches,
        microbatches=config.microbatches,
        checkpoint_every=config.checkpoint_every,
        seed=config.seed,
        clip=(config.clip_low, config.clip_high - (config.kind == "cispo")),
        temperature=config.temperature,
    )
    rounds.check(config.prompts * config.group, "prompts times group")
    if unknown := sorted(set(config.rewards) - set(GRADERS)):
        raise UserError(f"rewards has no grader {unknown[0]!r}; there are {', '.join(GRADERS)}")
    if "code" in config.rewards:
        sandbox.run("")  # where no program may be run, that is said before any training
    if config.group < 2 or not config.rewards:
        raise UserError(
            "an answer is held against the others of its group: group is at least 2, rewards is not empty"
        )
    if config.kind == "cispo" and config.clip_high < 1:
        raise UserError(
            f"clip_high is {config.clip_high}; of cispo it is the largest ratio itself: give 5, say"
        )
    if config.temperature <= 0:
        raise UserError("temperature is 0: all answers of a group would be the same; give 1")
    return rounds


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
        first = (update * (config.resample + 1) + attempt) * config.prompts
        asked = [problems[n] for n in drawn(len(problems), config.seed, first, config.prompts)]
        each = [one for one in asked for _ in range(config.group)]
        seed = key(config.seed, "answers", update, attempt)
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
        "distinct_1": distinct(texts, 1),
        "distinct_2": distinct(texts, 2),
    }


def grade(config: GRPOConfig, texts: Sequence[str], asked: Sequence[Asked]) -> list[dict[str, float]]:
    """The grades of each answer."""

    def graded(text: str, one: Asked) -> dict[str, float]:
        return {name: GRADERS[name](text, one.problem.answer) for name in config.rewards}

    if "code" not in config.rewards:
        return list(map(graded, texts, asked))
    with ThreadPoolExecutor(os.cpu_count()) as side_by_side:  # each waits for a process of its own
        return list(side_by_side.map(graded, texts, asked))


def experience(config: GRPOConfig, policy: Policy, reference: Transformer, rows: Rows) -> tuple[Rows, Line]:
    """What is learned from: the rows with old (and reference) log-probabilities, and weighted advantages."""
    batch = meshes.put_batch(rows, jax.sharding.get_mesh())
    old_BT, reference_BT, weight_BT, means = _logprobs(
        policy, reference, batch, config.temperature, config.importance_cap
    )
    reward_B = rows["reward"][:, 0]
    if config.kl_weight:
        apart_B = np.sum((np.asarray(old_BT) - np.asarray(reference_BT)) * rows["mask"], axis=1)
        reward_B = reward_B - config.kl_weight * apart_B
    advantage_BG = group_advantage(reward_B.reshape(-1, config.group), kind=config.advantage)
    learned = {name: rows[name] for name in ("tokens", "targets", "segment_ids", "positions", "mask")}
    learned["old_logprobs"] = np.asarray(old_BT)
    learned["advantages"] = np.asarray(advantage_BG).reshape(-1, 1) * np.asarray(weight_BT)
    if config.beta:
        learned["reference_logprobs"] = np.asarray(reference_BT)
    return learned, means


@partial(jax.jit, static_argnames=("temperature", "cap"))
def _logprobs(policy: Policy, reference: Transformer, batch: rollout.Batch, temperature: float, cap: float):
    """Of policy and reference, each token's importance, and the round's means."""
    logprob_BT, _ = policy(batch, temperature)
    reference_BT = rollout.logprobs(reference, batch, temperature)
    weight_BT = batch["mask"]
    if cap:
        weight_BT = truncated_importance(logprob_BT, batch["sampler_logprobs"], batch["mask"], cap=cap)
    means = vars(rollout.measure(batch, logprob_BT, reference_BT))
    return logprob_BT, reference_BT, weight_BT, means


def policy_loss(config: GRPOConfig, policy: Policy, batch: rollout.Batch) -> tuple[jax.Array, jax.Array]:
    """Summed loss of the answers, and what it is divided by over the whole batch."""
    logprob_BT, _ = policy(batch, config.temperature)
    mask_BT = batch["mask"]
    loss = grpo(
        logprob_BT,
        batch["old_logprobs"],
        batch["advantages"],
        mask_BT,
        kind=config.kind,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        ref_logp=batch.get("reference_logprobs"),
        beta=config.beta,
        denominator=1.0,
    )
    answers = jnp.float32(mask_BT.shape[0])
    if config.kind in TOKEN_MEANS:
        return loss, jnp.sum(mask_BT)
    return loss, answers * config.max_new if config.kind == "dr_grpo" else answers


def measure(
    config: GRPOConfig, sampler: Sampler, model: Transformer, asked: Sequence[Asked]
) -> dict[str, float]:
    """Mean grades on held-out problems of the likeliest answers, and of sampled ones (`sampled_…`)."""
    size = -(-len(asked) // meshes.batch_rows()) * meshes.batch_rows()
    each = [asked[n % len(asked)] for n in range(size)]
    found = {}
    for greedy in (True, False):
        rows = sampler.answer(model, [one.ids for one in each], key(config.seed, "measure"), greedy)
        grades = grade(config, sampler.texts(rows), each)[: len(asked)]
        for name in config.rewards:
            found[name if greedy else f"sampled_{name}"] = float(np.mean([one[name] for one in grades]))
    return found
