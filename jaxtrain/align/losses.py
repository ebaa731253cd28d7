"""Losses of alignment as pure functions of arrays; the model is the caller's.

B batch, K answers of one prompt, T time. Masks are 1 at tokens that the policy sampled.
"""

import jax
import jax.numpy as jnp


def ranking_loss(scores_BK: jax.Array, ranks_BK: jax.Array) -> jax.Array:
    """Bradley-Terry negative log-likelihood of every pair of answers to a prompt, its mean a prompt, [B].

    ranks_BK: 1 = best, equal = tie (half a win for each), 0 = no answer here. InstructGPT (Ouyang et al.
    2022) takes all K (K - 1) / 2 pairs of a prompt together, so that none is overfitted.
    """
    difference_BKK = scores_BK[:, :, None] - scores_BK[:, None, :]
    wins_BKK = ranks_BK[:, :, None] < ranks_BK[:, None, :]
    ties_BKK = ranks_BK[:, :, None] == ranks_BK[:, None, :]
    there_BKK = (
        (ranks_BK[:, :, None] > 0) & (ranks_BK[:, None, :] > 0) & ~jnp.eye(ranks_BK.shape[1], dtype=bool)
    )
    # each unordered pair stands twice, so a tie's half win is counted once from either side
    weight_BKK = there_BKK * (wins_BKK + 0.5 * ties_BKK)
    loss_BKK = -jax.nn.log_sigmoid(difference_BKK) * weight_BKK
    return jnp.sum(loss_BKK, axis=(1, 2)) / jnp.maximum(jnp.sum(weight_BKK, axis=(1, 2)), 1e-9)


def generalized_advantages(
    rewards_BT: jax.Array,
    values_BT: jax.Array,
    mask_BT: jax.Array,
    *,
    discount: float = 1.0,
    smoothing: float = 0.95,
) -> tuple[jax.Array, jax.Array]:
    """GAE (Schulman et al. 2016), and returns = advantage + value. Masked-out tokens are passed through."""

    def back(after: tuple[jax.Array, jax.Array], now: tuple[jax.Array, jax.Array, jax.Array]):
        next_value_B, next_advantage_B = after
        reward_B, value_B, mask_B = now
        delta_B = reward_B + discount * next_value_B - value_B
        advantage_B = delta_B + discount * smoothing * next_advantage_B
        kept = (
            jnp.where(mask_B > 0, value_B, next_value_B),
            jnp.where(mask_B > 0, advantage_B, next_advantage_B),
        )
        return kept, jnp.where(mask_B > 0, advantage_B, 0.0)

    zeros_B = jnp.zeros_like(rewards_BT[:, 0])
    columns = (rewards_BT.T, values_BT.T, mask_BT.T)
    _, advantages_TB = jax.lax.scan(back, (zeros_B, zeros_B), columns, reverse=True)
    advantages_BT = advantages_TB.T
    return advantages_BT, (advantages_BT + values_BT) * mask_BT


def whiten(values_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Mean 0 and (Bessel's) variance 1 over the mask."""
    count = jnp.sum(mask_BT)
    mean = jnp.sum(values_BT * mask_BT) / count
    variance = jnp.sum((values_BT - mean) ** 2 * mask_BT) / jnp.maximum(count - 1, 1)
    return (values_BT - mean) * jax.lax.rsqrt(variance + 1e-8) * mask_BT


def ppo_policy(
    logprob_BT: jax.Array,
    old_logprob_BT: jax.Array,
    advantage_BT: jax.Array,
    mask_BT: jax.Array,
    *,
    clip: float = 0.2,
    denominator: jax.Array | float | None = None,
) -> tuple[jax.Array, jax.Array]:
    """PPO's clipped objective (Schulman et al. 2017) a token, and the share of tokens that it clips.

    denominator: what the sum over tokens is divided by; None: the tokens of the mask.
    """
    ratio_BT = jnp.exp(jnp.clip(logprob_BT - old_logprob_BT, -20, 20))
    plain_BT = -advantage_BT * ratio_BT
    clipped_BT = -advantage_BT * jnp.clip(ratio_BT, 1 - clip, 1 + clip)
    count = jnp.sum(mask_BT)
    total = jnp.sum(jnp.maximum(plain_BT, clipped_BT) * mask_BT)
    return total / (count if denominator is None else denominator), jnp.sum(
        (clipped_BT > plain_BT) * mask_BT
    ) / count


def ppo_value(
    value_BT: jax.Array,
    old_value_BT: jax.Array,
    return_BT: jax.Array,
    mask_BT: jax.Array,
    *,
    clip: float = 0.2,
    denominator: jax.Array | float | None = None,
) -> jax.Array:
    """Half the squared error of the values a token, those that moved further than `clip` held back."""
    held_BT = old_value_BT + jnp.clip(value_BT - old_value_BT, -clip, clip)
    error_BT = jnp.maximum((value_BT - return_BT) ** 2, (held_BT - return_BT) ** 2)
    return 0.5 * jnp.sum(error_BT * mask_BT) / (jnp.sum(mask_BT) if denominator is None else denominator)
