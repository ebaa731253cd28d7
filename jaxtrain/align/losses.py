"""Losses of alignment as pure functions of arrays; the model is the caller's.

B batch, G answers of a group, T time, V vocab. Masks are 1 at tokens that the policy sampled. A loss of
tokens is a sum; the caller divides it by a count of the global batch, so that parts add up to the whole.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from optax.losses import kl_divergence_with_log_targets as divergence_from

from jaxtrain.align.preference_losses import known

FARTHEST = 20.0
"""Log-ratios are held to ±20 before they are exponentiated; e^20 is far beyond any clip."""

Estimator = Literal["k1", "k2", "k3"]
Baseline = Literal["grpo", "dr_grpo", "rloo"]
Group = Literal["grpo", "bnpo", "dapo", "dr_grpo", "gspo", "cispo"]


def gae(
    reward_BT: jax.Array, value_BT: jax.Array, mask_BT: jax.Array, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[jax.Array, jax.Array]:
    """GAE (Schulman et al. 2016): advantages Σ (γλ)^l δ_(t+l), and returns = advantage + value, [B, T].

    δ_t = r_t + γ V_(t+1) − V_t; behind the last token V = 0. Masked-out tokens are passed through.
    """

    def back(after: tuple[jax.Array, jax.Array], now: tuple[jax.Array, jax.Array, jax.Array]):
        next_value_B, next_advantage_B = after
        reward_B, value_B, mask_B = now
        delta_B = reward_B + gamma * next_value_B - value_B
        advantage_B = delta_B + gamma * lam * next_advantage_B
        kept = (
            jnp.where(mask_B > 0, value_B, next_value_B),
            jnp.where(mask_B > 0, advantage_B, next_advantage_B),
        )
        return kept, jnp.where(mask_B > 0, advantage_B, 0.0)

    value_BT = jnp.asarray(value_BT, jnp.float32)
    reward_BT = jnp.asarray(reward_BT, jnp.float32)  # never an integer's: fractions of a reward count
    zeros_B = jnp.zeros_like(reward_BT[:, 0])
    columns = (reward_BT.T, value_BT.T, jnp.asarray(mask_BT).T)
    _, advantage_TB = jax.lax.scan(back, (zeros_B, zeros_B), columns, reverse=True)
    advantage_BT = advantage_TB.T
    return advantage_BT, jnp.where(mask_BT > 0, advantage_BT + value_BT, 0.0)


def whiten(x_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Mean 0 and (Bessel's) variance 1 over the mask, 0 outside."""
    count = jnp.sum(mask_BT)
    mean = jnp.sum(x_BT, where=mask_BT > 0) / count
    variance = jnp.sum((x_BT - mean) ** 2, where=mask_BT > 0) / jnp.maximum(count - 1, 1)
    return jnp.where(mask_BT > 0, (x_BT - mean) * jax.lax.rsqrt(variance + 1e-8), 0.0)


def ppo_policy(
    logp: jax.Array,
    old_logp: jax.Array,
    advantage: jax.Array,
    mask: jax.Array,
    *,
    clip: float = 0.2,
    dual_clip: float = 0.0,
) -> jax.Array:
    """max(−A R, −A clip(R, 1 ± clip)) a token, R = e^(logp − old_logp); all [B, T] (Schulman et al. 2017).

    dual_clip: where A < 0 a token's loss is at most −A · dual_clip, above 1 (Ye et al. 2020); 0: any.
    """
    ratio = _ratio(logp, old_logp)
    loss = jnp.maximum(-advantage * ratio, -advantage * jnp.clip(ratio, 1 - clip, 1 + clip))
    if dual_clip:
        loss = jnp.where(advantage < 0, jnp.minimum(loss, -advantage * dual_clip), loss)
    return jnp.sum(loss, where=mask > 0)


