"""Weights with their shardings, and the small layers.

B batch, T time, D model, N query heads, K key heads, H head dim, F hidden, V vocab
"""

import zlib
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain.model.config import ModelConfig
from jaxtrain.runtime.mesh import BATCH

ACTIVATION = P(BATCH, "context", None)
"""Sharding of x_BTD between blocks."""


def named_key(key: jax.Array, name: str) -> jax.Array:
    """A key by name and not by order, so that adding a weight moves no other."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def normal(key: jax.Array, name: str, shape: tuple[int, ...], spec: P, scale: float) -> nnx.Param:
    """A weight drawn from N(0, scale²), float32, sharded by `spec`."""
    values = scale * jax.random.normal(named_key(key, name), shape, jnp.float32, out_sharding=spec)
    return nnx.Param(values)


class RMSNorm(nnx.Module):
    """Zhang and Sennrich 2019; statistics in float32."""

    def __init__(self, size: int, eps: float):
        self.scale = nnx.Param(jnp.ones((size,), jnp.float32))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return (normed * self.scale[...]).astype(x.dtype)


def rotate(x_BTNH: jax.Array, positions_BT: jax.Array, theta: float) -> jax.Array:
    """Rotary position embedding (Su et al. 2021), halves paired as in Llama's Hugging Face layout."""
    half = x_BTNH.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions_BT.astype(jnp.float32)[:, :, None, None] * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BTNH.dtype)


class MLP(nnx.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        D, F = config.d_model, config.d_hidden
        self.gate_DF = normal(key, "gate", (D, F), P("fsdp", "tensor"), D**-0.5)
        self.up_DF = normal(key, "up", (D, F), P("fsdp", "tensor"), D**-0.5)
        self.down_FD = normal(key, "down", (F, D), P("tensor", "fsdp"), (2 * config.layers * F) ** -0.5)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        hidden = P(BATCH, "context", "tensor")
        gate_BTF = project("btd,df->btf", x_BTD, self.gate_DF, hidden)
        up_BTF = project("btd,df->btf", x_BTD, self.up_DF, hidden)
        return project("btf,fd->btd", jax.nn.silu(gate_BTF) * up_BTF, self.down_FD, ACTIVATION)


def project(equation: str, x: jax.Array, weight: nnx.Param, sharding: P) -> jax.Array:
    """A matmul of activations and a weight, in the dtype of the activations, its output sharded as said."""
    return contract(equation, sharding, x, weight[...].astype(x.dtype))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def contract(equation: str, sharding: P, x: jax.Array, w: jax.Array) -> jax.Array:
    """`einsum(equation, x, w)` for this network's equations: each index stands in two of the three terms.

    The gradients are the einsums that a reader would write, each with its operand's own sharding. JAX's
    derived ones are the same numbers transposed, which XLA for CPUs turns into strided copies of the
    activations: a gated MLP's step took twice as long (`benchmarks/notes.md`).
    """
    return jnp.einsum(equation, x, w, out_sharding=sharding)


def _contract_forward(equation: str, sharding: P, x: jax.Array, w: jax.Array):
    return contract(equation, sharding, x, w), (x, w)


def _contract_backward(equation: str, sharding: P, saved: tuple[jax.Array, jax.Array], gradient: jax.Array):
    x, w = saved
    terms, out = equation.split("->")
    x_term, w_term = terms.split(",")
    x_bar = jnp.einsum(f"{out},{w_term}->{x_term}", gradient, w, out_sharding=jax.typeof(x).sharding.spec)
    w_bar = jnp.einsum(f"{x_term},{out}->{w_term}", x, gradient, out_sharding=jax.typeof(w).sharding.spec)
    return x_bar, w_bar


contract.defvjp(_contract_forward, _contract_backward)
