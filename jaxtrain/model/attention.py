"""Causal attention that stays inside a document.

B batch, T time of queries, D model, N query heads, K key heads, H head dim
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.kernels import Sight, attend
from jaxtrain.model.layers import Layout, Norm, add, normal, project, rotate, zeros


class Attention(nnx.Module):
    """Grouped-query attention (Ainslie et al. 2023), with rotary positions unless they are learned."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        D, N, K, H = config.d_model, config.heads, config.kv_heads, config.head_dim
        self.config = config
        # of each head its queries, and behind them its gate
        wide = 2 * H if config.output_gates else H
        self.q_DNH = normal(key, "q", (D, N, wide), P("fsdp", "tensor", None), D**-0.5)
        self.k_DKH = normal(key, "k", (D, K, H), P("fsdp", "tensor", None), D**-0.5)
        self.v_DKH = normal(key, "v", (D, K, H), P("fsdp", "tensor", None), D**-0.5)
        small = (2 * config.layers * N * H) ** -0.5
        self.o_NHD = normal(key, "o", (N, H, D), P("tensor", None, "fsdp"), small)
        self.q_bias_NH = zeros((N, H), P("tensor", None)) if config.qkv_bias else None
        self.k_bias_KH = zeros((K, H), P("tensor", None)) if config.qkv_bias else None
        self.v_bias_KH = zeros((K, H), P("tensor", None)) if config.qkv_bias else None
        self.o_bias_D = zeros((D,), P(None)) if config.output_bias else None
        self.sinks_N = zeros((N,), P("tensor")) if config.sinks else None
        whole, bare = config.qk_norm_whole, replace(config, norm="bare")
        norm = partial(Norm, bare if config.qk_norm_bare else config)
        self.q_norm = norm((N, H) if whole else (H,)) if config.qk_norm else None
        self.k_norm = norm((K, H) if whole else (H,)) if config.qk_norm else None

    def __call__(self, x_BTD: jax.Array, sight: Sight, layout: Layout, is_local: bool) -> jax.Array:
        """x after attention of a whole sequence."""
        *qkv, gate_BTNH = self.turned(x_BTD, sight.positions_BT, layout, is_local)
        out_BTNH = attend(*qkv, sight, self.config, is_local, self.sinks)
        return self.project_out(out_BTNH, gate_BTNH, layout)

    @property
    def sinks(self) -> jax.Array | None:
        return None if self.sinks_N is None else self.sinks_N[...]

    def turned(self, x_BTD: jax.Array, positions_BT: jax.Array, layout: Layout, is_local: bool):
        """Queries, keys and values of x, as they are compared, and the gate of what is found, if any."""
        q_BTNH = add(project("btd,dnh->btnh", x_BTD, self.q_DNH, layout.heads), self.q_bias_NH)
        k_BTKH = add(project("btd,dkh->btkh", x_BTD, self.k_DKH, layout.heads), self.k_bias_KH)
        v_BTKH = add(project("btd,dkh->btkh", x_BTD, self.v_DKH, layout.heads), self.v_bias_KH)
        gate_BTNH = None
        if self.config.output_gates:
            q_BTNH, gate_BTNH = jnp.split(q_BTNH, 2, axis=-1)
        q_BTNH, k_BTKH = (
            self._turned(x, norm, positions_BT, is_local)
            for x, norm in ((q_BTNH, self.q_norm), (k_BTKH, self.k_norm))
        )
        if self.config.temperature_scale and not self.config.rotates(is_local):
            times_BT = jnp.log1p(jnp.floor((positions_BT + 1) / self.config.temperature_length))
            factor_BT11 = (1 + self.config.temperature_scale * times_BT)[..., None, None]
            q_BTNH = (q_BTNH * factor_BT11).astype(q_BTNH.dtype)
        return q_BTNH, k_BTKH, v_BTKH, gate_BTNH

    def _turned(self, x: jax.Array, norm: Norm | None, positions_BT: jax.Array, is_local: bool) -> jax.Array:
        """Queries or keys, normalised before the rotation or behind it."""
        config = self.config
        norm = None if config.qk_norm_bare and not config.rotates(is_local) else norm
        if norm is None:
            return rotate(config, x, positions_BT, is_local)
        if config.qk_norm_last:
            return norm(rotate(config, x, positions_BT, is_local))
        return rotate(config, norm(x), positions_BT, is_local)

    def project_out(self, out_BTNH: jax.Array, gate_BTNH: jax.Array | None, layout: Layout) -> jax.Array:
        if gate_BTNH is not None:
            out_BTNH = out_BTNH * jax.nn.sigmoid(gate_BTNH)
        return add(project("btnh,nhd->btd", out_BTNH, self.o_NHD, layout.between), self.o_bias_D)