def moved(
    logp: jax.Array, old_logp: jax.Array, advantage: jax.Array, mask: jax.Array, clip: float, clip_high: float
) -> dict[str, jax.Array]:
    """How far the policy is from the one that sampled, float32 [2] each, a sum over tokens and their number.

    `ratio`; `step_kl` (k3); `clip_fraction`: tokens whose objective is the clipped one, which teach nothing
    more. clip, clip_high: how far below and above 1 a ratio counts.
    """
    logp = jax.lax.stop_gradient(logp)
    ratio = _ratio(logp, old_logp)
    clipped = advantage * jnp.clip(ratio, 1 - clip, 1 + clip_high) < advantage * ratio
    found = {"ratio": ratio, "step_kl": kl(old_logp, logp, "k3"), "clip_fraction": clipped}
    count = jnp.sum(mask)
    return {name: jnp.stack([jnp.sum(x, where=mask > 0), count]) for name, x in found.items()}


def ppo_value(
    value: jax.Array, old_value: jax.Array, return_: jax.Array, mask: jax.Array, *, clip: float = 0.2
) -> jax.Array:
    """½ max((V − R)², (clip(V, V_old ± clip) − R)²) a token: values that moved too far are held back."""
    held = old_value + jnp.clip(value - old_value, -clip, clip)
    error = jnp.maximum((value - return_) ** 2, (held - return_) ** 2)
    return 0.5 * jnp.sum(error, where=mask > 0)


def kl(logp: jax.Array, ref_logp: jax.Array, kind: Estimator = "k1") -> jax.Array:
    """Estimates of KL(policy ‖ reference) from tokens that the policy sampled, d = logp − ref_logp.

    k1: d, unbiased; its gradient as a loss is zero on average, so it belongs in the reward. k2: d² / 2,
    whose gradient is right. k3: e^(−d) − 1 + d, unbiased and never negative. Schulman 2020,
    "Approximating KL divergence".
    """
    difference = logp - ref_logp
    above = jnp.exp(-jnp.clip(difference, -FARTHEST, FARTHEST)) - 1 + difference
    return known({"k1": difference, "k2": difference**2 / 2, "k3": above}, kind)


def group_advantage(reward_BG: jax.Array, *, kind: Baseline = "grpo") -> jax.Array:
    """How much better each of the G answers to a prompt is than the others, [B, G].

    grpo     (r − mean) / (σ + 1e-4), σ with Bessel's correction     Shao et al. 2024
    dr_grpo  r − mean                                                Liu et al. 2025
    rloo     r − mean of the others                                  Ahmadian et al. 2024

    A reward that is NaN (no reward) is left out of its group and has advantage 0; a group of equal rewards,
    or of one, has advantages of exactly 0.
    """
    reward_BG = jnp.asarray(reward_BG, jnp.float32)
    there_BG = ~jnp.isnan(reward_BG)
    known_BG = jnp.where(there_BG, reward_BG, 0.0)
    count_B1 = jnp.sum(there_BG, axis=1, keepdims=True)
    centered_BG = known_BG - jnp.sum(known_BG, axis=1, keepdims=True) / jnp.maximum(count_B1, 1)
    others_B1 = jnp.maximum(count_B1 - 1, 1)
    squares_B1 = jnp.sum(centered_BG**2, axis=1, keepdims=True, where=there_BG)
    in_sd_BG = centered_BG / (jnp.sqrt(squares_B1 / others_B1) + 1e-4)
    kinds = {"grpo": in_sd_BG, "dr_grpo": centered_BG, "rloo": centered_BG * count_B1 / others_B1}
    advantage_BG = known(kinds, kind)
    most_B1 = jnp.max(reward_BG, axis=1, keepdims=True, where=there_BG, initial=-jnp.inf)
    least_B1 = jnp.min(reward_BG, axis=1, keepdims=True, where=there_BG, initial=jnp.inf)
    return jnp.where(there_BG & (most_B1 > least_B1), advantage_BG, 0.0)


