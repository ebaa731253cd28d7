"""Matmuls of rows sorted by expert, against `jax.lax.ragged_dot` and by JAX's interpreter of GPU kernels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu

from jaxtrain.model import grouped

COUNTS = [[70, 0, 90], [0, 160, 0], [1, 127, 64], [64, 64, 64]]
ROWS, SHAPE = 192, (3, 64, 128)


def operands(counts: list[int], dtype) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(0)
    shapes = ((ROWS, SHAPE[1]), SHAPE, (ROWS, SHAPE[2]))
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    is_real_R1 = (np.arange(ROWS) < sum(counts))[:, None]
    return *arrays, jnp.asarray(counts, jnp.int32), is_real_R1


@pytest.mark.parametrize("counts", COUNTS)
def test_tiles_are_the_ragged_matmul_and_its_gradients(counts: list[int]) -> None:
    x_RI, w_EIO, g_RO, counts_E, is_real_R1 = operands(counts, jnp.float32)

    def outcome(matmul):
        def loss(x_RI, w_EIO):
            out_RO = jnp.where(is_real_R1, matmul(x_RI, w_EIO, counts_E), 0)
            return jnp.sum(out_RO * g_RO), out_RO

        (_, out_RO), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(x_RI, w_EIO)
        return out_RO, jnp.where(is_real_R1, gradients[0], 0), gradients[1]

    ours = outcome(functools.partial(grouped._matmul, "tiles"))
    for mine, theirs in zip(ours, outcome(jax.lax.ragged_dot), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("counts", COUNTS)
def test_the_kernel_of_hopper_interpreted(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward pass; the interpreter has no turned operands, which the gradients read."""
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    kernel = mosaic_gpu.kernel
    interpreted = lambda *a, **k: kernel(*a, **k | {"grid": (2,)}, interpret=InterpretGPUParams())  # noqa: E731
    monkeypatch.setattr(mosaic_gpu, "kernel", interpreted)
    x_RI, w_EIO, _, counts_E, is_real_R1 = operands(counts, jnp.bfloat16)
    wanted_RO = jax.lax.ragged_dot(x_RI, w_EIO, counts_E)
    found_RO = jnp.where(is_real_R1, grouped._mosaic(x_RI, w_EIO, counts_E), 0)
    np.testing.assert_allclose(*(x.astype(jnp.float32) for x in (found_RO, wanted_RO)), rtol=1e-2, atol=1e-2)
