"""How likely given tokens are, and which are the likeliest, of hidden states that a cache gave.

B batch, T tokens, D model, V vocab, X likeliest tokens
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.mesh import BATCH

MOST = 5
"""Likeliest tokens that a request may ask for."""
CHUNK = 8
"""Tokens of a row whose logits are in memory at once."""


class Scores(NamedTuple):
    """Of given tokens [B, T], under the model's own distribution."""

    logprob_BT: jax.Array
    """float32"""
    is_greedy_BT: jax.Array
    """Whether argmax picks the token: of equal logits the first one's."""
    likeliest_BTX: jax.Array
    """int32"""
    likeliest_logprob_BTX: jax.Array


def score(shell: Transformer, hidden_BTD: jax.Array, targets_BT: jax.Array, likeliest: int) -> Scores:
    """How likely tokens are, and the X = `likeliest` tokens that are most; T is a multiple of `CHUNK`."""
    B, T = targets_BT.shape
    targets_BT = jax.sharding.reshard(targets_BT, P(BATCH, None))

    def chunk(part: tuple[jax.Array, jax.Array]) -> Scores:
        hidden_BcD, targets_Bc = part
        targets_Bc1 = targets_Bc[..., None]
        logits_BcV = jax.sharding.reshard(shell.logits(hidden_BcD), P(BATCH, None, None))
        ids_V = jnp.arange(logits_BcV.shape[-1])
        target_Bc = jnp.sum(logits_BcV, axis=-1, where=targets_Bc1 == ids_V)
        target_Bc1 = target_Bc[..., None]
        behind_BcV = (logits_BcV < target_Bc1) | ((logits_BcV == target_Bc1) & (ids_V >= targets_Bc1))
        sum_Bc = jax.nn.logsumexp(logits_BcV, axis=-1)
        best_BcX, best_ids_BcX = jax.lax.top_k(logits_BcV, likeliest)
        greedy_Bc = jnp.all(behind_BcV, axis=-1)
        return Scores(target_Bc - sum_Bc, greedy_Bc, best_ids_BcX, best_BcX - sum_Bc[..., None])

    def cut(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(B, T // CHUNK, CHUNK, *x.shape[2:]), 1, 0)

    found = jax.lax.map(chunk, (cut(hidden_BTD), cut(targets_BT)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(B, T, *x.shape[3:]), found)


def likeliest(logits_BV: jax.Array, is_told_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The `MOST` likeliest tokens of each row and their log p, [B, X]; zeros where no row asks for them."""

    def told(logits_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
        best_BX, ids_BX = jax.lax.top_k(logits_BV, MOST)
        return ids_BX, best_BX - jax.nn.logsumexp(logits_BV, axis=-1, keepdims=True)

    def none(logits_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.tree.map(lambda x: jnp.zeros_like(x), jax.eval_shape(told, logits_BV))

    return jax.lax.cond(jnp.any(is_told_B), told, none, logits_BV)
