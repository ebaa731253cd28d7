"""Which steps are accepted: a poisoned or exploding batch must change neither weights nor optimizer.

One-sided: a step is refused when its loss or gradient norm is not finite, or above
mean + 6·max(σ, 1 % of the mean) of the last 128 accepted steps; with fewer than 32 accepted, above ten
times the largest of them. Refused values never enter the window, so that one NaN cannot blind it; nor does a
step without a gradient, which tells nothing of the scale (rollouts that are all worth the same).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

WINDOW, ENOUGH, SIGMAS, EARLY_FACTOR = 128, 32, 6.0, 10.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Guard:
    """The window of accepted (loss, gradient norm), kept in the checkpoint."""

    window: jax.Array
    """float32 [128, 2]"""
    accepted: jax.Array
    """int32: accepted steps so far, those without a gradient aside"""
    refused_in_a_row: jax.Array
    """int32"""


def new_guard() -> Guard:
    return Guard(jnp.zeros((WINDOW, 2), jnp.float32), jnp.int32(0), jnp.int32(0))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Limits:
    """What a step's loss and gradient norm are held against, float32 [2] each."""

    mean: jax.Array
    sigma: jax.Array
    limit: jax.Array
    """Infinite while the window is empty."""


def limits(guard: Guard) -> Limits:
    """Of the next step."""
    filled = jnp.arange(WINDOW)[:, None] < jnp.minimum(guard.accepted, WINDOW)
    count = jnp.maximum(jnp.minimum(guard.accepted, WINDOW), 1)
    mean = jnp.sum(guard.window, axis=0, where=filled) / count
    sigma = jnp.sqrt(jnp.sum((guard.window - mean) ** 2, axis=0, where=filled) / count)
    usual = mean + SIGMAS * jnp.maximum(sigma, 0.01 * jnp.abs(mean))
    early = EARLY_FACTOR * jnp.max(guard.window, axis=0, where=filled, initial=0.0)
    limit = jnp.where(guard.accepted >= ENOUGH, usual, jnp.where(guard.accepted > 0, early, jnp.inf))
    return Limits(mean, sigma, limit)


def judge(guard: Guard, loss: jax.Array, grad_norm: jax.Array) -> tuple[jax.Array, Guard]:
    """Whether the step is accepted (bool), and the guard after it."""
    seen = jnp.stack([loss, grad_norm]).astype(jnp.float32)
    accepted = jnp.all(jnp.isfinite(seen) & (seen <= limits(guard).limit))
    slot, told = guard.accepted % WINDOW, accepted & (grad_norm > 0)
    after = Guard(
        window=jnp.where(told & (jnp.arange(WINDOW)[:, None] == slot), seen, guard.window),
        accepted=guard.accepted + told,
        refused_in_a_row=jnp.where(accepted, 0, guard.refused_in_a_row + 1),
    )
    return accepted, after
