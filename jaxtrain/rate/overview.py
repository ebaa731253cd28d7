"""What the administrator sees: who has judged how much and how well, and which checkpoint leads."""

import statistics
from collections import defaultdict
from typing import Any

import numpy as np

from jaxtrain.rate.agreement import krippendorff_alpha, left_bias, order, pairwise_agreement
from jaxtrain.rate.leaderboard import leaderboard
from jaxtrain.rate.store import Comparison, Store


def overview(store: Store) -> dict[str, Any]:
    """What the administrator's page shows of a store, and what a rate artifact counts.

    `counts`; whether any rater is `simulated`, a program; a row for each of the `raters`; their `agreement`;
    how often the answer on the `left` wins; `standings` of the checkpoints.
    """
    comparisons = list(store.comparisons())
    plain = [comparison for comparison in comparisons if comparison.gold is None]
    by_rater: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        by_rater[comparison.rater].append(comparison)
    return {
        "counts": store.counts(),
        "simulated": any(comparison.simulated for comparison in comparisons),
        "raters": [_row(name, by_rater[name]) for name in sorted(by_rater)],
        "agreement": agreement(plain),
        "left": left_bias([comparison.ranks for comparison in plain]),
        "standings": leaderboard(plain),
    }


def agreement(comparisons: list[Comparison]) -> dict[str, float]:
    """`pairwise` agreement over so many `pairs`, nan where there are none, and `krippendorff_alpha`, ordinal.

    Tasks may have any number of answers.
    """
    by_task: dict[int, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        by_task[comparison.task].append(comparison)
    share, pairs = pairwise_agreement([[c.ranks_by_row for c in task] for task in by_task.values()])
    names = sorted({comparison.rater for comparison in comparisons})
    parts = []
    for task in by_task.values():
        ranks = np.full((len(names), len(task[0].ranks)), np.nan)
        for comparison in task:
            ranks[names.index(comparison.rater)] = comparison.ranks_by_row
        parts.append(ranks)
    alpha = krippendorff_alpha(np.concatenate(parts, axis=1)) if parts else float("nan")
    return {"pairwise": share, "pairs": pairs, "krippendorff_alpha": alpha}


def _row(name: str, judged: list[Comparison]) -> dict[str, Any]:
    """`seconds`: median time of a judgement, None for programs. `gold`: share of the known pairs of gold
    tasks that they ordered right (ties say nothing), None where they have seen none."""
    times = [comparison.milliseconds / 1000 for comparison in judged if comparison.milliseconds]
    right: list[bool] = []
    for comparison in judged:
        if comparison.gold is not None:
            gold, given = order(comparison.gold), order(comparison.ranks)
            right += (gold == given)[gold != 0].tolist()
    return {
        "name": name,
        "simulated": judged[0].simulated,
        "judgements": len(judged),
        "seconds": statistics.median(times) if times else None,
        "gold": statistics.mean(right) if right else None,
    }
