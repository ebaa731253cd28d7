"""On a GPU: the kernels that are chosen, against plain ones in float32. `make gpu` runs them."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxtrain.model import grouped, kernels
from jaxtrain.model.config import ModelConfig
from jaxtrain.runtime import mesh as meshes

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:jax.experimental.pallas.ops.gpu.attention")]
PACKED = ModelConfig(heads=8, kv_heads=8, head_dim=64, dtype="bfloat16", max_length=1024)
CASES = {
    "packed": PACKED,
    "grouped": dataclasses.replace(PACKED, kv_heads=2),
    "window": dataclasses.replace(PACKED, window=256),
    "bounded": dataclasses.replace(PACKED, attention_softcap=30.0),
    "wide": dataclasses.replace(PACKED, heads=2, kv_heads=1, head_dim=256),
}
B, T = 2, 1024
SEGMENTS = np.repeat(np.repeat([[1, 2, 3, 0]], [400, 300, 260, 64], axis=1), B, axis=0).astype(np.int32)


def attended(config: ModelConfig, q, k, v, segments=SEGMENTS) -> jax.Array:
    slots = jnp.broadcast_to(jnp.arange(T), (B, T))
    sight = kernels.see(config, slots, jnp.asarray(segments), jnp.arange(T))[config.is_local[0]]
    return kernels.attend(q, k, v, sight, config, config.is_local[0])


def heads(config: ModelConfig) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    sizes = (config.heads, config.kv_heads, config.kv_heads)
    return [jnp.asarray(rng.normal(size=(B, T, n, config.head_dim)), jnp.bfloat16) for n in sizes]


@pytest.mark.parametrize("name", CASES)
def test_attention_and_its_gradients(name: str) -> None:
    config = CASES[name]
    plain = dataclasses.replace(config, attention="xla", dtype="float32")
    real = jnp.asarray(SEGMENTS > 0)[:, :, None, None]

    def outcome(config: ModelConfig, q, k, v):
        def loss(*inputs):
            out = jnp.where(real, attended(config, *inputs), 0)
            return jnp.sum(out.astype(jnp.float32) ** 2), out

        gradients, out = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
        return out, *gradients

    meshes.ensure()
    inputs = heads(config)
    wanted = outcome(plain, *(x.astype(jnp.float32) for x in inputs))
    for mine, theirs in zip(outcome(config, *inputs), wanted, strict=True):
        error = jnp.linalg.norm(mine.astype(jnp.float32) - theirs) / jnp.linalg.norm(theirs)
        assert error < 1e-2


@pytest.mark.parametrize("name", CASES)
def test_a_document_is_the_same_to_the_bit_whatever_stands_beside_it(name: str) -> None:
    config, (q, k, v) = CASES[name], heads(CASES[name])
    meshes.ensure()
    attend = jax.jit(lambda q, k, v: attended(config, q, k, v))
    first = SEGMENTS == 1
    changed = [jnp.where(jnp.asarray(first)[:, :, None, None], x + 1, x) for x in (q, k, v)]
    before, after = (np.asarray(attend(*x).astype(jnp.float32)) for x in ((q, k, v), changed))
    others = SEGMENTS > 1
    np.testing.assert_array_equal(before[others], after[others])
    assert (before[first] != after[first]).any()


@pytest.mark.parametrize("counts", [[700, 0, 250, 50], [0, 1000, 0, 0], [1, 127, 640, 256]])
def test_grouped_matmuls_and_their_gradients(counts: list[int]) -> None:
    rng = np.random.default_rng(0)
    shapes = ((1024, 256), (4, 256, 384), (1024, 384))
    x_RI, w_EIO, g_RO = (jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in shapes)
    counts_E = jnp.asarray(counts, jnp.int32)
    real = (jnp.arange(1024) < sum(counts))[:, None]
    meshes.ensure()

    def outcome(matmul, x_RI, w_EIO):
        def loss(x_RI, w_EIO):
            of_device = meshes.per_device(matmul, (P(), P(), P()), P(), check=False)
            out_RO = jnp.where(real, of_device(x_RI, w_EIO, counts_E), 0)
            return jnp.sum((out_RO * g_RO).astype(jnp.float32)), out_RO

        (x_bar, w_bar), out = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x_RI, w_EIO)
        return out, jnp.where(real, x_bar, 0), w_bar

    wanted = outcome(jax.lax.ragged_dot, x_RI.astype(jnp.float32), w_EIO.astype(jnp.float32))
    for mine, theirs in zip(outcome(partial(grouped.matmul, usual=512), x_RI, w_EIO), wanted, strict=True):
        error = jnp.linalg.norm(mine.astype(jnp.float32) - theirs) / jnp.linalg.norm(theirs)
        assert error < 1e-2
