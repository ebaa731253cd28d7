"""Attention, a key head at a time, its queries in blocks, so that scores stay in a core's cache.

A block sees no key behind its own. Only the softmax's denominators are kept; the backward pass scores again
(Dao et al. 2022). Half the arithmetic of the dense kernel, and no [T, T] array goes to memory. The head is
sliced out of [B, T, K, F] where it is used: XLA for CPUs transposes slowly, and plain matrices suit it best.

T time of a row, C time of a block, S keys that it may see, K key heads, G query heads of each, H head dim,
F = G · H, R = C · G rows of a block
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxtrain.model.layers import MATMUL, Rule

SMALLEST, MOST = 64, 8
"""Queries of a block, at least, and blocks of a row, about: more of them only compile longer."""

wide = partial(jnp.einsum, preferred_element_type=jnp.float32)


def _blocks(rule: Rule, length: int, groups: int) -> Iterator[tuple[slice, slice]]:
    """Queries, and the keys that one of them may see."""
    size = max(SMALLEST, -(-length // max(MOST, 2 * groups)))
    for start in range(0, length, size):
        stop = min(length, start + size)
        yield slice(start, stop), slice(max(0, start - rule.window + 1) if rule.window else 0, stop)


def _scores(rule: Rule, q_RH, k_TH, segments_T, queries: slice, keys: slice) -> tuple[jax.Array, jax.Array]:
    """Scores [R, S], float32, and where they count."""
    behind_CS = jnp.arange(queries.start, queries.stop)[:, None] - jnp.arange(keys.start, keys.stop)
    mask_CS = rule.seen(behind_CS, segments_T[queries, None] == segments_T[None, keys])
    mask_RS = jnp.repeat(mask_CS, q_RH.shape[0] // mask_CS.shape[0], axis=0)
    return rule.score("rh,sh->rs", q_RH, k_TH[keys]), mask_RS


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def attention(rule: Rule, q_BTNH, k_BTKH, v_BTKH, segments_BT) -> jax.Array:
    """[B, T, N, H] on one device, rows in natural order."""
    return forward(rule, q_BTNH, k_BTKH, v_BTKH, segments_BT)[0]


def forward(rule: Rule, q_BTNH, k_BTKH, v_BTKH, segments_BT) -> tuple[jax.Array, jax.Array]:
    """Attention, and the log of each softmax's denominator [B, T, N], float32."""
    B, T, N, _ = q_BTNH.shape
    K = k_BTKH.shape[2]
    q_BTKF = q_BTNH.reshape(B, T, K, -1)

    def one(turn, carry):
        out_BTKF, total_XTG = carry
        b, k = turn // K, turn % K
        q_TF, k_TH, v_TH = (_head(x, b, k) for x in (q_BTKF, k_BTKH, v_BTKH))
        out_TF, total_TG = _attend(rule, q_TF, k_TH, v_TH, segments_BT[b])
        return _put(out_BTKF, b, k, out_TF), jax.lax.dynamic_update_index_in_dim(total_XTG, total_TG, turn, 0)

    start = (jnp.zeros_like(q_BTKF), jnp.zeros((B * K, T, N // K), jnp.float32))
    out_BTKF, total_XTG = jax.lax.fori_loop(0, B * K, one, start)
    total_BTKG = jnp.moveaxis(total_XTG.reshape(B, K, T, -1), 1, 2)
    return out_BTKF.reshape(q_BTNH.shape), total_BTKG.reshape(B, T, N)


def _forward(rule: Rule, *inputs):
    out_BTNH, total_BTN = checkpoint_name(forward(rule, *inputs), MATMUL)
    return out_BTNH, (*inputs, out_BTNH, total_BTN)


def backward(rule: Rule, saved, gradient_BTNH) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of queries, keys and values. saved: they, segments, and what `forward` gave."""
    q_BTNH, k_BTKH, v_BTKH, segments_BT, out_BTNH, total_BTN = saved
    B, T, K, _ = k_BTKH.shape
    total_XTG = jnp.moveaxis(total_BTN.reshape(B, T, K, -1), 2, 1).reshape(B * K, T, -1)
    q_BTKF, out_BTKF, do_BTKF = (x.reshape(B, T, K, -1) for x in (q_BTNH, out_BTNH, gradient_BTNH))

    def one(turn, gradients):
        b, k = turn // K, turn % K
        heads = (_head(x, b, k) for x in (q_BTKF, k_BTKH, v_BTKH, out_BTKF, do_BTKF))
        found = _attend_back(rule, *heads, segments_BT[b], total_XTG[turn])
        return tuple(_put(x, b, k, new) for x, new in zip(gradients, found, strict=True))

    start = tuple(jnp.zeros_like(x) for x in (q_BTKF, k_BTKH, v_BTKH))
    dq_BTKF, dk_BTKH, dv_BTKH = jax.lax.fori_loop(0, B * K, one, start)
    return dq_BTKF.reshape(q_BTNH.shape), dk_BTKH, dv_BTKH


attention.defvjp(_forward, lambda *inputs: (*backward(*inputs), None))


def _head(x_BTKF: jax.Array, b: jax.Array, k: jax.Array) -> jax.Array:
    """[T, F] of one row and key head."""
    _, T, _, F = x_BTKF.shape
    return jax.lax.dynamic_slice(x_BTKF, (b, 0, k, 0), (1, T, 1, F)).reshape(T, F)


def _put(x_BTKF: jax.Array, b: jax.Array, k: jax.Array, new_TF: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(x_BTKF, new_TF[None, :, None].astype(x_BTKF.dtype), (b, 0, k, 0))


def _attend(rule: Rule, q_TF, k_TH, v_TH, segments_T):
    """Attention of a head's queries, and the log of each softmax's denominator [T, G]."""
    H = k_TH.shape[1]
    outs, totals = [], []
    for queries, keys in _blocks(rule, q_TF.shape[0], q_TF.shape[1] // k_TH.shape[1]):
        q_RH = q_TF[queries].reshape(-1, H)
        score_RS, mask_RS = _scores(rule, q_RH, k_TH, segments_T, queries, keys)
        score_RS = jnp.where(mask_RS, score_RS, -1e30)
        most_R = score_RS.max(axis=-1)
        share_RS = jnp.exp(score_RS - most_R[:, None])
        total_R = share_RS.sum(axis=-1)
        out_RH = wide("rs,sh->rh", share_RS.astype(v_TH.dtype), v_TH[keys]) / total_R[:, None]
        outs.append(out_RH.reshape(-1, q_TF.shape[1]))
        totals.append((most_R + jnp.log(total_R)).reshape(-1, q_TF.shape[1] // H))
    return jnp.concatenate(outs), jnp.concatenate(totals)


def _attend_back(rule: Rule, q_TF, k_TH, v_TH, out_TF, do_TF, segments_T, total_TG):
    """Gradients of a head's queries, keys and values, float32."""
    T, H = k_TH.shape
    product_TGH = (do_TF.astype(jnp.float32) * out_TF.astype(jnp.float32)).reshape(T, -1, H)
    delta_TG = product_TGH.sum(axis=-1)
    dqs = []
    dk_TH, dv_TH = jnp.zeros((T, H), jnp.float32), jnp.zeros((T, H), jnp.float32)
    for queries, keys in _blocks(rule, q_TF.shape[0], q_TF.shape[1] // k_TH.shape[1]):
        q_RH, do_RH = q_TF[queries].reshape(-1, H), do_TF[queries].reshape(-1, H)
        total_R, delta_R = total_TG[queries].reshape(-1), delta_TG[queries].reshape(-1)
        score_RS, mask_RS = _scores(rule, q_RH, k_TH, segments_T, queries, keys)
        share_RS = jnp.where(mask_RS, jnp.exp(score_RS - total_R[:, None]), 0)
        ds_RS = share_RS * (wide("rh,sh->rs", do_RH, v_TH[keys]) - delta_R[:, None])
        if rule.bound:
            ds_RS *= 1 - (score_RS / rule.bound) ** 2
        ds_RS = (ds_RS * rule.scale).astype(q_TF.dtype)
        dqs.append(wide("rs,sh->rh", ds_RS, k_TH[keys]).reshape(-1, q_TF.shape[1]))
        dk_TH = dk_TH.at[keys].add(wide("rs,rh->sh", ds_RS, q_RH))
        dv_TH = dv_TH.at[keys].add(wide("rs,rh->sh", share_RS.astype(v_TH.dtype), do_RH))
    return jnp.concatenate(dqs), dk_TH, dv_TH
