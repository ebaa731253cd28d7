"""Causal attention over a sharded sequence: keys and values travel round the `context` axis in a ring.

Liu et al. 2023 (ring attention); the order that balances causal work: Llama 3 (Dubey et al. 2024, §3.3.2).

B rows of this device, T time of its queries, S time of keys at hand, N query heads, K key heads, G = N / K
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from jaxtrain.model.block_attention import wide
from jaxtrain.model.layers import MATMUL, Rule
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import BATCH

Where = tuple[jax.Array, jax.Array]
"""Segments and slots [B, T] of queries or keys."""


def balanced_order(length: int) -> np.ndarray:
    """Slots [T] in the order in which devices hold them: of 2n chunks, device i has the i-th and i-th last.

    So every device has as many pairs to score as any other. Natural order where n = 1.
    """
    n = jax.sharding.get_abstract_mesh().shape["context"]
    if n == 1:
        return np.arange(length)
    if length % (2 * n) != 0:
        raise UserError(f"rows of {length} tokens cannot be cut for context {n}; take a multiple of {2 * n}")
    return np.arange(length).reshape(2 * n, -1)[_pairs(n)].ravel()


def to_balanced(x: jax.Array) -> jax.Array:
    """[B, T, …] of natural order, time over `context`, into the order of `balanced_order`."""
    return _reorder(x, _pairs(jax.sharding.get_abstract_mesh().shape["context"]))


def to_natural(x: jax.Array) -> jax.Array:
    """The inverse of `to_balanced`."""
    return _reorder(x, np.argsort(_pairs(jax.sharding.get_abstract_mesh().shape["context"])))


def _pairs(n: int) -> np.ndarray:
    return np.stack([np.arange(n), 2 * n - 1 - np.arange(n)], axis=1).ravel()


def _reorder(x: jax.Array, chunk_from: np.ndarray) -> jax.Array:
    """Chunk c of the result is chunk `chunk_from[c]` of x; each device sends its two where they go."""
    n = len(chunk_from) // 2
    if n == 1:
        return x
    home = {int(chunk): place for place, chunk in enumerate(chunk_from)}

    def exchange(x: jax.Array) -> jax.Array:
        halves = jnp.split(x, 2, axis=1)
        placed = []
        for half in (0, 1):  # which half of the receiver is filled
            received = jnp.zeros_like(halves[0])
            for sent in (0, 1):
                routes = [
                    (device, home[2 * device + sent] // 2)
                    for device in range(n)
                    if home[2 * device + sent] % 2 == half
                ]
                # which gives zeros where none comes
                received += jax.lax.ppermute(halves[sent], "context", routes)
            placed.append(received)
        return jnp.concatenate(placed, axis=1)

    spec = P(BATCH, "context", *[None] * (x.ndim - 2))
    return meshes.per_device(exchange, (spec,), spec)(x)


HEADS = P(BATCH, "context", "tensor", None)
ROWS = P(BATCH, "context")


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def ring(rule: Rule, q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, where: Where) -> jax.Array:
    """Attention [B, T, N, H] over a sequence sharded over `context`, in the order of `balanced_order`.

    The softmax is summed up block by block in float32 (Milakov and Gimelshein 2018); the backward pass scores
    each block again (Dao 2023) and sends the gradients of keys and values round with them. A block of which
    no pair is seen is left out: with the balanced order that is half of them, on every device.
    """
    return _forward(rule, q_BTNH, k_BSKH, v_BSKH, where)[0]


def _forward(rule: Rule, q_BTNH, k_BSKH, v_BSKH, where: Where):
    run = meshes.per_device(partial(_around, rule), (HEADS, HEADS, HEADS, ROWS), (HEADS, P(*HEADS[:3])))
    out_BTNH, total_BTN = checkpoint_name(run(q_BTNH, k_BSKH, v_BSKH, where), MATMUL)
    return out_BTNH, (q_BTNH, k_BSKH, v_BSKH, where, out_BTNH, total_BTN)


def _backward(rule: Rule, saved, gradient_BTNH: jax.Array):
    specs = (HEADS, HEADS, HEADS, ROWS, HEADS, P(*HEADS[:3]), HEADS)
    run = meshes.per_device(partial(_around_back, rule), specs, (HEADS, HEADS, HEADS))
    return *run(*saved, gradient_BTNH), None


ring.defvjp(_forward, _backward)


def _mask(rule: Rule, queries: Where, keys: Where) -> jax.Array:
    behind_BTS = queries[1][:, :, None] - keys[1][:, None, :]
    return rule.seen(behind_BTS, queries[0][:, :, None] == keys[0][:, None, :])


def _around(rule: Rule, q_BTNH, k_BSKH, v_BSKH, where: Where) -> tuple[jax.Array, jax.Array]:
    """On one device: its queries' attention and the log of their softmax's denominator [B, T, N], float32."""
    q_BTKGH = _grouped(q_BTNH, k_BSKH)
    out_BTKGH = q_BTKGH.astype(jnp.float32) * 0  # varies over the mesh as q does
    start = (out_BTKGH[..., 0] - 1e30, out_BTKGH[..., 0], out_BTKGH)

    def block(q_BTKGH, queries, sums, travelling):
        k_BSKH, v_BSKH, keys = travelling
        mask_BTS = _mask(rule, queries, keys)

        def scored(sums):
            most_BTKG, total_BTKG, out_BTKGH = sums
            mask = mask_BTS[:, :, None, None, :]
            score_BTKGS = jnp.where(mask, rule.score("btkgh,bskh->btkgs", q_BTKGH, k_BSKH), -1e30)
            new_most_BTKG = jnp.maximum(most_BTKG, score_BTKGS.max(axis=-1))
            share_BTKGS = jnp.where(mask, jnp.exp(score_BTKGS - new_most_BTKG[..., None]), 0)
            kept_BTKG = jnp.exp(most_BTKG - new_most_BTKG)
            added_BTKGH = wide("btkgs,bskh->btkgh", share_BTKGS.astype(v_BSKH.dtype), v_BSKH)
            out_BTKGH = out_BTKGH * kept_BTKG[..., None] + added_BTKGH
            return new_most_BTKG, total_BTKG * kept_BTKG + share_BTKGS.sum(axis=-1), out_BTKGH

        return jax.lax.cond(jnp.any(mask_BTS), scored, lambda sums: sums, sums)

    def step(carry, _):
        sums, travelling = carry
        halves = _halves((q_BTKGH, where, sums))
        for part, (q, queries, own) in enumerate(halves):
            for keys in _halves(travelling):
                own = block(q, queries, own, keys)
            halves[part] = own
        return (_joined(halves), _onward(travelling)), None

    n = jax.lax.axis_size("context")
    ((most, total, out), _), _ = jax.lax.scan(step, (start, (k_BSKH, v_BSKH, where)), length=n)
    out_BTNH = (out / total[..., None]).reshape(q_BTNH.shape).astype(q_BTNH.dtype)
    return out_BTNH, (most + jnp.log(total)).reshape(q_BTNH.shape[:3])


def _around_back(rule: Rule, q_BTNH, k_BSKH, v_BSKH, where: Where, out_BTNH, total_BTN, gradient_BTNH):
    """On one device: gradients of its queries, keys and values."""
    q_BTKGH, do_BTKGH, out_BTKGH = (_grouped(x, k_BSKH) for x in (q_BTNH, gradient_BTNH, out_BTNH))
    total_BTKG = total_BTN.reshape(q_BTKGH.shape[:4])
    delta_BTKG = jnp.sum(do_BTKGH.astype(jnp.float32) * out_BTKGH.astype(jnp.float32), axis=-1)

    def block(q_side, dq_BTKGH, travelling):
        q_BTKGH, do_BTKGH, total_BTKG, delta_BTKG, queries = q_side
        k_BSKH, v_BSKH, keys = travelling[:3]
        mask_BTS = _mask(rule, queries, keys)

        def scored(sums):
            dq_BTKGH, dk_BSKH, dv_BSKH = sums
            score_BTKGS = rule.score("btkgh,bskh->btkgs", q_BTKGH, k_BSKH)
            share_BTKGS = jnp.exp(score_BTKGS - total_BTKG[..., None])
            share_BTKGS = jnp.where(mask_BTS[:, :, None, None, :], share_BTKGS, 0)
            dv_BSKH += wide("btkgs,btkgh->bskh", share_BTKGS.astype(v_BSKH.dtype), do_BTKGH)
            ds_BTKGS = share_BTKGS * (wide("btkgh,bskh->btkgs", do_BTKGH, v_BSKH) - delta_BTKG[..., None])
            if rule.bound:
                ds_BTKGS *= 1 - (score_BTKGS / rule.bound) ** 2
            ds_BTKGS = (ds_BTKGS * rule.scale).astype(q_BTKGH.dtype)
            dq_BTKGH += wide("btkgs,bskh->btkgh", ds_BTKGS, k_BSKH)
            dk_BSKH += wide("btkgs,btkgh->bskh", ds_BTKGS, q_BTKGH)
            return dq_BTKGH, dk_BSKH, dv_BSKH

        return jax.lax.cond(jnp.any(mask_BTS), scored, lambda sums: sums, (dq_BTKGH, *travelling[3:]))

    q_sides = _halves((q_BTKGH, do_BTKGH, total_BTKG, delta_BTKG, where))

    def step(carry, _):
        dq_BTKGH, travelling = carry
        own, going = _halves(dq_BTKGH), _halves(travelling)
        for t, q_side in enumerate(q_sides):
            for s, keys in enumerate(going):
                own[t], *moved = block(q_side, own[t], keys)
                going[s] = (*keys[:3], *moved)
        return (_joined(own), _onward(_joined(going))), None

    none = lambda x: x.astype(jnp.float32) * 0  # noqa: E731
    start = (none(q_BTKGH), (k_BSKH, v_BSKH, where, none(k_BSKH), none(v_BSKH)))
    (dq, (*_, dk, dv)), _ = jax.lax.scan(step, start, length=jax.lax.axis_size("context"))
    return dq.reshape(q_BTNH.shape).astype(q_BTNH.dtype), dk.astype(k_BSKH.dtype), dv.astype(v_BSKH.dtype)


def _grouped(x_BTNH: jax.Array, k_BSKH: jax.Array) -> jax.Array:
    B, T, N, H = x_BTNH.shape
    return x_BTNH.reshape(B, T, k_BSKH.shape[2], -1, H)


def _onward(travelling: Any) -> Any:
    n = jax.lax.axis_size("context")
    routes = [(device, (device + 1) % n) for device in range(n)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, "context", routes), travelling)


def _halves(tree: Any) -> list[Any]:
    """The two chunks of `balanced_order` that a device holds."""
    pairs = jax.tree.map(lambda x: jnp.split(x, 2, axis=1), tree)
    is_pair = lambda x: isinstance(x, list)  # noqa: E731
    return [jax.tree.map(lambda pair, half=half: pair[half], pairs, is_leaf=is_pair) for half in (0, 1)]


def _joined(halves: list[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *halves)