def grpo(
    logp: jax.Array,
    old_logp: jax.Array,
    advantage_B: jax.Array,
    mask: jax.Array,
    *,
    kind: Group = "grpo",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ref_logp: jax.Array | None = None,
    beta: float = 0.0,
) -> jax.Array:
    """Group-relative policy optimisation: −min(A R, A clip(R, 1 − clip_low, 1 + clip_high)) + β · k3 a token.

    logp, old_logp, ref_logp, mask: [B, T]; R = e^(logp − old_logp). advantage_B: [B], or [B, T] where tokens
    are weighted (`truncated_importance`).
    What is summed, and what the caller divides it by:
    grpo     the mean over each answer's tokens; answers                    Shao et al. 2024
    bnpo     tokens; tokens of the batch                                    Xiao et al. 2025
    dapo     tokens; tokens of the global batch                             Yu et al. 2025
    dr_grpo  tokens; answers × the longest answer that may be               Liu et al. 2025
    gspo     as grpo, R = e^(mean of the answer's log-ratios); answers      Zheng et al. 2025
    cispo    tokens, −min(R, clip_high) A logp, no gradient through R       MiniMax 2025
    """
    advantage = advantage_B[:, None] if advantage_B.ndim == 1 else advantage_B
    tokens_B1 = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
    mean_B1 = jnp.sum(logp - old_logp, axis=1, keepdims=True, where=mask > 0) / tokens_B1
    of_answers = jnp.exp(jnp.clip(mean_B1, -FARTHEST, FARTHEST)) * jnp.ones_like(logp)
    ratios = dict.fromkeys(get_args(Group), _ratio(logp, old_logp)) | {"gspo": of_answers}
    ratio = known(ratios, kind)
    if kind == "cispo":
        loss = -jax.lax.stop_gradient(jnp.minimum(ratio, clip_high)) * advantage * logp
    else:
        loss = -jnp.minimum(advantage * ratio, advantage * jnp.clip(ratio, 1 - clip_low, 1 + clip_high))
    if ref_logp is not None:
        loss = loss + beta * kl(logp, ref_logp, "k3")
    return jnp.sum(loss / tokens_B1 if kind in ("grpo", "gspo") else loss, where=mask > 0)


def truncated_importance(
    logp: jax.Array, sampler_logp: jax.Array, mask: jax.Array, *, cap: float = 2.0
) -> jax.Array:
    """min(p / p_sampler, cap) a token, without a gradient: corrects a sampler that is not the trainer.

    logp: the trainer's log-probabilities at sampling time, [B, T]. 0 outside the mask.
    Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training".
    """
    weight = jnp.minimum(_ratio(logp, sampler_logp), cap)
    return jax.lax.stop_gradient(jnp.where(mask > 0, weight, 0.0))


def gkd_of_tokens(
    logits_BTV: jax.Array, teacher_logits_BTV: jax.Array, *, beta: float = 0.5, temperature: float = 1.0
) -> jax.Array:
    """Generalised Jensen-Shannon divergence of teacher and student, [B, T] (Agarwal et al. 2024, GKD).

    β KL(teacher ‖ m) + (1 − β) KL(student ‖ m), m = β teacher + (1 − β) student; at β = 0 it is
    KL(teacher ‖ student), at β = 1 KL(student ‖ teacher).
    """
    student = jax.nn.log_softmax(logits_BTV / temperature)
    teacher = jax.nn.log_softmax(teacher_logits_BTV / temperature)
    if beta == 0:
        return divergence_from(student, teacher)
    if beta == 1:
        return divergence_from(teacher, student)
    middle = jnp.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * divergence_from(middle, teacher) + (1 - beta) * divergence_from(middle, student)


def _ratio(logp: jax.Array, old_logp: jax.Array) -> jax.Array:
    return jnp.exp(jnp.clip(logp - old_logp, -FARTHEST, FARTHEST))
