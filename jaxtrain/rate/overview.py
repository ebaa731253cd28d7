"""What the administrator sees: who has judged how much and how well, and which checkpoint leads."""

import statistics
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from jaxtrain.rate.agreement import krippendorff_alpha, left_bias, order, pairwise_agreement
from jaxtrain.rate.leaderboard import Standing, leaderboard
from jaxtrain.rate.store import Comparison, Store


@dataclass(frozen=True, kw_only=True)
class RaterLine:
    """One rater."""

    name: str
    simulated: bool
    judgements: int
    seconds: float | None
    """Median time of a judgement; None for programs."""
    gold: float | None
    """Share of the known pairs of gold tasks that they ordered right; None where they have seen none."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All that the administrator's page and a rate artifact's counts say of a store."""

    counts: dict[str, int]
    simulated: bool
    """Whether any of the raters is a program."""
    raters: list[RaterLine]
    agreement: dict[str, float]
    """As `agreement` gives it."""
    left: dict[str, float]
    """As `left_bias` gives it."""
    standings: list[Standing]


def overview(store: Store) -> Overview:
    comparisons = list(store.comparisons())
    plain = [comparison for comparison in comparisons if comparison.gold is None]
    by_rater: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        by_rater[comparison.rater].append(comparison)
    return Overview(
        counts=store.counts(),
        simulated=any(comparison.simulated for comparison in comparisons),
        raters=[_line(name, by_rater[name]) for name in sorted(by_rater)],
        agreement=agreement(plain),
        left=left_bias([comparison.ranks for comparison in plain]),
        standings=leaderboard(plain),
    )


def agreement(comparisons: list[Comparison]) -> dict[str, float]:
    """`pairwise` agreement over so many `pairs`, nan where there are none, and `krippendorff_alpha`, ordinal.

    Tasks may have any number of answers.
    """
    by_task: dict[int, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        by_task[comparison.task].append(comparison)
    share, pairs = pairwise_agreement([[c.ranks for c in task] for task in by_task.values()])
    names = sorted({comparison.rater for comparison in comparisons})
    parts = []
    for task in by_task.values():
        ranks = np.full((len(names), len(task[0].ranks)), np.nan)
        for comparison in task:
            ranks[names.index(comparison.rater)] = comparison.ranks
        parts.append(ranks)
    alpha = krippendorff_alpha(np.concatenate(parts, axis=1)) if parts else float("nan")
    return {"pairwise": share, "pairs": pairs, "krippendorff_alpha": alpha}


def _line(name: str, judged: list[Comparison]) -> RaterLine:
    times = [comparison.milliseconds / 1000 for comparison in judged if comparison.milliseconds]
    right = [grade for comparison in judged for grade in _gold_grades(comparison)]
    return RaterLine(
        name=name,
        simulated=judged[0].simulated,
        judgements=len(judged),
        seconds=statistics.median(times) if times else None,
        gold=statistics.mean(right) if right else None,
    )


def _gold_grades(comparison: Comparison) -> list[float]:
    """1 for every pair whose known order the rater gave, 0 for the others; ties in the gold say nothing."""
    if comparison.gold is None:
        return []
    gold, given = order(comparison.gold), order(comparison.ranks)
    return (gold == given)[gold != 0].astype(float).tolist()
