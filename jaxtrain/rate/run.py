"""RateConfig and run(): answers sampled from a model, compared, and the comparisons exported.

The raters of this stage are simulated: a program with a stated true utility (`tasks/utility.py`) and noise.
They record their judgements through the same store as people do.
"""

import itertools
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrain import artifact
from jaxtrain.feed import prompts as questions
from jaxtrain.model import store as models
from jaxtrain.model.generate import sample
from jaxtrain.rate.agreement import krippendorff_alpha, left_bias, pairwise_agreement
from jaxtrain.rate.store import Comparison, Sample, Store, export
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.progress import track
from jaxtrain.tasks.utility import simulated_ranks, utility
from jaxtrain.tokenize.tokenizer import Tokenizer

SAMPLED_TOGETHER = 256
"""Answers sampled in one batch."""


@dataclass(frozen=True, kw_only=True)
class RateConfig:
    """Sample answers and have simulated raters rank them."""

    model: str
    """Folder of the finetune artifact whose answers are compared."""
    conversations: str
    """Folder of the clean artifact whose questions are asked."""
    out: str
    """Folder to write."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    prompts: int = 600
    """Questions asked."""
    answers: int = 4
    """Answers a question, ranked together."""
    longest_prompt: int = 48
    """Tokens; longer questions are not asked."""
    max_new: int = 32
    """Tokens of an answer at most."""
    raters: int = 3
    """Simulated raters."""
    rated_twice: int = 100
    """Questions that two raters judge, to measure their agreement."""
    noise: float = 0.2
    """Scale of the Gumbel noise on a rater's utility; their own consistency is its consequence."""
    heldout_share: float = 0.2
    """Share of the questions whose comparisons are kept for evaluation."""
    seed: int = 0
    """Of answers, display order and noise."""


configs: tuple[type, ...] = (RateConfig,)


def run(config: RateConfig) -> Path:
    return artifact.produce(
        config, {"model": config.model, "conversations": config.conversations}, partial(_rate, config)
    )


def _rate(config: RateConfig, folder: Path) -> dict[str, Any]:
    if config.raters < 2 or config.rated_twice < 1:
        raise UserError("agreement needs raters of at least 2 and rated_twice of at least 1")
    tokenizer = Tokenizer.load(Path(config.model) / "tokenizer")
    asked = questions.load(config.conversations, tokenizer, config.longest_prompt, part=0, parts=2)
    if len(asked) < config.prompts:
        raise UserError(
            f"prompts is {config.prompts}, but {config.conversations} has {len(asked)} questions of at most "
            f"{config.longest_prompt} tokens; lower prompts or raise longest_prompt"
        )
    asked = asked[: config.prompts]
    with jax.set_mesh(meshes.make(config.mesh)):
        answers = _answers(config, tokenizer, asked)
    with Store(f"sqlite:///{folder / 'ratings.sqlite'}") as store:
        tasks = _add_tasks(store, config, tokenizer, asked, answers)
        _judge(store, config, tasks)
        rows = export(store, folder / "train.parquet", folder / "heldout.parquet", config.heldout_share)
        return _summary(list(store.comparisons()), config) | store.counts() | rows


def _answers(config: RateConfig, tokenizer: Tokenizer, asked: list[questions.Prompt]) -> list[list[int]]:
    """Ids of every answer, `config.answers` a prompt, the stop token in them where it came."""
    model = models.load(config.model)
    rows = [prompt.ids for prompt in asked for _ in range(config.answers)]
    found: list[list[int]] = []
    batches = range(0, len(rows), SAMPLED_TOGETHER)
    for first in track(batches, "sampling answers"):
        batch = rows[first : first + SAMPLED_TOGETHER]
        full = batch + [batch[-1]] * (SAMPLED_TOGETHER - len(batch))  # one shape, one compilation
        ids = sample(
            model,
            full,
            seed=config.seed + first,
            max_new=config.max_new,
            stop=tokenizer.special["<|end|>"],
            pad=tokenizer.pad,
            prompt_length=config.longest_prompt,
        )
        found += ids[: len(batch)]
    return found


def _add_tasks(
    store: Store,
    config: RateConfig,
    tokenizer: Tokenizer,
    asked: list[questions.Prompt],
    answers: list[list[int]],
) -> list[int]:
    stop = tokenizer.special["<|end|>"]
    sampling = {"temperature": 1.0, "max_new": config.max_new, "seed": config.seed}
    tasks = []
    for number, prompt in enumerate(asked):
        ids = answers[number * config.answers : (number + 1) * config.answers]
        samples = [
            Sample(text=tokenizer.decode([i for i in answer if i != stop]), token_ids=answer)
            for answer in ids
        ]
        tasks.append(
            store.add_task(
                store.add_prompt(prompt.messages), samples, config.model, sampling, config.seed + number
            )
        )
    return tasks


def _judge(store: Store, config: RateConfig, tasks: list[int]) -> None:
    """Simulated raters take turns until every task is judged, the first `rated_twice` of them twice."""
    raters = [store.add_rater(f"simulated rater {n + 1}", simulated=True) for n in range(config.raters)]
    rng = np.random.default_rng(config.seed)
    clock = itertools.count()
    wanted = len(tasks) + min(config.rated_twice, len(tasks))
    for turn in track(range(wanted), "simulated raters"):
        rater = raters[turn % len(raters)]
        task = store.next_task(rater, now=next(clock), overlap=1 if turn < len(tasks) else 2)
        assert task is not None, "there are as many turns as judgements wanted"
        ranks = simulated_ranks(np.array([utility(text) for text in task.completions]), config.noise, rng)
        store.judge(task.task, rater, ranks.tolist(), now=next(clock))


def _summary(comparisons: list[Comparison], config: RateConfig) -> dict[str, Any]:
    by_task: dict[int, list[Comparison]] = {}
    for comparison in comparisons:
        by_task.setdefault(comparison.task, []).append(comparison)
    share, pairs = pairwise_agreement([[c.ranks for c in task] for task in by_task.values()])
    names = sorted({comparison.rater for comparison in comparisons})
    ratings = np.full((len(names), len(by_task) * config.answers), np.nan)
    for at, task in enumerate(by_task.values()):
        for comparison in task:
            ratings[names.index(comparison.rater), at * config.answers : (at + 1) * config.answers] = (
                comparison.ranks
            )
    first, interval, untied = left_bias([comparison.ranks for comparison in comparisons])
    texts = [text for task in by_task.values() for text in task[0].completions]
    utilities = np.array([utility(text) for text in texts])
    return {
        "simulated": True,
        "noise": config.noise,
        "agreement": {"pairwise": share, "pairs": pairs, "krippendorff_alpha": krippendorff_alpha(ratings)},
        "left_bias": {"share": first, "low": interval[0], "high": interval[1], "pairs": untied},
        "utility": {
            "mean": utilities.mean(),
            "sd": utilities.std(ddof=1),
            "length_correlation": np.corrcoef(utilities, [len(text) for text in texts])[0, 1],
        },
    }
