"""Which checkpoint do raters like best? Bradley-Terry strengths of what wrote the answers.

C checkpoints, N judgements, R resamples of them
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxtrain.rate.store import Comparison

RESAMPLES = 400
"""Bootstrap samples of the judgements; pairs of one judgement hang together, so judgements are drawn."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A checkpoint's place."""

    checkpoint: str
    share: float
    """Expected share of wins against an average checkpoint."""
    low: float
    """2.5 % quantile of the bootstrap."""
    high: float
    """97.5 % quantile."""
    answers: int
    """Times that an answer of it was judged."""


def leaderboard(comparisons: Sequence[Comparison]) -> list[Standing]:
    """Best first; empty where no answers of different checkpoints were compared. A tie is half a win."""
    names = sorted({name for comparison in comparisons for name in comparison.checkpoints})
    wins_NCC = np.array([_wins(comparison, names) for comparison in comparisons if comparison.gold is None])
    if not wins_NCC.size or not wins_NCC.any():
        return []
    judgements = len(wins_NCC)
    even = np.full(judgements, 1 / judgements)
    drawn = np.random.default_rng(0).multinomial(judgements, even, size=RESAMPLES)
    shares = _shares(np.tensordot(drawn, wins_NCC, 1))
    low, high = np.quantile(shares, [0.025, 0.975], axis=0)
    share = _shares(wins_NCC.sum(axis=0))
    judged = [sum(comparison.checkpoints.count(name) for comparison in comparisons) for name in names]
    order = np.argsort(-share, kind="stable")
    return [
        Standing(checkpoint=names[c], share=share[c], low=low[c], high=high[c], answers=judged[c])
        for c in order
    ]


def strengths(wins_RCC: np.ndarray) -> np.ndarray:
    """Logarithms of Bradley-Terry strengths, mean 0, [..., C]: P(i beats j) = σ(strength_i − strength_j).

    wins_RCC[..., i, j]: how often i beat j. Every checkpoint has drawn once with one of strength 0, so that
    one that never lost has a finite strength. Newton's method on the concave log-likelihood.
    """
    games_RCC, won_RC = wins_RCC + wins_RCC.swapaxes(-1, -2), wins_RCC.sum(axis=-1)
    log_RC = np.zeros(won_RC.shape)
    identity_CC = np.eye(won_RC.shape[-1])
    for _ in range(100):
        expected_RCC = 1 / (1 + np.exp(log_RC[..., None, :] - log_RC[..., None]))
        drawn_RC = 1 / (1 + np.exp(-log_RC))
        slope_RC = won_RC + 0.5 - (games_RCC * expected_RCC).sum(axis=-1) - drawn_RC
        weight_RCC = games_RCC * expected_RCC * (1 - expected_RCC)
        bend_RC = weight_RCC.sum(axis=-1) + drawn_RC * (1 - drawn_RC)
        step_RC = np.linalg.solve(bend_RC[..., None] * identity_CC - weight_RCC, slope_RC[..., None])[..., 0]
        log_RC = log_RC + np.clip(step_RC, -1, 1)  # far from the top the parabola overshoots
        if np.abs(step_RC).max() < 1e-10:
            break
    return log_RC - log_RC.mean(axis=-1, keepdims=True)


def _shares(wins_RCC: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-strengths(wins_RCC)))


def _wins(comparison: Comparison, names: list[str]) -> np.ndarray:
    """How often an answer of checkpoint i was ranked above one of j in this judgement."""
    wins_CC, ranks_K = np.zeros((len(names), len(names))), np.array(comparison.ranks)
    at_K = np.array([names.index(name) for name in comparison.checkpoints])
    above_KK = (ranks_K[:, None] < ranks_K) + 0.5 * (ranks_K[:, None] == ranks_K)
    np.add.at(wins_CC, (at_K[:, None], at_K), above_KK)
    np.fill_diagonal(wins_CC, 0)
    return wins_CC
