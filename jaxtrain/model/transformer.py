"""The transformer: a stack of identical blocks, scanned, so that compile time does not grow with depth.

B batch, T time, D model, V vocab, L layers
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain.model.attention import Attention, Cache, visible
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import ACTIVATION, MLP, RMSNorm, named_key, normal, project
from jaxtrain.runtime.mesh import BATCH


class Block(nnx.Module):
    """Attention, then the MLP, each on the normed residual stream."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config, named_key(key, "attention"))
        self.mlp_norm = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = MLP(config, named_key(key, "mlp"))

    def __call__(self, x_BTD, positions_BT, mask_BTS, cached=None):
        attended_BTD, kept = self.attention(self.attention_norm(x_BTD), positions_BT, mask_BTS, cached)
        x_BTD = x_BTD + attended_BTD
        return x_BTD + self.mlp(self.mlp_norm(x_BTD)), kept


class Transformer(nnx.Module):
    """Decoder-only language model. `Transformer(config, key)` draws weights on the mesh that is set."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        D, V = config.d_model, config.vocab_size
        self.config = config
        self.embedding_VD = normal(key, "embedding", (V, D), P(None, "fsdp"), 1.0)
        layer_keys = jax.random.split(named_key(key, "blocks"), config.layers)
        self.blocks = jax.vmap(lambda layer_key: Block(config, layer_key))(layer_keys)
        self.norm = RMSNorm(D, config.norm_eps)
        self.head_DV = normal(key, "head", (D, V), P("fsdp", "tensor"), D**-0.5)

    def __call__(
        self,
        tokens_BT: jax.Array,
        segment_ids_BT: jax.Array | None = None,
        positions_BT: jax.Array | None = None,
    ) -> jax.Array:
        """Logits [B, T, V], float32."""
        return self.logits(self.hidden(tokens_BT, segment_ids_BT, positions_BT))

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        return project("btd,dv->btv", x_BTD, self.head_DV, P(BATCH, "context", "tensor")).astype(jnp.float32)

    def hidden(
        self,
        tokens_BT: jax.Array,
        segment_ids_BT: jax.Array | None = None,
        positions_BT: jax.Array | None = None,
    ) -> jax.Array:
        """The last hidden states [B, T, D], normed: what the output head and a reward head read."""
        if segment_ids_BT is None:
            segment_ids_BT = jnp.ones_like(tokens_BT)
        if positions_BT is None:
            positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        mask_BTS = visible(segment_ids_BT, segment_ids_BT, 0)

        def layer(x_BTD: jax.Array, block: Block):
            return block(x_BTD, positions_BT, mask_BTS)[0], None

        x_BTD, _ = jax.lax.scan(layer, self._embed(tokens_BT), self.blocks)
        return self.norm(x_BTD)

    def extend(
        self, tokens_BT: jax.Array, segment_ids_BT: jax.Array, positions_BT: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Hidden states [B, T, D] of tokens that follow those in the cache, and the cache with them in it."""
        segments_BS = jax.lax.dynamic_update_slice_in_dim(
            cache.segment_ids_BS, segment_ids_BT, cache.used, axis=1
        )
        mask_BTS = visible(segment_ids_BT, segments_BS, cache.used)

        def layer(x_BTD: jax.Array, inputs):
            block, k_BSKH, v_BSKH = inputs
            return block(x_BTD, positions_BT, mask_BTS, (k_BSKH, v_BSKH, cache.used))

        x_BTD, (k_LBSKH, v_LBSKH) = jax.lax.scan(
            layer, self._embed(tokens_BT), (self.blocks, cache.k_LBSKH, cache.v_LBSKH)
        )
        cache = dataclasses.replace(
            cache,
            k_LBSKH=k_LBSKH,
            v_LBSKH=v_LBSKH,
            segment_ids_BS=segments_BS,
            used=cache.used + tokens_BT.shape[1],
        )
        return self.norm(x_BTD), cache

    def _embed(self, tokens_BT: jax.Array) -> jax.Array:
        return self.embedding_VD[...].at[tokens_BT].get(out_sharding=ACTIVATION).astype(self.config.dtype)
