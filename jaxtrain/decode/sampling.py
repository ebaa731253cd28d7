"""Choosing the next token, every row by its own settings.

Filters come in the order of `transformers`: repetition penalty, temperature, top-k, top-p, min-p. Bounds are
found by bisecting the 32 ordered bits of a float32: exact, and without sorting the vocabulary.

B batch, S slots, V vocab
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain.fields import check
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.limits import Limits, Share
from jaxtrain.runtime.mesh import BATCH

ROWS = P(BATCH, None)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one request is sampled."""

    temperature: Annotated[float, Limits(0, 100)] = 1.0
    """Logits are divided by it; 0: the likeliest token."""
    top_k: Annotated[int, Limits(0, 2**31 - 1)] = 0
    """Only the likeliest so many tokens; 0: all. Tokens that tie with the last one stay."""
    top_p: Annotated[float, Limits(1e-6, 1)] = 1.0
    """Only the fewest likeliest tokens that have this share of the probability (Holtzman et al. 2020)."""
    min_p: Share = 0.0
    """Only tokens with at least this share of the likeliest one's probability (Nguyen et al. 2024)."""
    repetition_penalty: Annotated[float, Limits(1e-2, 100)] = 1.0
    """Logits of tokens that are there already are divided by it, where negative multiplied (Keskar 2019)."""

    def __post_init__(self) -> None:
        check(self)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sampling:
    """The settings of every row."""

    temperature_B: jax.Array | np.ndarray
    top_k_B: jax.Array | np.ndarray
    top_p_B: jax.Array | np.ndarray
    min_p_B: jax.Array | np.ndarray
    repetition_penalty_B: jax.Array | np.ndarray

    @staticmethod
    def of(rows: Sequence[Settings]) -> "Sampling":
        names = [field.name for field in fields(Settings)]
        dtypes = {"top_k": np.int32}
        return Sampling(
            *(np.array([getattr(row, name) for row in rows], dtypes.get(name, np.float32)) for name in names)
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Choice:
    """A token of every row."""

    token_B: jax.Array
    """int32"""
    logprob_B: jax.Array
    """float32: under the distribution that it was sampled from; where temperature is 0, at temperature 1"""
    raw_logprob_B: jax.Array
    """float32: under the model's own distribution, without any setting"""


def choose(
    logits_BV: jax.Array,
    sampling: Sampling,
    keys_B: jax.Array,
    n_B: jax.Array,
    tokens_BS: jax.Array,
    used_B: jax.Array,
    allowed_BV: jax.Array | None = None,
    forced_B: jax.Array | None = None,
) -> Choice:
    """Sample token `n_B` of every row's answer: its key, folded with n, decides, and nothing beside it.

    tokens_BS, used_B: what stands in each row so far, for the repetition penalty. allowed_BV: tokens that may
    come, bool; None: all. forced_B: tokens that are taken in place of sampled ones, where not negative.
    """
    raw_BV = jax.sharding.reshard(logits_BV, ROWS)
    place = lambda tree: jax.tree.map(lambda x: jax.sharding.reshard(x, P(BATCH)), tree)  # noqa: E731
    sampling, keys_B, n_B = place((sampling, keys_B, n_B))
    logits_BV = jax.lax.cond(
        jnp.any(sampling.repetition_penalty_B != 1),
        lambda x_BV: _penalised(x_BV, sampling.repetition_penalty_B, tokens_BS, used_B),
        lambda x_BV: x_BV,
        raw_BV if allowed_BV is None else jnp.where(allowed_BV, raw_BV, -jnp.inf),
    )
    greedy_B = sampling.temperature_B == 0
    logits_BV = logits_BV / jnp.where(greedy_B, 1, sampling.temperature_B)[:, None]
    for wanted_B, kept in (
        (sampling.top_k_B > 0, partial(_top_k, k_B=sampling.top_k_B)),
        (sampling.top_p_B < 1, partial(_top_p, p_B=sampling.top_p_B)),
        (sampling.min_p_B > 0, partial(_min_p, p_B=sampling.min_p_B)),
    ):
        logits_BV = jax.lax.cond(jnp.any(wanted_B), kept, lambda x_BV: x_BV, logits_BV)
    noised_BV = jax.lax.cond(
        jnp.all(greedy_B),
        lambda x_BV: x_BV,
        lambda x_BV: x_BV + _noise(x_BV, greedy_B, keys_B, n_B),
        logits_BV,
    )
    token_B = jnp.argmax(noised_BV, axis=-1).astype(jnp.int32)
    if forced_B is not None:
        token_B = jnp.where(forced_B >= 0, forced_B, token_B)
    return Choice(token_B, _logprob(logits_BV, token_B), _logprob(raw_BV, token_B))


def _noise(x_BV: jax.Array, greedy_B: jax.Array, keys_B: jax.Array, n_B: jax.Array) -> jax.Array:
    """Gumbel noise: the argmax of logits with it is a sample of their softmax. Greedy rows have none."""
    keys_B = jax.vmap(jax.random.fold_in)(keys_B, n_B)
    noise_BV = jax.vmap(lambda key: jax.random.gumbel(key, x_BV.shape[1:]))(keys_B)
    return jnp.where(greedy_B[:, None], 0, noise_BV)


def _logprob(logits_BV: jax.Array, token_B: jax.Array) -> jax.Array:
    is_token_BV = token_B[:, None] == jnp.arange(logits_BV.shape[-1])
    return jnp.sum(logits_BV, axis=-1, where=is_token_BV) - jax.nn.logsumexp(logits_BV, axis=-1)


def _penalised(
    logits_BV: jax.Array, penalty_B: jax.Array, tokens_BS: jax.Array, used_B: jax.Array
) -> jax.Array:
    V = logits_BV.shape[1]

    def seen(tokens_BS: jax.Array, used_B: jax.Array) -> jax.Array:
        real_BS = jnp.arange(tokens_BS.shape[1]) < used_B[:, None]
        row = lambda tokens_S: jnp.zeros((V + 1,), bool).at[tokens_S].set(True)[:V]  # noqa: E731
        return jax.vmap(row)(jnp.where(real_BS, tokens_BS, V))

    seen_BV = meshes.per_device(seen, (ROWS, P(BATCH)), ROWS)(tokens_BS, used_B)
    penalised_BV = jnp.where(logits_BV > 0, logits_BV / penalty_B[:, None], logits_BV * penalty_B[:, None])
    return jnp.where(seen_BV, penalised_BV, logits_BV)


def _top_k(logits_BV: jax.Array, k_B: jax.Array) -> jax.Array:
    V = logits_BV.shape[1]
    k_B = jnp.where(k_B > 0, jnp.minimum(k_B, V), V).astype(jnp.float32)
    return _likeliest(logits_BV, jnp.ones_like(logits_BV), k_B)


def _top_p(logits_BV: jax.Array, p_B: jax.Array) -> jax.Array:
    share_BV = jnp.exp(logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True))
    return _likeliest(logits_BV, share_BV, p_B * jnp.sum(share_BV, axis=-1))


