"""Do raters agree, and does the place on the screen sway them? Bounds on what a reward model can learn."""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from jaxtrain.tasks.interval import wilson_interval


def pairwise_agreement(tasks: Iterable[Sequence[Sequence[int]]]) -> tuple[float, int]:
    """Share of answer pairs on which two raters say the same (better, worse, tie), and how many pairs.

    tasks: for each task the ranks [K] of each of its raters. Every two raters of a task are compared on every
    two answers. The share is nan where no task has two raters.
    """
    same = total = 0
    for raters in tasks:
        for one, other in combinations(raters, 2):
            agree = order(one) == order(other)
            same, total = same + int(agree.sum()), total + agree.size
    return (same / total if total else float("nan")), total


def krippendorff_alpha(ratings: np.ndarray) -> float:
    """Krippendorff's alpha, ordinal: 1 = perfect agreement, 0 = chance, below 0 = systematic disagreement.

    ratings: float [raters, units], nan where a rater did not see a unit. For ranked answers a unit is one
    answer of one task and its value the rank. Units with fewer than two ratings say nothing and are left
    aside. nan where fewer than two values remain, or all are equal: nothing varies that could agree.
    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".
    """
    ratings = np.asarray(ratings, np.float64)
    ratings = ratings[:, (~np.isnan(ratings)).sum(axis=0) > 1]
    values = np.unique(ratings[~np.isnan(ratings)])
    counts_UV = (ratings.T[:, :, None] == values).sum(axis=1).astype(np.float64)  # units, values
    raters_U = counts_UV.sum(axis=1)
    coincidences_VV = (counts_UV / (raters_U - 1)[:, None]).T @ counts_UV
    coincidences_VV -= np.diag((counts_UV / (raters_U - 1)[:, None]).sum(axis=0))  # not with oneself
    totals_V = coincidences_VV.sum(axis=0)
    # a value stands at the middle of the ratings that share it, counted from the lowest
    places_V = np.cumsum(totals_V) - totals_V / 2
    distance_VV = (places_V[:, None] - places_V) ** 2
    by_chance_VV = np.outer(totals_V, totals_V) * distance_VV
    expected = by_chance_VV.sum() / (totals_V.sum() - 1) if len(values) > 1 else 0.0
    return 1 - float((coincidences_VV * distance_VV).sum() / expected) if expected else float("nan")


def left_bias(rankings: Iterable[Sequence[int]]) -> dict[str, float]:
    """`share` of untied `pairs` won by the answer displayed first, its 95 % Wilson interval `low` to `high`.

    rankings: ranks [K] in display order, one a judgement. Display orders are random, so ½ inside the interval
    means that no bias shows. Pairs of one judgement of K > 2 answers hang together: they count for as many
    independent pairs as explain the spread between judgements (Kish's design effect).
    """
    signs = [order(ranks) for ranks in rankings]
    wins = np.array([(sign < 0).sum() for sign in signs])
    untied = np.array([(sign != 0).sum() for sign in signs])
    pairs = int(untied.sum())
    share = float(wins.sum() / pairs) if pairs else float("nan")
    alone = share * (1 - share) * pairs  # the variance of `wins` if every pair were judged by itself
    together = float(((wins - share * untied) ** 2).sum())
    independent = pairs / max(1.0, together / alone) if alone else pairs
    low, high = wilson_interval(share * independent, independent) if pairs else wilson_interval(0, 0)
    return {"share": share, "low": low, "high": high, "pairs": pairs}


def order(ranks: Sequence[int]) -> np.ndarray:
    """Of every pair of answers i < j: -1 where i is better, 1 where j, 0 for a tie; [K (K - 1) / 2]."""
    ranks_K = np.asarray(ranks)
    first, second = np.triu_indices(len(ranks_K), k=1)
    return np.sign(ranks_K[first] - ranks_K[second])
