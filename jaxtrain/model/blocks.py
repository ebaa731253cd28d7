"""Attention for CPUs: a row at a time, queries in blocks, so that scores stay in the cache of a core.

A block sees no key behind its own. Only the softmax's denominators are kept; the backward pass scores again
(Dao et al. 2022). Half the arithmetic of the dense kernel, and no [T, T] array goes to memory.

T time of a row, C time of a block, S keys that it may see, N query heads, K key heads, G = N / K, H head dim
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxtrain.model.layers import softcap

SMALLEST, MOST = 64, 8
"""Queries of a block, at least, and blocks of a row, at most: more of them only compile longer."""


def block_size(length: int) -> int:
    return max(SMALLEST, -(-length // MOST))


@dataclass(frozen=True)
class Rule:
    """How a pair is scored, and which pairs are."""

    scale: float
    bound: float
    window: int

    def blocks(self, length: int) -> Iterator[tuple[slice, slice]]:
        """Queries, and the keys that one of them may see."""
        size = block_size(length)
        for start in range(0, length, size):
            stop = min(length, start + size)
            yield slice(start, stop), slice(max(0, start - self.window + 1) if self.window else 0, stop)

    def scores(self, q_KGCH, k_KSH, segments_T, queries: slice, keys: slice) -> tuple[jax.Array, jax.Array]:
        """Scores [K, G, C, S], float32, and where they count [C, S]."""
        behind_CS = jnp.arange(queries.start, queries.stop)[:, None] - jnp.arange(keys.start, keys.stop)
        mask_CS = (behind_CS >= 0) & (segments_T[queries, None] == segments_T[None, keys])
        if self.window:
            mask_CS &= behind_CS < self.window
        score_KGCS = jnp.einsum("kgch,ksh->kgcs", q_KGCH, k_KSH, preferred_element_type=jnp.float32)
        return softcap(score_KGCS * self.scale, self.bound), mask_CS


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def attention(rule: Rule, q_BTNH, k_BTKH, v_BTKH, segments_BT) -> jax.Array:
    """[B, T, N, H] on one device, rows in natural order."""
    return _forward(rule, q_BTNH, k_BTKH, v_BTKH, segments_BT)[0]


def _forward(rule: Rule, q_BTNH, k_BTKH, v_BTKH, segments_BT):
    out_BTNH, total_BKGT = jax.lax.map(lambda row: _row(rule, *row), (q_BTNH, k_BTKH, v_BTKH, segments_BT))
    return out_BTNH, (q_BTNH, k_BTKH, v_BTKH, segments_BT, out_BTNH, total_BKGT)


def _backward(rule: Rule, saved, gradient_BTNH):
    return *jax.lax.map(lambda row: _row_back(rule, *row), (*saved, gradient_BTNH)), None


attention.defvjp(_forward, _backward)


def _row(rule: Rule, q_TNH, k_TKH, v_TKH, segments_T):
    """Attention of a row, and the log of each softmax's denominator [K, G, T]."""
    q_KGTH, k_KTH, v_KTH = _heads_first(q_TNH, k_TKH), k_TKH.swapaxes(0, 1), v_TKH.swapaxes(0, 1)
    outs, totals = [], []
    for queries, keys in rule.blocks(q_TNH.shape[0]):
        score_KGCS, mask_CS = rule.scores(q_KGTH[:, :, queries], k_KTH[:, keys], segments_T, queries, keys)
        score_KGCS = jnp.where(mask_CS, score_KGCS, -1e30)
        most_KGC = score_KGCS.max(axis=-1)
        share_KGCS = jnp.exp(score_KGCS - most_KGC[..., None])
        total_KGC = share_KGCS.sum(axis=-1)
        out_KGCH = jnp.einsum(
            "kgcs,ksh->kgch",
            share_KGCS.astype(v_KTH.dtype),
            v_KTH[:, keys],
            preferred_element_type=jnp.float32,
        )
        outs.append((out_KGCH / total_KGC[..., None]).astype(q_TNH.dtype))
        totals.append(most_KGC + jnp.log(total_KGC))
    return _heads_last(jnp.concatenate(outs, axis=2)), jnp.concatenate(totals, axis=2)


def _row_back(rule: Rule, q_TNH, k_TKH, v_TKH, segments_T, out_TNH, total_KGT, gradient_TNH):
    """Gradients of a row's queries, keys and values."""
    q_KGTH, do_KGTH, out_KGTH = (_heads_first(x, k_TKH) for x in (q_TNH, gradient_TNH, out_TNH))
    k_KTH, v_KTH = k_TKH.swapaxes(0, 1), v_TKH.swapaxes(0, 1)
    delta_KGT = jnp.sum(do_KGTH.astype(jnp.float32) * out_KGTH.astype(jnp.float32), axis=-1)
    wide = partial(jnp.einsum, preferred_element_type=jnp.float32)
    dqs = []
    dk_KTH, dv_KTH = (jnp.zeros(x.shape, jnp.float32) for x in (k_KTH, v_KTH))
    for queries, keys in rule.blocks(q_TNH.shape[0]):
        q_KGCH, do_KGCH = q_KGTH[:, :, queries], do_KGTH[:, :, queries]
        score_KGCS, mask_CS = rule.scores(q_KGCH, k_KTH[:, keys], segments_T, queries, keys)
        share_KGCS = jnp.where(mask_CS, jnp.exp(score_KGCS - total_KGT[:, :, queries, None]), 0)
        ds_KGCS = share_KGCS * (
            wide("kgch,ksh->kgcs", do_KGCH, v_KTH[:, keys]) - delta_KGT[:, :, queries, None]
        )
        if rule.bound:
            ds_KGCS *= 1 - (score_KGCS / rule.bound) ** 2
        ds_KGCS = (ds_KGCS * rule.scale).astype(q_TNH.dtype)
        dqs.append(wide("kgcs,ksh->kgch", ds_KGCS, k_KTH[:, keys]).astype(q_TNH.dtype))
        dk_KTH = dk_KTH.at[:, keys].add(wide("kgcs,kgch->ksh", ds_KGCS, q_KGCH))
        dv_KTH = dv_KTH.at[:, keys].add(wide("kgcs,kgch->ksh", share_KGCS.astype(v_KTH.dtype), do_KGCH))
    dq_TNH = _heads_last(jnp.concatenate(dqs, axis=2))
    return (
        dq_TNH,
        dk_KTH.swapaxes(0, 1).astype(k_TKH.dtype),
        dv_KTH.swapaxes(0, 1).astype(v_TKH.dtype),
    )


def _heads_first(x_TNH: jax.Array, k_TKH: jax.Array) -> jax.Array:
    """[K, G, T, H]"""
    T, _, H = x_TNH.shape
    return x_TNH.reshape(T, k_TKH.shape[1], -1, H).transpose(1, 2, 0, 3)


def _heads_last(x_KGTH: jax.Array) -> jax.Array:
    """[T, N, H]"""
    K, G, T, H = x_KGTH.shape
    return x_KGTH.transpose(2, 0, 1, 3).reshape(T, K * G, H)
