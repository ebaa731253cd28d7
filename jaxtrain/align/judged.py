"""How well scores order comparisons: accuracy, what to hold it against, and whether confidence is right.

B comparisons, K answers of each
"""

from typing import Any

import numpy as np

from jaxtrain.align.comparisons import Comparisons
from jaxtrain.runtime.progress import say
from jaxtrain.tasks.utility import utility

BINS, RESAMPLES = 10, 10_000


def pair_grades(scores: np.ndarray, ranks_BK: np.ndarray) -> np.ndarray:
    """Of every untied pair of answers 1 where the scores order it as the rater did, ½ where they tie."""
    difference, sign = _untied(scores, ranks_BK)
    return (np.sign(difference) * sign + 1) / 2


def _untied(scores: np.ndarray, ranks_BK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every untied pair the difference of its scores, and 1 where the rater liked the first, else −1."""
    scores_BK = scores.reshape(ranks_BK.shape).astype(np.float64)
    first, second = np.triu_indices(ranks_BK.shape[1], k=1)
    sign = np.sign(ranks_BK[:, second] - ranks_BK[:, first]).ravel()
    return (scores_BK[:, first] - scores_BK[:, second]).ravel()[sign != 0], sign[sign != 0]


def _by_prompt(scores: np.ndarray, ranks_BK: np.ndarray) -> list[np.ndarray]:
    """The grades of each prompt's pairs, which hang together."""
    each = zip(scores.reshape(ranks_BK.shape), ranks_BK, strict=True)
    return [pair_grades(scores_K, ranks_K[None]) for scores_K, ranks_K in each]


def clustered_error(scores: np.ndarray, ranks_BK: np.ndarray) -> float:
    """Standard error of the accuracy, of which prompts are the unit."""
    means = np.array([grades.mean() for grades in _by_prompt(scores, ranks_BK) if len(grades)])
    return float(means.std(ddof=1) / len(means) ** 0.5)


def counts(
    kept: Comparisons, heldout: Comparisons, scores: np.ndarray, agreement: float | None
) -> dict[str, Any]:
    """What a reward model's manifest says of its scores of the held-out answers; the main of it is told."""
    grades = pair_grades(scores, heldout.ranks_BK)
    gain = gain_over(scores, length_scores(kept, heldout), heldout.ranks_BK)
    say(
        f"align: {grades.mean():.3f} of held-out pairs ordered rightly; {gain['mean']:+.3f} beside length "
        f"alone, 95 % interval [{gain['low']:+.3f}, {gain['high']:+.3f}], which "
        + ("excludes 0" if gain["excludes_zero"] else "does not exclude 0")
    )
    error, table = calibration(scores, heldout.ranks_BK)
    return {
        "simulated": kept.simulated and heldout.simulated,
        "heldout_accuracy": grades.mean(),
        "standard_error": clustered_error(scores, heldout.ranks_BK),
        **baselines(kept, heldout, agreement),
        "gain_over_length": gain,
        "calibration_error": error,
        "calibration": table,
        "pairs_train": len(_untied(kept.ranks_BK, kept.ranks_BK)[0]),
        "pairs_heldout": len(grades),
    }


def baselines(kept: Comparisons, heldout: Comparisons, agreement: float | None) -> dict[str, Any]:
    """The length alone (its sign chosen on the training comparisons), and the ceiling.

    agreement: how often two raters agreed on a pair, None where it is not known. That is the ceiling of
    people's comparisons; of simulated raters it is their true utility's accuracy on the same comparisons.
    """
    by_length = pair_grades(length_scores(kept, heldout), heldout.ranks_BK)
    found: dict[str, Any] = {"length_accuracy": by_length.mean()}
    if not heldout.simulated:
        return found | {"ceiling": agreement, "ceiling_of": "agreement of two raters"}
    utilities = np.array([utility(text) for texts in heldout.texts for text in texts])
    found["ceiling"] = pair_grades(utilities, heldout.ranks_BK).mean()
    return found | {"ceiling_of": "true utility"}


def length_scores(kept: Comparisons, heldout: Comparisons) -> np.ndarray:
    """Characters of each held-out answer, negative where the raters of `kept` liked the shorter ones."""
    of_kept, of_heldout = (
        np.array([len(text) for texts in part.texts for text in texts], float) for part in (kept, heldout)
    )
    return of_heldout if pair_grades(of_kept, kept.ranks_BK).mean() >= 0.5 else -of_heldout


def gain_over(scores: np.ndarray, others: np.ndarray, ranks_BK: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """By how much more pairs `scores` order rightly than `others` do, with a 95 % bootstrap interval.

    Comparisons are drawn again, not pairs.
    """
    both = zip(_by_prompt(scores, ranks_BK), _by_prompt(others, ranks_BK), strict=True)
    each = [ours - theirs for ours, theirs in both]
    sum_B, count_B = np.array([one.sum() for one in each]), np.array([len(one) for one in each])
    rng, means = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(each), len(each))
        means.append(sum_B[drawn].sum() / max(1, count_B[drawn].sum()))
    low, high = np.quantile(means, [0.025, 0.975])
    found = {"mean": float(sum_B.sum() / count_B.sum()), "low": float(low), "high": float(high)}
    return found | {"excludes_zero": bool(low > 0 or high < 0)}


def calibration(scores: np.ndarray, ranks_BK: np.ndarray) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error, and a row a bin: mean confidence, share ordered rightly, pairs.

    A pair's confidence is σ(|difference of scores|), ½ to 1, cut into ten bins; the error is the mean of
    |confidence − accuracy| over pairs (Guo et al. 2017).
    """
    difference, _ = _untied(scores, ranks_BK)
    confidence, right = 1 / (1 + np.exp(-np.abs(difference))), pair_grades(scores, ranks_BK)
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    rows = [
        {
            "confidence": float(confidence[bins == n].mean()),
            "accuracy": float(right[bins == n].mean()),
            "pairs": int((bins == n).sum()),
        }
        for n in np.unique(bins)
    ]
    error = sum(row["pairs"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / len(right)
    return error, rows
