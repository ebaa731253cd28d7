"""How likely given tokens are, and which are the likeliest, of hidden states that a cache gave.

B batch, T tokens, D model, V vocab, X likeliest tokens
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.mesh import BATCH

MOST = 5
"""Likeliest tokens that a request may ask for."""
CHUNK = 8
"""Tokens of a row whose logits are in memory at once."""

Scores = tuple[jax.Array, jax.Array, jax.Array]
"""log p of the given tokens [B, T], float32; the X likeliest ones [B, T, X], int32; log p of those."""


def score(shell: Transformer, hidden_BTD: jax.Array, targets_BT: jax.Array, likeliest: int) -> Scores:
    """Of tokens under the model's own distribution; T is a multiple of `CHUNK`, X = `likeliest` or 1."""
    B, T = targets_BT.shape
    targets_BT = jax.sharding.reshard(targets_BT, P(BATCH, None))

    def chunk(part: tuple[jax.Array, jax.Array]) -> Scores:
        hidden_BcD, targets_Bc = part
        logits_BcV = jax.sharding.reshard(shell.logits(hidden_BcD), P(BATCH, None, None))
        is_target_BcV = targets_Bc[..., None] == jnp.arange(logits_BcV.shape[-1])
        target_Bc = jnp.sum(logits_BcV, axis=-1, where=is_target_BcV)
        sum_Bc = jax.nn.logsumexp(logits_BcV, axis=-1)
        best_BcX, ids_BcX = best(logits_BcV, likeliest)
        return target_Bc - sum_Bc, ids_BcX, best_BcX - sum_Bc[..., None]

    def cut(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(B, T // CHUNK, CHUNK, *x.shape[2:]), 1, 0)

    found = jax.lax.map(chunk, (cut(hidden_BTD), cut(targets_BT)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(B, T, *x.shape[3:]), found)


def best(logits: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` highest of the last axis and where they stand, int32; 0: the highest, wherever it is."""
    if count == 0:
        highest = jnp.max(logits, axis=-1, keepdims=True)
        return highest, jnp.full_like(highest, -1, jnp.int32)
    return jax.lax.top_k(logits, count)


def likeliest(logits_BV: jax.Array, is_told_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The `MOST` likeliest tokens of each row and their log p, [B, X]; zeros where no row asks for them."""

    def told(logits_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
        best_BX, ids_BX = best(logits_BV, MOST)
        return ids_BX, best_BX - jax.nn.logsumexp(logits_BV, axis=-1, keepdims=True)

    def none(logits_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.tree.map(lambda x: jnp.zeros_like(x), jax.eval_shape(told, logits_BV))

    return jax.lax.cond(jnp.any(is_told_B), told, none, logits_BV)
