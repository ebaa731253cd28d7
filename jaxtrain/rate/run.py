"""RateConfig and run(): answers sampled from a model, compared, and the comparisons exported.

The raters of this stage are simulated: a program with a stated true utility (`tasks/utility.py`) and noise.
They record their judgements through the same store as people do.
"""

import itertools
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from jaxtrain import artifact, weights
from jaxtrain.config import Stage
from jaxtrain.feed import prompts as questions
from jaxtrain.rate import people
from jaxtrain.rate.agreement import left_bias
from jaxtrain.rate.exchange import export, rankings
from jaxtrain.rate.overview import agreement
from jaxtrain.rate.people import ExportConfig
from jaxtrain.rate.sampling import Asking, answers
from jaxtrain.rate.store import Comparison, Store
from jaxtrain.runtime import distributed
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Limits, Share
from jaxtrain.runtime.progress import track
from jaxtrain.tasks.utility import simulated_ranks, utility


@dataclass(frozen=True, kw_only=True)
class RateConfig(Asking, Stage):
    """Sample answers and have simulated raters rank them."""

    model: str
    """Folder of the finetune artifact whose answers are compared."""
    prompts: Count = 600
    answers: Annotated[int, Limits(2)] = 4
    longest_prompt: Count = 48
    max_new: Count = 32
    raters: int = 3
    """Simulated raters."""
    rated_twice: int = 100
    """Questions that two raters judge, to measure their agreement."""
    noise: float = 0.2
    """Scale of the Gumbel noise on a rater's utility; their own consistency is its consequence."""
    heldout_share: Share = 0.2
    """Share of the questions whose comparisons are kept for evaluation."""


def run(config: RateConfig | ExportConfig) -> Path:
    if isinstance(config, ExportConfig):
        return people.export(config)
    inputs = {"model": config.model, "conversations": config.conversations}
    return artifact.produce(config, inputs, partial(_rate, config), others=distributed.join())


def _rate(config: RateConfig, folder: Path) -> dict[str, Any]:
    if config.raters < 2 or config.rated_twice < 1:
        raise UserError("agreement needs raters of at least 2 and rated_twice of at least 1")
    tokenizer = weights.open(config.model).tokenizer
    asked = questions.load(config.conversations, tokenizer, config.longest_prompt, part=0, parts=2)
    if len(asked) < config.prompts:
        known = f"{config.conversations} has {len(asked)} questions of at most {config.longest_prompt} tokens"
        raise UserError(f"prompts is {config.prompts}, but {known}; lower prompts or raise longest_prompt")
    asked = asked[: config.prompts]
    answered = answers(config, config.model, [prompt.messages for prompt in asked])
    if jax.process_index() > 0:
        return {}
    with Store(f"sqlite:///{folder / 'ratings.sqlite'}") as store:
        tasks = [
            store.add_task(store.add_prompt(prompt.messages), samples, config.seed + number)
            for number, (prompt, samples) in enumerate(zip(asked, answered, strict=True))
        ]
        _judge(store, config, tasks)
        rows = export(rankings(store), folder, config.heldout_share)
        return _summary(list(store.comparisons()), config) | store.counts() | rows


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
    texts = {comparison.task: comparison.completions for comparison in comparisons}
    utilities = np.array([utility(text) for shown in texts.values() for text in shown])
    lengths = [len(text) for shown in texts.values() for text in shown]
    return {
        "simulated": True,
        "noise": config.noise,
        "agreement": agreement(comparisons),
        "left_bias": left_bias([comparison.ranks for comparison in comparisons]),
        "utility": {
            "mean": utilities.mean(),
            "sd": utilities.std(ddof=1),
            "length_correlation": np.corrcoef(utilities, lengths)[0, 1],
        },
    }
