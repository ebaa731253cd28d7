"""Losses of preferences and of reward models as pure functions of arrays.

B batch, K answers of one prompt. Each is the mean over B unless it says otherwise.
"""

import math
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

MOST_TIED = 12
"""Answers of one ranking at most, where ties are averaged over their orders: 2^K sets are summed."""

Preference = Literal["sigmoid", "sigmoid_norm", "ipo", "hinge", "robust"]


def dpo(
    chosen: jax.Array,
    rejected: jax.Array,
    ref_chosen: jax.Array,
    ref_rejected: jax.Array,
    *,
    beta: float,
    kind: Preference = "sigmoid",
    label_smoothing: float = 0.0,
    chosen_length: jax.Array | None = None,
    rejected_length: jax.Array | None = None,
) -> jax.Array:
    """Direct preference optimisation of pairs; h = (chosen − ref_chosen) − (rejected − ref_rejected).

    sigmoid       −(1 − ε) log σ(βh) − ε log σ(−βh)     Rafailov et al. 2023; ε: Mitchell 2023 (cDPO)
    robust        (−(1 − ε) log σ(βh) + ε log σ(−βh)) / (1 − 2ε)    Chowdhury et al. 2024
    hinge         max(0, 1 − βh)                        Zhao et al. 2023 (SLiC)
    ipo           (h′ − 1 / 2β)²                        Azar et al. 2023
    sigmoid_norm  as sigmoid, of h′                     Lambert et al. 2024 (Tülu 3)

    chosen, rejected, ref_chosen, ref_rejected: summed log-probabilities [B] of policy and reference.
    chosen_length, rejected_length: tokens [B]; h′ is h of log-probabilities divided by them.
    label_smoothing: ε, the share of pairs whose label is wrong; 0 ≤ ε < ½.
    Errors: ValueError for a kind that is not listed, needs lengths, or knows no ε.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing is {label_smoothing}; it is a share of wrong labels below 0.5")
    if label_smoothing and kind in ("ipo", "hinge"):
        raise ValueError(f"kind {kind!r} knows no label_smoothing; use sigmoid or robust, or leave it 0")
    first, second = chosen - ref_chosen, rejected - ref_rejected
    if kind in ("ipo", "sigmoid_norm"):
        if chosen_length is None or rejected_length is None:
            raise ValueError(f"kind {kind!r} divides by length: give chosen_length and rejected_length")
        first, second = first / chosen_length, second / rejected_length
    margin = beta * (first - second)
    right, wrong = -jax.nn.log_sigmoid(margin), -jax.nn.log_sigmoid(-margin)
    smoothed = (1 - label_smoothing) * right + label_smoothing * wrong
    kinds = {
        "sigmoid": smoothed,
        "sigmoid_norm": smoothed,
        "ipo": (first - second - 1 / (2 * jnp.float32(beta))) ** 2,
        "hinge": jax.nn.relu(1 - margin),
        "robust": ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing),
    }
    return jnp.mean(known(kinds, kind))


def simpo(chosen: jax.Array, rejected: jax.Array, *, beta: float, gamma: float) -> jax.Array:
    """Preference without a reference, the mean of −log σ(β(chosen − rejected) − γ) (Meng et al. 2024).

    chosen, rejected: log-probabilities [B], means over each answer's tokens. gamma: the margin wanted.
    """
    return jnp.mean(-jax.nn.log_sigmoid(beta * (chosen - rejected) - gamma))


def orpo(chosen: jax.Array, rejected: jax.Array, *, beta: float, nll: jax.Array | None = None) -> jax.Array:
    """Odds-ratio preference beside supervised learning (Hong et al. 2024): NLL − β log σ(log odds ratio).

    chosen, rejected: log-probabilities [B], means over each answer's tokens; odds(p) = p / (1 − p).
    beta: weight of the odds ratio. nll: the supervised loss; None: the mean of −chosen.
    """
    chosen_held, rejected_held = jnp.minimum(chosen, -1e-7), jnp.minimum(rejected, -1e-7)  # p = 1 has no odds
    ratio = (chosen_held - rejected_held) - (jax.nn.log1mexp(-chosen_held) - jax.nn.log1mexp(-rejected_held))
    supervised = jnp.mean(-chosen) if nll is None else nll
    return supervised - beta * jnp.mean(jax.nn.log_sigmoid(ratio))


def kto(
    logp: jax.Array,
    ref_logp: jax.Array,
    desirable: jax.Array,
    kl_logp: jax.Array,
    ref_kl_logp: jax.Array,
    *,
    beta: float,
) -> jax.Array:
    """Answers marked good or bad, without pairs (Ethayarajh et al. 2024); the mean of B.

    1 − σ(β(h − z)) where desirable, 1 − σ(β(z − h)) where not, h = logp − ref_logp;
    z = max(0, mean(kl_logp − ref_kl_logp)), through which no gradient flows.

    logp, ref_logp: summed log-probabilities [B]. desirable: bool [B].
    kl_logp, ref_kl_logp: the same of mismatched prompts and answers [B], an estimate of the KL.
    """
    zero = jax.lax.stop_gradient(jnp.maximum(jnp.mean(kl_logp - ref_kl_logp), 0.0))
    gain = beta * (logp - ref_logp - zero)
    return jnp.mean(1 - jax.nn.sigmoid(jnp.where(desirable, gain, -gain)))


def ranking_loss(
    scores_BK: jax.Array, ranks_BK: jax.Array, *, margin: float = 0.0, center: float = 0.0
) -> jax.Array:
    """Bradley-Terry of every pair of answers to a prompt, its mean a prompt, [B].

    −log σ(better − worse − margin) + center · (better + worse)². ranks_BK: 1 = best, equal = tie (half a win
    for each), 0 = no answer here. InstructGPT (Ouyang et al. 2022) takes all K (K - 1) / 2 pairs of a prompt
    together, so that none is overfitted. margin: score for each rank between the two (Touvron et al. 2023,
    Llama 2). center: pulls scores, which the likelihood leaves free to drift together, to mean zero
    (Eisenstein et al. 2023).
    """
    difference_BKK = scores_BK[:, :, None] - scores_BK[:, None, :]
    wins_BKK = ranks_BK[:, :, None] < ranks_BK[:, None, :]
    ties_BKK = ranks_BK[:, :, None] == ranks_BK[:, None, :]
    there_BK = ranks_BK > 0
    there_BKK = there_BK[:, :, None] & there_BK[:, None, :] & ~jnp.eye(ranks_BK.shape[1], dtype=bool)
    # each unordered pair stands twice, so a tie's half win is counted once from either side
    weight_BKK = there_BKK * (wins_BKK + 0.5 * ties_BKK)
    gap_BKK = ranks_BK[:, None, :] - ranks_BK[:, :, None]
    sum_BKK = scores_BK[:, :, None] + scores_BK[:, None, :]
    loss_BKK = -jax.nn.log_sigmoid(difference_BKK - margin * gap_BKK) + center * sum_BKK**2
    loss_BKK = loss_BKK * weight_BKK
    return jnp.sum(loss_BKK, axis=(1, 2)) / jnp.maximum(jnp.sum(weight_BKK, axis=(1, 2)), 1e-9)


def plackett_luce(scores_BK: jax.Array, ranks_BK: jax.Array) -> jax.Array:
    """Negative log-likelihood of whole rankings, −Σ (s_i − log Σ_(j not before i) e^(s_j)), the mean of B.

    Plackett 1975: the best is drawn by softmax of the scores, then the next of those that remain. Tied
    answers may have been drawn in any order: the mean over these orders, so two tied answers are half a
    win for each, as in `ranking_loss`, which this equals at K = 2.
    ranks_BK: 1 = best, equal = tie, 0 = no answer here.
    Errors: ValueError for more than 12 answers.

    Of a tie's orders only the set still to be drawn matters: the log-sum of every set of n of its m answers
    (with all answers behind them) stands in 1 / C(m, n) of the orders.
    """
    K = ranks_BK.shape[1]
    if K > MOST_TIED:
        raise ValueError(f"{K} answers are too many to average ties; give at most {MOST_TIED}")
    ranks_BK = jnp.asarray(ranks_BK)
    sets = (np.arange(1, 2**K)[:, None] >> np.arange(K)) & 1 > 0  # [N, K]: every set of answers but the empty
    size_N = sets.sum(axis=1)
    choose = np.array([[math.comb(m, n) for n in range(K + 1)] for m in range(K + 1)])
    highest_BN = jnp.max(jnp.where(sets, ranks_BK[:, None], 0), axis=2)
    lowest_BN = jnp.min(jnp.where(sets, ranks_BK[:, None], K + 1), axis=2)
    tied_BN = (highest_BN == lowest_BN) & (lowest_BN > 0)
    tie_size_BN = jnp.sum(ranks_BK[:, None] == lowest_BN[..., None], axis=2)
    remaining_BNK = sets | (ranks_BK[:, None] > highest_BN[..., None])
    safe_BNK = jnp.where(tied_BN[..., None], remaining_BNK, True)  # no log of nothing, whatever its weight
    total_BN = jax.nn.logsumexp(jnp.where(safe_BNK, scores_BK[:, None], -jnp.inf), axis=2)
    orders_BN = jnp.maximum(jnp.asarray(choose)[tie_size_BN, size_N], 1)
    drawn_B = jnp.sum(jnp.where(tied_BN, total_BN / orders_BN, 0.0), axis=1)
    return jnp.mean(drawn_B - jnp.sum(scores_BK, axis=1, where=ranks_BK > 0))


def known(kinds: Mapping[str, jax.Array], kind: str) -> jax.Array:
    """That of a kind; ValueError for one that is not there."""
    if kind not in kinds:
        raise ValueError(f"no kind {kind!r}; choose of {', '.join(kinds)}")
    return kinds[kind]