def _min_p(logits_BV: jax.Array, p_B: jax.Array) -> jax.Array:
    bound_B = jnp.max(logits_BV, axis=-1) + jnp.log(p_B)
    return jnp.where(logits_BV >= bound_B[:, None], logits_BV, -jnp.inf)


def _likeliest(logits_BV: jax.Array, weight_BV: jax.Array, enough_B: jax.Array) -> jax.Array:
    """The fewest largest logits whose weights add up to `enough_B`; -inf in place of the others."""
    bits_BV = jax.lax.bitcast_convert_type(logits_BV, jnp.int32)
    flipped_BV = jnp.where(bits_BV < 0, ~bits_BV, bits_BV ^ jnp.int32(-(2**31)))
    ordered_BV = jax.lax.bitcast_convert_type(flipped_BV, jnp.uint32)  # in the order of the floats

    def with_bit(n: jax.Array, bound_B: jax.Array) -> jax.Array:
        higher_B = bound_B | (jnp.uint32(1) << (31 - n).astype(jnp.uint32))
        found_B = jnp.sum(weight_BV, axis=-1, where=ordered_BV >= higher_B[:, None])
        return jnp.where(found_B >= enough_B, higher_B, bound_B)

    bound_B = jax.lax.fori_loop(0, 32, with_bit, jnp.zeros_like(enough_B, jnp.uint32))
    return jnp.where(ordered_BV >= bound_B[:, None], logits_BV, -jnp.inf)
