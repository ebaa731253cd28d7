"""Every attention kernel against the dense one, and that no document sees its neighbour."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxtrain.model import block_attention, kernels
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import Rule
from jaxtrain.model.ring_attention import balanced_order, ring
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import AXES, BATCH

# Newer JAX points to another package; its own kernel is still there and still right.
pytestmark = pytest.mark.filterwarnings("ignore:jax.experimental.pallas.ops.gpu.attention is deprecated")
B, T, N, K, H = 2, 128, 4, 2, 64


@pytest.fixture(scope="module")
def inputs():
    """Queries, keys, values, and segments of three documents and padding."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(B, T, heads, H)).astype(np.float32) for heads in (N, K, K))
    segments = np.repeat(np.repeat(np.array([[1, 2, 3, 0]], np.int32), [40, 50, 30, 8], axis=1), B, axis=0)
    return q, k, v, segments


def dense(q, k, v, segments, bound, window):
    """On one device, in natural order."""
    behind = np.arange(T)[:, None] - np.arange(T)[None]
    mask = (behind >= 0) & (segments[:, :, None] == segments[:, None, :])
    mask = mask & (behind < window) if window else mask
    return kernels.dense(Rule(0.1, bound), q, k, v, jnp.asarray(mask))


def around(q, k, v, segments, bound, window):
    """The ring on context 4 x tensor 2, its rows put in the balanced order and back."""
    order = balanced_order(T)
    put = lambda x, *rest: jax.sharding.reshard(jnp.asarray(x)[:, order], P(BATCH, "context", *rest))  # noqa: E731
    heads = [put(x, "tensor", None) for x in (q, k, v)]
    slots = put(np.tile(np.arange(T, dtype=np.int32), (B, 1)))
    out = ring(Rule(0.1, bound, window), *heads, (put(segments), slots))
    return jax.sharding.reshard(out, P(None, None, None, None))[:, np.argsort(order)]


def splash(q, k, v, segments, bound, window):
    return kernels.splash(Rule(0.1, bound, window), q, k, v, segments, interpret=True)


def in_blocks(q, k, v, segments, bound, window):
    return block_attention.attention(Rule(0.1, bound, window), q, k, v, jnp.asarray(segments))


def pallas(q, k, v, segments, bound, window):
    return kernels.pallas(Rule(0.1), q, k, v, segments, interpret=True)


KERNELS = {"xla": dense, "blocks": in_blocks, "ring": around, "splash": splash, "pallas": pallas}
CASES = [(name, bound, window) for name in KERNELS for bound, window in ((0.0, 0), (3.0, 9))]
CASES.remove(("pallas", 3.0, 9))  # refused: test_what_a_kernel_cannot_do_is_refused


