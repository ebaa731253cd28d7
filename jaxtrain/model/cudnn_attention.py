"""cuDNN's flash attention, on one device's rows and heads: NVIDIA's Hopper and newer where rows are packed.

JAX's public function takes no documents. The function behind it does, but up to 0.10.2 at least it finds the
keys of grouped heads by the queries' stride (jax pull request 39521): wrong numbers and no error. So its two
primitives are called here, with offsets of our own. cuDNN gives a softmax denominator for each document and
place of a row; only those of tokens that are there are kept for the backward pass.

B batch, T time, N query heads, K key heads, H head dim, M documents of a row on average that have room
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxtrain.model import block_attention
from jaxtrain.model.layers import MATMUL, Rule

SHORTEST = 64
"""Tokens of a document on average for which there is room; rows of shorter ones are attended to in blocks."""
MOST = 2**31
"""Numbers of a device's queries, whose places cuDNN is told in int32; more are attended to in blocks."""


class Documents(NamedTuple):
    """The documents of all rows, one after the other; what stands behind a row's last one is one too."""

    starts_X: jax.Array
    """First token of each, counted through all rows, then their end; int32, B · (M + 1)."""
    number_BT: jax.Array
    """Of each token's document."""
    place_BT: jax.Array
    """Of each token in its document."""
    fit: jax.Array
    """Whether there is room for all of them, and every place is one that cuDNN can be told."""


def documents(segments_BT: jax.Array, width: int) -> Documents:
    """width: numbers of a token's queries."""
    B, T = segments_BT.shape
    M = max(1, T // SHORTEST)
    is_first_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    starts_X = jnp.nonzero(is_first_BT.ravel(), size=B * (M + 1), fill_value=B * T)[0].astype(jnp.int32)
    number = jnp.cumsum(is_first_BT.ravel()) - 1
    place = jnp.arange(B * T) - starts_X[jnp.minimum(number, starts_X.size - 1)]
    fit = (number[-1] < B * M) & (B * T * width < MOST)
    return Documents(starts_X, number.reshape(B, T), place.reshape(B, T), fit)


def whole_rows(rule: Rule, q_BTNH, k_BTKH, v_BTKH, _) -> jax.Array:
    """Attention [B, T, N, H] where every row is one document, whatever its segments."""
    window = (rule.window - 1, 0) if rule.window else None
    how = {"scale": rule.scale, "is_causal": True, "local_window_size": window, "implementation": "cudnn"}
    return jax.nn.dot_product_attention(q_BTNH, k_BTKH, v_BTKH, **how)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def packed(rule: Rule, q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segments_BT) -> jax.Array:
    """Attention [B, T, N, H] that stays inside a document."""
    return _forward(rule, q_BTNH, k_BTKH, v_BTKH, segments_BT)[0]


def _forward(rule: Rule, q_BTNH, k_BTKH, v_BTKH, segments_BT):
    of = documents(segments_BT, q_BTNH.shape[2] * q_BTNH.shape[3])

    def fused():
        out_BTNH, total_XNT = _primitives()[0].bind(
            *_inputs(q_BTNH, k_BTKH, v_BTKH, of), **_options(rule), is_training=True
        )
        return out_BTNH, total_XNT[of.number_BT, :, of.place_BT]

    in_blocks = lambda: block_attention.forward(rule, q_BTNH, k_BTKH, v_BTKH, segments_BT)  # noqa: E731
    out_BTNH, total_BTN = checkpoint_name(jax.lax.cond(of.fit, fused, in_blocks), MATMUL)
    return out_BTNH, (q_BTNH, k_BTKH, v_BTKH, segments_BT, out_BTNH, total_BTN)


def _backward(rule: Rule, saved, gradient_BTNH: jax.Array):
    q_BTNH, k_BTKH, v_BTKH, segments_BT, out_BTNH, total_BTN = saved
    of = documents(segments_BT, q_BTNH.shape[2] * q_BTNH.shape[3])

    def fused():
        B, T, N, _ = q_BTNH.shape
        room = jnp.zeros((of.starts_X.size - B, N, T), jnp.float32)
        total_XNT = room.at[of.number_BT, :, of.place_BT].set(total_BTN)
        more = (total_XNT, out_BTNH, gradient_BTNH)
        inputs = _inputs(q_BTNH, k_BTKH, v_BTKH, of)
        return tuple(_primitives()[1].bind(*inputs, *more, **_options(rule)))

    in_blocks = lambda: block_attention.backward(rule, saved, gradient_BTNH)  # noqa: E731
    return *jax.lax.cond(of.fit, fused, in_blocks), None


packed.defvjp(_forward, _backward)


def _primitives() -> tuple[Any, Any]:
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    return cudnn._dot_product_attention_fwd_p, cudnn._dot_product_attention_bwd_p


def _inputs(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, of: Documents) -> tuple[jax.Array, ...]:
    """Queries, keys, values, no bias, lengths, first elements of each document, no page tables."""
    B, K, H = q_BTNH.shape[0], k_BTKH.shape[2], k_BTKH.shape[3]
    lengths_BM = jnp.diff(of.starts_X[: of.starts_X.size - B + 1]).reshape(B, -1)
    starts_BM = of.starts_X.reshape(B, -1)
    none = jnp.zeros(0, q_BTNH.dtype)
    offsets = (starts_BM * (q_BTNH.shape[2] * H), starts_BM * (K * H))
    return (q_BTNH, k_BTKH, v_BTKH, none, lengths_BM, lengths_BM, *offsets, none, none)


def _options(rule: Rule) -> dict[str, Any]:
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    return {
        "scale": rule.scale,
        "seed": 0,
        "dropout_rate": 0.0,
        "variadic_args": (False, False),
        "mask_type": cudnn.MaskType.PADDING_CAUSAL,
        "layout": cudnn.AttentionLayout.BTNH.value,
        "sliding_window_length": rule.window or None,
    }
