"""Multi-head latent attention (DeepSeek-V2 and V3, Liu et al. 2024): keys and values of all heads are made of
one small vector a token, the latent, and only that is cached.

Beside it each token has one rotated key for all heads. A whole sequence is attended to with the heads' own
keys and values; with a cache the matrices that would make these are moved to the queries and the output, and
attention is to the latents themselves, as to one key head.

B batch, T time, D model, N heads, C rank of a latent, H head dim, P its rotated dimensions, V value dim
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.kernels import Sight, attend
from jaxtrain.model.layers import Layout, Norm, normal, project, rotate
from jaxtrain.runtime.mesh import BATCH


class LatentAttention(nnx.Module):
    """In the place of `Attention`."""

    sinks = None

    def __init__(self, config: ModelConfig, key: jax.Array):
        D, N, H, V = config.d_model, config.heads, config.head_dim, config.value_dim
        C, Q = config.latent_rank, config.query_rank
        self.config, self.still = config, H - config.rotary_dim
        # the published code's norms of latents have this constant, whatever that of the others is
        norm = lambda rank: Norm(replace(config, norm_eps=1e-6), (rank,))  # noqa: E731
        into, apart = P("fsdp", None), P("fsdp", "tensor", None)
        self.q_down_DC = normal(key, "q_down", (D, Q), into, D**-0.5) if Q else None
        self.q_norm = norm(Q) if Q else None
        self.q_up_CNH = normal(key, "q_up", (Q, N, H), apart, Q**-0.5) if Q else None
        self.q_DNH = None if Q else normal(key, "q", (D, N, H), apart, D**-0.5)
        # the latent, and behind it the key that is rotated
        self.kv_down_DC = normal(key, "kv_down", (D, C + config.rotary_dim), into, D**-0.5)
        self.kv_norm = norm(C)
        # of each head the part of its key that is not rotated, and behind it its value
        self.kv_up_CNH = normal(key, "kv_up", (C, N, self.still + V), apart, C**-0.5)
        small = (2 * config.layers * N * V) ** -0.5
        self.o_NHD = normal(key, "o", (N, V, D), P("tensor", None, "fsdp"), small)

    def __call__(self, x_BTD: jax.Array, sight: Sight, layout: Layout, is_local: bool) -> jax.Array:
        """x after attention of a whole sequence."""
        config, still = self.config, self.still
        q_BTNH, latent_BTC, rotated_BTP = self._compressed(x_BTD, sight.positions_BT, layout, is_local)
        kv_BTNH = project("btc,cnh->btnh", latent_BTC, self.kv_up_CNH, layout.heads)
        shape = (*q_BTNH.shape[:3], config.rotary_dim)
        shared_BTNP = jax.sharding.reshard(jnp.broadcast_to(rotated_BTP[:, :, None], shape), layout.heads)
        k_BTNH = jnp.concatenate([kv_BTNH[..., :still], shared_BTNP], axis=-1)
        # kernels take values as wide as keys
        wider = ((0, 0), (0, 0), (0, 0), (0, config.head_dim - config.value_dim))
        v_BTNH = jnp.pad(kv_BTNH[..., still:], wider)
        out_BTNH = attend(q_BTNH, k_BTNH, v_BTNH, sight, config, is_local)
        return project("btnh,nhd->btd", out_BTNH[..., : config.value_dim], self.o_NHD, layout.between)

    def turned(self, x_BTD: jax.Array, positions_BT: jax.Array, layout: Layout, is_local: bool):
        """Queries of latents [B, T, N, C + P], the key [B, T, 1, C + P]; the value is in the key, no gate."""
        q_BTNH, latent_BTC, rotated_BTP = self._compressed(x_BTD, positions_BT, layout, is_local)
        still_BTNH, turned_BTNP = q_BTNH[..., : self.still], q_BTNH[..., self.still :]
        up_CNH = self.kv_up_CNH[...].astype(x_BTD.dtype)[..., : self.still]
        moved_BTNC = jnp.einsum("btnh,cnh->btnc", still_BTNH, up_CNH, out_sharding=layout.heads)
        key_BT1C = jnp.concatenate([latent_BTC, rotated_BTP], axis=-1)[:, :, None]
        return jnp.concatenate([moved_BTNC, turned_BTNP], axis=-1), key_BT1C, key_BT1C[..., :0], None

    def project_out(self, out_BTNC: jax.Array, _: None, layout: Layout) -> jax.Array:
        """Of attention to latents."""
        up_CNH = self.kv_up_CNH[...].astype(out_BTNC.dtype)[..., self.still :]
        out_BTNH = jnp.einsum("btnc,cnh->btnh", out_BTNC, up_CNH, out_sharding=layout.heads)
        return project("btnh,nhd->btd", out_BTNH, self.o_NHD, layout.between)

    def _compressed(self, x_BTD: jax.Array, positions_BT: jax.Array, layout: Layout, is_local: bool):
        """Queries [B, T, N, H], latent [B, T, C] and shared key [B, T, P], rotated."""
        config, whole = self.config, P(BATCH, layout.time, None)
        if self.q_norm is None:
            q_BTNH = project("btd,dnh->btnh", x_BTD, self.q_DNH, layout.heads)
        else:
            low_BTC = self.q_norm(project("btd,dc->btc", x_BTD, self.q_down_DC, whole))
            q_BTNH = project("btc,cnh->btnh", low_BTC, self.q_up_CNH, layout.heads)
        both_BTC = project("btd,dc->btc", x_BTD, self.kv_down_DC, whole)
        latent_BTC, key_BTP = both_BTC[..., : config.latent_rank], both_BTC[..., config.latent_rank :]
        turned_BTNP = rotate(config, q_BTNH[..., self.still :], positions_BT, is_local)
        key_BT1P = rotate(config, key_BTP[:, :, None], positions_BT, is_local)
        q_BTNH = jnp.concatenate([q_BTNH[..., : self.still], turned_BTNP], axis=-1)
        return q_BTNH, self.kv_norm(latent_BTC), key_BT1P[:, :, 0]