def run(name, make_mesh, *inputs, bound, window):
    mesh = make_mesh(**({"context": 4, "tensor": 2} if name == "ring" else {"fsdp": 1}))
    if name in ("splash", "pallas"):  # the interpreter is written in plain JAX, without a word on sharding
        mesh = jax.make_mesh((1,), ("device",), (AxisType.Auto,), devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        return np.asarray(jax.jit(lambda *x: KERNELS[name](*x, bound, window))(*inputs))


@pytest.mark.parametrize(("name", "bound", "window"), CASES)
def test_no_document_sees_its_neighbour(name, bound, window, inputs, make_mesh):
    q, k, v, segments = inputs
    before = run(name, make_mesh, *inputs, bound=bound, window=window)
    expected = run("xla", make_mesh, *inputs, bound=bound, window=window)
    real = segments > 0
    np.testing.assert_allclose(before[real], expected[real], atol=2e-5)
    for document in (1, 2):
        changed = segments == document
        k2, v2 = (np.where(changed[..., None, None], x + 1, x).astype(np.float32) for x in (k, v))
        after = run(name, make_mesh, q, k2, v2, segments, bound=bound, window=window)
        np.testing.assert_array_equal(after[real & ~changed], before[real & ~changed])
        assert (after[changed] != before[changed]).mean() > 0.9


def test_blocks_on_a_mesh_are_the_dense_kernel(inputs, make_mesh):
    """Rows over fsdp 2, heads over tensor 2, as the model calls it; the gradient too."""
    q, k, v, segments = inputs
    slots = np.tile(np.arange(T, dtype=np.int32), (B, 1))
    config = ModelConfig(heads=N, kv_heads=K, head_dim=H)

    def loss(q, k, v, segments, slots):
        sight = kernels.Sight(slots, segments, slots, kernel=kernel)
        if kernel == "xla":
            sight = dataclasses.replace(sight, mask_BTS=kernels.visible(sight, 0))
        return jnp.sum(kernels.attend(q, k, v, sight, config, False) ** 2)

    found = {}
    for kernel in ("xla", "blocks"):
        with jax.set_mesh(make_mesh(fsdp=2, tensor=2)):
            put = lambda x, *rest: jax.sharding.reshard(jnp.asarray(x), P(BATCH, "context", *rest))  # noqa: E731
            placed = [put(x, "tensor", None) for x in (q, k, v)] + [put(x) for x in (segments, slots)]
            found[kernel] = jax.tree.map(np.asarray, jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*placed))
    for ours, wanted in zip(jax.tree.leaves(found["blocks"]), jax.tree.leaves(found["xla"]), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("bound, window", [(0.0, 0), (3.0, 9)])
def test_gradients_of_ring_and_blocks(bound, window, inputs, make_mesh):
    q, k, v, segments = inputs
    seed = np.random.default_rng(1).normal(size=q.shape).astype(np.float32) * (segments > 0)[..., None, None]
    found = {}
    for name, axes in (("xla", {"fsdp": 1}), ("blocks", {"fsdp": 1}), ("ring", {"context": 4, "tensor": 2})):
        with jax.set_mesh(make_mesh(**axes)):
            loss = lambda q, k, v, f=KERNELS[name]: jnp.sum(f(q, k, v, segments, bound, window) * seed)  # noqa: E731
            found[name] = jax.jit(jax.grad(loss, (0, 1, 2)))(q, k, v)
    for name in ("ring", "blocks"):
        for ours, wanted in zip(found[name], found["xla"], strict=True):
            np.testing.assert_allclose(np.asarray(ours), np.asarray(wanted), atol=2e-5)


def test_splash_with_sinks_is_the_dense_kernel(inputs):
    """Their gradient too."""
    q, k, v, segments = inputs
    behind = np.arange(T)[:, None] - np.arange(T)[None]
    mask, real = (behind >= 0) & (segments[:, :, None] == segments[:, None, :]), segments > 0
    attentions = {
        "xla": lambda *x: kernels.dense(Rule(0.1), *x[:3], jnp.asarray(mask), x[3]),
        "splash": lambda *x: kernels.splash(Rule(0.1), *x[:3], segments, x[3], interpret=True),
    }
    sinks, found = np.array([0.5, -1.0, 2.0, 0.0], np.float32), {}
    for name, kind in (("xla", AxisType.Explicit), ("splash", AxisType.Auto)):
        with jax.set_mesh(jax.make_mesh((1,) * 6, AXES, (kind,) * 6, devices=jax.devices()[:1])):
            loss = lambda *x, f=attentions[name]: jnp.sum(f(*x) ** 2 * real[..., None, None])  # noqa: E731
            found[name] = jax.tree.map(
                np.asarray, jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(q, k, v, sinks)
            )
    assert np.abs(found["xla"][1][3]).min() > 1e-3
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5), found["splash"], found["xla"])


def test_what_a_kernel_cannot_do_is_refused(make_mesh):
    config = ModelConfig(head_dim=64)
    with jax.set_mesh(make_mesh(fsdp=1)):
        for kernel in ("splash", "cudnn", "pallas"):
            asked = dataclasses.replace(config, attention=kernel)
            with pytest.raises(UserError, match=f"model.attention {kernel}: it runs on .*, this is cpu"):
                kernels.choose(asked, 0, 128, True)
        assert kernels.choose(config, 0, 128, True) == "blocks"
        assert kernels.choose(config, 0, 64, True) == "xla"
    with jax.set_mesh(make_mesh(context=2)):
        assert kernels.choose(config, 0, 128, True) == "ring"
