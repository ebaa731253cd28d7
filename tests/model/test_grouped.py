"""Matmuls of rows sorted by expert, against `jax.lax.ragged_dot` and by JAX's interpreter of GPU kernels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu
from jax.sharding import PartitionSpec as P

from jaxtrain.model import grouped
from jaxtrain.runtime import mesh as meshes

COUNTS = [[70, 0, 90], [0, 160, 0], [1, 127, 64], [64, 64, 64]]
ROWS, SHAPE = 192, (3, 64, 128)


def operands(counts: list[int], dtype) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(0)
    shapes = ((ROWS, SHAPE[1]), SHAPE, (ROWS, SHAPE[2]))
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    return *arrays, jnp.asarray(counts, jnp.int32)


def on_a_device(make_mesh, f, *inputs: jax.Array):
    """As a mixture calls it."""
    with jax.set_mesh(make_mesh(fsdp=1)):
        return meshes.per_device(f, (P(),) * len(inputs), P(), check=False)(*inputs)


def real(x_RO: jax.Array, counts_E: jax.Array) -> jax.Array:
    return jnp.where((jnp.arange(ROWS) < jnp.sum(counts_E))[:, None], x_RO, 0)


@pytest.mark.parametrize("usual", [ROWS, 160, 90])
@pytest.mark.parametrize("counts", COUNTS)
def test_tiles_are_the_ragged_matmul_and_its_gradients(counts: list[int], usual: int, make_mesh) -> None:
    def outcome(matmul, x_RI, w_EIO, g_RO, counts_E):
        def loss(x_RI, w_EIO):
            out_RO = real(matmul(x_RI, w_EIO, counts_E), counts_E)
            return jnp.sum(out_RO * g_RO), out_RO

        (x_bar_RI, w_bar_EIO), out_RO = jax.grad(loss, (0, 1), has_aux=True)(x_RI, w_EIO)
        return out_RO, real(x_bar_RI, counts_E), w_bar_EIO

    inputs = operands(counts, jnp.float32)
    ours, theirs = (
        on_a_device(make_mesh, partial(outcome, matmul), *inputs)
        for matmul in (partial(grouped._matmul, "tiles", usual), jax.lax.ragged_dot)
    )
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)


@pytest.mark.parametrize("counts", COUNTS)
def test_the_kernel_of_hopper_interpreted(counts: list[int], make_mesh, monkeypatch) -> None:
    """The forward pass; the interpreter has no turned operands, which the gradients read."""
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    kernel = mosaic_gpu.kernel
    interpreted = lambda *a, **k: kernel(*a, **k | {"grid": (2,)}, interpret=InterpretGPUParams())  # noqa: E731
    monkeypatch.setattr(mosaic_gpu, "kernel", interpreted)
    x_RI, w_EIO, _, counts_E = operands(counts, jnp.bfloat16)
    found_RO, wanted_RO = (
        on_a_device(make_mesh, lambda *of, f=f: real(f(*of), of[2]), x_RI, w_EIO, counts_E)
        for f in (grouped._mosaic, jax.lax.ragged_dot)
    )
    np.testing.assert_allclose(*(x.astype(jnp.float32) for x in (found_RO, wanted_RO)), rtol=1e-2, atol=1e-2)
