"""Gated DeltaNet (Yang et al. 2025): in the place of keys and values a memory of one matrix S a head.

    S ← exp(g) S               it fades
    S ← S + k (β (v − Sᵀ k))ᵀ  what it says of a key is corrected
    out = Sᵀ q

A sequence is read in chunks: in one of them the corrections solve a triangular system, between two S is
carried. Each document begins with S = 0. A cache holds S, and the last tokens as the convolution sees them.

B batch, T time, C, X time of a chunk, D model, K key heads, N value heads, H width of a key, V of a value,
F all that is convolved of a key head, W tokens that the convolution sees
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.kernels import Sight
from jaxtrain.model.layers import Layout, Norm, normal, project, zeros
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import BATCH

CHUNK, W = 64, 4
"""Tokens that are read at once, and that the convolution sees (as published)."""
HEADS, OF_HEADS = P(BATCH, None, "tensor", None), P("tensor")


class Memory(NamedTuple):
    """What is kept of the tokens before."""

    state_BNHV: jax.Array
    """S, float32."""
    seen_BWKF: jax.Array
    """The last W − 1 tokens as the convolution sees them."""


KEPT = Memory(P(BATCH, "tensor", None, None), HEADS)


class GatedDelta(nnx.Module):
    """In the place of `Attention` in the local layers."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        D, K, N = config.d_model, config.delta_key_heads, config.delta_value_heads
        H, V, F = config.delta_key_dim, config.delta_value_dim, config.delta_value_dim * N // K
        self.config, into, taps = config, P("fsdp", "tensor", None), P(None, "tensor", None)
        # of a key head: its query and key, its values, their gates
        self.q_k_v_gate_DKF = normal(key, "q_k_v_gate", (D, K, 2 * H + 2 * F), into, D**-0.5)
        # of its values: how much is corrected, and how fast it fades
        self.rates_DKF = normal(key, "rates", (D, K, 2 * N // K), into, D**-0.5)
        self.taps_q_WKF = normal(key, "taps_q", (W, K, H), taps, W**-0.5)
        self.taps_k_WKF = normal(key, "taps_k", (W, K, H), taps, W**-0.5)
        self.taps_v_WKF = normal(key, "taps_v", (W, K, F), taps, W**-0.5)
        self.fade_bias_N, self.fade_log_N = zeros((N,), OF_HEADS), zeros((N,), OF_HEADS)
        self.norm = Norm(replace(config, norm_plus_one=False), (V,))
        small = (2 * config.layers * N * V) ** -0.5
        self.o_NVD = normal(key, "o", (N, V, D), P("tensor", None, "fsdp"), small)

    def __call__(self, x_BTD: jax.Array, sight: Sight, layout: Layout, is_local: bool) -> jax.Array:
        """x after a whole sequence."""
        if jax.sharding.get_abstract_mesh().shape["context"] > 1:
            raise UserError("mesh context: a gated DeltaNet reads a sequence in its order; set it to 1")
        B, T, _ = x_BTD.shape
        count_B = jnp.full((B,), T, jnp.int32, out_sharding=P(BATCH))
        return self.extend(x_BTD, sight.segments_BT, count_B, new_memory(self.config, B), layout)[0]

    def extend(
        self, x_BTD: jax.Array, segments_BT: jax.Array, count_B: jax.Array, memory: Memory, layout: Layout
    ) -> tuple[jax.Array, Memory]:
        """x after tokens behind those of the memory, and the memory behind a row's first `count_B`."""
        both_BTKF = project("btd,dkf->btkf", x_BTD, self.q_k_v_gate_DKF, HEADS)
        rates_BTKF = project("btd,dkf->btkf", x_BTD, self.rates_DKF, HEADS)
        taps_WKF = jnp.concatenate([w[...] for w in (self.taps_q_WKF, self.taps_k_WKF, self.taps_v_WKF)], -1)
        weights = (taps_WKF.astype(x_BTD.dtype), self.fade_bias_N[...], self.fade_log_N[...])
        rows = (jax.sharding.reshard(segments_BT, P(BATCH, None)), count_B)
        specs = (HEADS, HEADS, P(None, "tensor", None), OF_HEADS, OF_HEADS, P(BATCH, None), P(BATCH), KEPT)
        read = meshes.per_device(partial(_read, self.config), specs, (HEADS, HEADS, KEPT))
        out_BTNV, gate_BTNV, memory = read(both_BTKF, rates_BTKF, *weights, *rows, memory)
        out_BTNV = (self.norm(out_BTNV) * jax.nn.silu(gate_BTNV)).astype(x_BTD.dtype)
        return project("btnh,nhd->btd", out_BTNV, self.o_NVD, layout.between), memory


def new_memory(config: ModelConfig, rows: int) -> Memory:
    """Before the first token."""
    K, N = config.delta_key_heads, config.delta_value_heads
    H, V = config.delta_key_dim, config.delta_value_dim
    state_BNHV = jnp.zeros((rows, N, H, V), jnp.float32, out_sharding=KEPT.state_BNHV)
    seen = (rows, W - 1, K, 2 * H + N // K * V)
    return Memory(state_BNHV, jnp.zeros(seen, config.dtype, out_sharding=KEPT.seen_BWKF))


def _read(config, both_BTKF, rates_BTKF, taps_WKF, bias_N, log_N, segments_BT, count_B, memory: Memory):
    """On one device: what is read of S [B, T, N, V], float32, its gates, and the memory behind."""
    (B, T, K, _), F, (state_BNHV, seen_BWKF) = both_BTKF.shape, taps_WKF.shape[-1], memory
    H, G = config.delta_key_dim, rates_BTKF.shape[-1] // 2
    line_BXKF = jnp.concatenate([seen_BWKF.astype(both_BTKF.dtype), both_BTKF[..., :F]], axis=1)
    segments_BX = jnp.pad(segments_BT, ((0, 0), (W - 1, 0)), mode="edge")
    mixed_BTKF = jnp.zeros((B, T, K, F), jnp.float32)
    for w in range(W):
        same_BT11 = (segments_BX[:, w : w + T] == segments_BT)[..., None, None]
        mixed_BTKF += jnp.where(same_BT11, line_BXKF[:, w : w + T] * taps_WKF[w], 0)
    seen = jax.vmap(lambda line, count: jax.lax.dynamic_slice_in_dim(line, count, W - 1))(line_BXKF, count_B)

    q_BTKH, k_BTKH, v_BTKF = jnp.split(jax.nn.silu(mixed_BTKF), (H, 2 * H), axis=-1)
    q_BTNH, k_BTNH = (jnp.repeat(_unit(x), G, axis=2) for x in (q_BTKH, k_BTKH))
    of_heads = lambda x: x.reshape(B, T, K * G, -1)  # noqa: E731
    share_BTN, fade_BTN = (of_heads(x)[..., 0] for x in jnp.split(rates_BTKF.astype(jnp.float32), 2, axis=-1))
    is_real_BT1 = (jnp.arange(T) < count_B[:, None])[..., None]
    share_BTN = jnp.where(is_real_BT1, jax.nn.sigmoid(share_BTN), 0)
    fade_BTN = jnp.where(is_real_BT1, -jnp.exp(log_N) * jax.nn.softplus(fade_BTN + bias_N), 0)
    sequence = (q_BTNH * H**-0.5, k_BTNH, of_heads(v_BTKF), share_BTN, fade_BTN, segments_BT)
    out_BTNV, state_BNHV = delta_rule(sequence, state_BNHV)
    gate_BTNV = of_heads(both_BTKF[..., F:]).astype(jnp.float32)
    return out_BTNV, gate_BTNV, Memory(state_BNHV, seen.astype(seen_BWKF.dtype))


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)


def delta_rule(sequence: tuple[jax.Array, ...], state_BNHV: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What is read of S [B, T, N, V], and S behind the last token.

    sequence: queries and keys [B, T, N, H], values [B, T, N, V], β and g [B, T, N], all float32, and segments
    [B, T]. A token with β = g = 0 changes nothing.
    """
    B, T = sequence[-1].shape
    C = min(CHUNK, T)

    def cut(x: jax.Array) -> jax.Array:
        """Chunks [T / C, B, C, ...], filled up with tokens that change nothing."""
        mode = "edge" if x.ndim == 2 else "constant"
        x = jnp.pad(x, ((0, 0), (0, -T % C), *[(0, 0)] * (x.ndim - 2)), mode=mode)
        return jnp.moveaxis(x.reshape(B, -1, C, *x.shape[2:]), 1, 0)

    begun = state_BNHV, sequence[-1][:, :1]
    (state_BNHV, _), out = jax.lax.scan(jax.checkpoint(_chunk), begun, tuple(map(cut, sequence)))
    return jnp.moveaxis(out, 0, 1).reshape(B, -1, *out.shape[3:])[:, :T], state_BNHV


def _chunk(carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, ...]):
    """S and the last token's segment behind a chunk, and what its tokens read [B, C, N, V]."""
    state_BNHV, last_B1 = carry
    q_BCNH, k_BCNH, v_BCNV, share_BCN, fade_BCN, segments_BC = inputs
    share_BNC1, faded_BNC = jnp.moveaxis(share_BCN, 1, 2)[..., None], jnp.moveaxis(fade_BCN, 1, 2).cumsum(-1)
    seen_B1CX = jnp.tril(segments_BC[:, :, None] == segments_BC[:, None, :])[:, None]
    # of what token x wrote, what is left at token c; and of S as it came
    left_BNCX = jnp.exp(jnp.where(seen_B1CX, faded_BNC[..., None] - faded_BNC[:, :, None], -jnp.inf))
    left_BNC = jnp.where((segments_BC == last_B1)[:, None], jnp.exp(faded_BNC), 0)
    alike_BNCX = jnp.einsum("bcnh,bxnh->bncx", k_BCNH, k_BCNH) * left_BNCX * share_BNC1
    said_BNCV = jnp.einsum("bcnh,bnhv,bnc->bncv", k_BCNH, state_BNHV, left_BNC)
    wrong_BNCV = share_BNC1 * (jnp.moveaxis(v_BCNV, 1, 2) - said_BNCV)
    solve = partial(jax.scipy.linalg.solve_triangular, lower=True, unit_diagonal=True)
    delta_BNCV = solve(jnp.tril(alike_BNCX, -1), wrong_BNCV)
    asked_BNCX = jnp.einsum("bcnh,bxnh->bncx", q_BCNH, k_BCNH) * left_BNCX
    out_BCNV = jnp.einsum("bncx,bnxv->bcnv", asked_BNCX, delta_BNCV)
    out_BCNV += jnp.einsum("bcnh,bnhv,bnc->bcnv", q_BCNH, state_BNHV, left_BNC)
    state_BNHV = state_BNHV * left_BNC[..., -1, None, None]
    state_BNHV += jnp.einsum("bcnh,bncv,bnc->bnhv", k_BCNH, delta_BNCV, left_BNCX[:, :, -1])
    return (state_BNHV, segments_BC[:, -1:]), out_BCNV
