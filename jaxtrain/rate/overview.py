"""What the administrator sees: who has judged how much and how well, and which checkpoint leads."""

import math
import statistics
from collections import Counter, defaultdict
from itertools import permutations
from typing import Any

import numpy as np

from jaxtrain.rate.agreement import krippendorff_alpha, left_bias, order, pairwise_agreement
from jaxtrain.rate.exchange import HELDOUT_SHARE, is_heldout
from jaxtrain.rate.store import Comparison, Store
from jaxtrain.tasks.interval import Z95, wilson_interval

GAINS = (0.2, 0.1, 0.05)
"""How many more of the held-out pairs a reward model might order rightly than the length of answers does."""
Z80 = 0.8416212335729143  # standard normal, 80 %


def overview(store: Store) -> dict[str, Any]:
    """What the administrator's page shows of a store, and what a rate artifact counts.

    `counts`; whether any rater is `simulated`, a program; a row for each of the `raters`; their `agreement`;
    how often the answer on the `left` wins; how far `length` decides; `standings` of the checkpoints.
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
        "length": beside_length(plain),
        "standings": standings(plain),
    }


def beside_length(comparisons: list[Comparison]) -> dict[str, Any]:
    """How often the longer answer wins, and when a reward model can be seen to be better than that.

    `share` of `pairs`, its 95 % interval `low` to `high`; pairs `heldout` by an export; a row a `gain` with
    the held-out pairs that are `enough`: four in five times the gain's 95 % interval leaves 0 out; and the
    judgements that are `more` for them. Assumed: the two err independently, and each pair counts by itself.
    """
    wins = pairs = heldout = 0
    for comparison in comparisons:
        better, longer = order(comparison.ranks), order([-len(text) for text in comparison.completions])
        decided = (better != 0) & (longer != 0)
        wins, pairs = wins + int((better == longer)[decided].sum()), pairs + int(decided.sum())
        heldout += int(decided.sum()) * is_heldout(comparison.prompt)
    share = wins / pairs if pairs else 0.5
    rows = []
    for gain in GAINS:
        right = min(1.0, share + gain)
        apart = share * (1 - right) + right * (1 - share)  # pairs on which one of the two alone is right
        enough = math.ceil(((Z95 + Z80) / gain) ** 2 * (apart - gain**2))
        judgements = (enough - heldout) / HELDOUT_SHARE * (len(comparisons) / pairs if pairs else 1)
        rows.append({"gain": gain, "enough": enough, "more": max(0, math.ceil(judgements))})
    low, high = wilson_interval(wins, pairs)
    return {"share": share, "low": low, "high": high, "pairs": pairs, "heldout": heldout, "gains": rows}


def standings(comparisons: list[Comparison]) -> list[dict[str, Any]]:
    """A row a `checkpoint`, the best first; none where no answers of several were compared.

    The `share` of pairs with answers of others that it wins (a tie is half a win), its 95 % interval `low` to
    `high`, and how many `answers` of it were judged. Pairs of one judgement hang together: they count as one.
    """
    won, met, answers, judgements = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for comparison in comparisons:
        answers.update(comparison.checkpoints)
        ranked = list(zip(comparison.checkpoints, comparison.ranks, strict=True))
        pairs = [(one, other) for one, other in permutations(ranked, 2) if one[0] != other[0]]
        judgements.update({name for (name, _), _ in pairs})
        for (name, rank), (_, behind) in pairs:
            met[name] += 1
            won[name] += 1.0 if rank < behind else 0.5 * (rank == behind)
    rows = []
    for name, count in judgements.items():
        share = won[name] / met[name]
        low, high = wilson_interval(share * count, count)
        row = {"checkpoint": name, "share": share, "low": low, "high": high}
        rows.append(row | {"answers": answers[name]})
    return sorted(rows, key=lambda row: -row["share"])


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
