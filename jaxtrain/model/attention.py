"""Causal attention that stays inside a document, and the cache of keys and values.

B batch, T time of queries, S time of keys, D model, N query heads, K key heads, G = N / K, H head dim
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import ACTIVATION, RMSNorm, normal, project, rotate
from jaxtrain.runtime.mesh import BATCH


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of every layer, and what stands in each slot."""

    k_LBSKH: jax.Array
    v_LBSKH: jax.Array
    segment_ids_BS: jax.Array
    """0 where the slot holds padding or nothing yet."""
    used: jax.Array
    """int32 scalar: slots written so far, the same for every row."""


def new_cache(config: ModelConfig, rows: int, slots: int) -> Cache:
    """An empty cache of `slots` tokens for `rows` sequences."""
    shape = (config.layers, rows, slots, config.kv_heads, config.head_dim)
    spec = P(None, BATCH, None, "tensor", None)
    zeros = jnp.zeros(shape, config.dtype, out_sharding=spec)
    return Cache(zeros, zeros, jnp.zeros((rows, slots), jnp.int32, out_sharding=P(BATCH, None)), jnp.int32(0))


def visible(segments_BT: jax.Array, segments_BS: jax.Array, offset: jax.Array | int) -> jax.Array:
    """Mask [B, T, S]: query t (in slot `offset` + t) sees key s of its own segment, not after it."""
    segments_BS = jax.sharding.reshard(segments_BS, P(BATCH, None))
    T, S = segments_BT.shape[1], segments_BS.shape[1]
    causal_TS = (offset + jnp.arange(T))[:, None] >= jnp.arange(S)[None, :]
    return causal_TS[None] & (segments_BT[:, :, None] == segments_BS[:, None, :])


def attend(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask_BTS: jax.Array) -> jax.Array:
    """Scaled dot-product attention with grouped queries, [B, T, N, H]; scores and softmax in float32."""
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    heads = P(BATCH, "context", "tensor", None, None)
    q_BTKGH = jnp.reshape(q_BTNH, (B, T, K, N // K, H), out_sharding=heads)
    scores = P(BATCH, "tensor", None, "context", None)
    score_BKGTS = jnp.einsum(
        "btkgh,bskh->bkgts", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32, out_sharding=scores
    )
    score_BKGTS = jnp.where(mask_BTS[:, None, None], score_BKGTS * H**-0.5, -1e30)
    share_BKGTS = jax.nn.softmax(score_BKGTS, axis=-1).astype(v_BSKH.dtype)
    out_BTKGH = jnp.einsum("bkgts,bskh->btkgh", share_BKGTS, v_BSKH, out_sharding=heads)
    return jnp.reshape(out_BTKGH, (B, T, N, H), out_sharding=P(BATCH, "context", "tensor", None))


class Attention(nnx.Module):
    """Grouped-query attention (Ainslie et al. 2023) with rotary positions and normalised queries and keys."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        D, N, K, H = config.d_model, config.heads, config.kv_heads, config.head_dim
        self.q_DNH = normal(key, "q", (D, N, H), P("fsdp", "tensor", None), D**-0.5)
        self.k_DKH = normal(key, "k", (D, K, H), P("fsdp", "tensor", None), D**-0.5)
        self.v_DKH = normal(key, "v", (D, K, H), P("fsdp", "tensor", None), D**-0.5)
        self.o_NHD = normal(
            key, "o", (N, H, D), P("tensor", None, "fsdp"), (2 * config.layers * N * H) ** -0.5
        )
        self.q_norm = RMSNorm(H, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(H, config.norm_eps) if config.qk_norm else None
        self.theta = config.rope_theta

    def __call__(
        self,
        x_BTD: jax.Array,
        positions_BT: jax.Array,
        mask_BTS: jax.Array,
        cached: tuple[jax.Array, jax.Array, jax.Array] | None = None,
    ):
        """x after attention, and the keys and values to keep (`cached` = k, v [B, S, K, H], slots used)."""
        heads = P(BATCH, "context", "tensor", None)
        q_BTNH = project("btd,dnh->btnh", x_BTD, self.q_DNH, heads)
        k_BTKH = project("btd,dkh->btkh", x_BTD, self.k_DKH, heads)
        v_BTKH = project("btd,dkh->btkh", x_BTD, self.v_DKH, heads)
        if self.q_norm is not None and self.k_norm is not None:
            q_BTNH, k_BTKH = self.q_norm(q_BTNH), self.k_norm(k_BTKH)
        q_BTNH = rotate(q_BTNH, positions_BT, self.theta)
        k_BTKH = rotate(k_BTKH, positions_BT, self.theta)
        whole = P(BATCH, None, "tensor", None)  # every query sees the keys of the whole sequence
        k_BSKH, v_BSKH = jax.sharding.reshard(k_BTKH, whole), jax.sharding.reshard(v_BTKH, whole)
        if cached is not None:
            k_before, v_before, used = cached
            k_BSKH = jax.lax.dynamic_update_slice_in_dim(k_before, k_BSKH, used, axis=1)
            v_BSKH = jax.lax.dynamic_update_slice_in_dim(v_before, v_BSKH, used, axis=1)
        out_BTNH = attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS)
        return project("btnh,nhd->btd", out_BTNH, self.o_NHD, ACTIVATION), (k_BSKH, v_BSKH)
