"""Matmuls of rows that are sorted by expert, each with its expert's matrix.

    xla     TPU, CPU: `jax.lax.ragged_dot`, which XLA for GPUs makes a matmul of every row with every expert
    mosaic  Hopper (JAX's Pallas kernels): bfloat16, sides that are multiples of 64; float32 sums
    tiles   other NVIDIA GPUs: a loop over tiles of one expert's rows, a plain matmul each

The last two multiply a row once, and with each border between two experts up to a tile more.

R rows, E experts, I inputs, O outputs, S rows of a tile
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxtrain.runtime import mesh as meshes

SMALLEST, MOST = 64, 512
"""Rows of a tile."""


def kernel(w_EIO: jax.Array) -> str:
    """Which of them multiplies with these matrices on the mesh that is set."""
    if meshes.platform() not in ("gpu", "cuda"):
        return "xla"
    suits = w_EIO.dtype == jnp.bfloat16 and all(side % 64 == 0 for side in w_EIO.shape[1:])
    return "mosaic" if suits and 9 <= meshes.capability() < 10 else "tiles"


def matmul(x_RI: jax.Array, w_EIO: jax.Array, counts_E: jax.Array, usual: int) -> jax.Array:
    """Of each row with its expert's matrix, [R, O]; 0 in rows behind those of the last expert.

    counts_E: rows of each expert, int32. usual: where there are no more than these, or than twice as many, no
    more are multiplied.
    """
    if (name := kernel(w_EIO)) == "xla":
        return jax.lax.ragged_dot(x_RI, w_EIO, counts_E)
    is_real_R1 = (jnp.arange(x_RI.shape[0]) < jnp.sum(counts_E))[:, None]
    # nothing is written behind the last expert, and what stands there may be no number
    return jnp.where(is_real_R1, _matmul(name, usual, x_RI, w_EIO, counts_E), 0)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _matmul(name: str, usual: int, x_RI: jax.Array, w_EIO: jax.Array, counts_E: jax.Array) -> jax.Array:
    of = {"mosaic": _mosaic, "tiles": _tiles}[name]
    return _of_fewer(lambda x_XI: of(x_XI, w_EIO, counts_E), usual, counts_E, x_RI)


def _forward(name: str, usual: int, x_RI: jax.Array, w_EIO: jax.Array, counts_E: jax.Array):
    return _matmul(name, usual, x_RI, w_EIO, counts_E), (x_RI, w_EIO, counts_E)


def _backward(name: str, usual: int, saved: tuple[jax.Array, ...], gradient_RO: jax.Array):
    x_RI, w_EIO, counts_E = saved

    def to_rows(g_XO: jax.Array) -> jax.Array:
        if name == "mosaic":
            return _mosaic(g_XO, w_EIO, counts_E, turned=True)
        return _tiles(g_XO, w_EIO.swapaxes(1, 2), counts_E)

    def to_matrices(x_XI: jax.Array, g_XO: jax.Array) -> jax.Array:
        return {"mosaic": _mosaic_outer, "tiles": _tiles_outer}[name](x_XI, w_EIO, counts_E, g_XO)

    x_bar_RI = _of_fewer(to_rows, usual, counts_E, gradient_RO)
    return x_bar_RI, _of_fewer(to_matrices, usual, counts_E, x_RI, gradient_RO), None


_matmul.defvjp(_forward, _backward)


def _of_fewer(of: Callable[..., jax.Array], usual: int, counts_E: jax.Array, *arrays: jax.Array) -> jax.Array:
    """`of` arrays [R, …] without most of the rows that nothing is in; what is missing of R is 0."""
    rows = arrays[0].shape[0]

    def of_first(count: int, *arrays: jax.Array) -> jax.Array:
        out = of(*(x[:count] for x in arrays))
        missing = [(0, rows - count if len(arrays) == 1 else 0), *[(0, 0)] * (out.ndim - 1)]
        return jnp.pad(out, missing)

    sizes = [rows, *(size for size in (2 * usual, usual) if size < rows)]
    fitting = sum((jnp.sum(counts_E) <= size).astype(jnp.int32) for size in sizes[1:])
    return jax.lax.switch(fitting, [partial(of_first, size) for size in sizes], *arrays)


def rows_of_a_tile(rows: int, experts: int) -> int:
    """So few that the borders of experts add an eighth, in bounds."""
    return 64 * min(max(rows // (8 * experts), SMALLEST) // 64, MOST // 64)


def _blocks(rows: int, w_EIO: jax.Array) -> dict[str, int]:
    E, inputs, outputs = w_EIO.shape
    side = 128 if inputs % 128 == outputs % 128 == 0 else 64
    block_m = min(128, rows_of_a_tile(rows, E))  # `plan.hlo` counts by it
    return {"block_m": block_m, "block_n": side, "block_k": 64, "max_concurrent_steps": 4, "grid_block_n": 4}


def _mosaic(x_RI: jax.Array, w_EIO: jax.Array, counts_E: jax.Array, turned: bool = False) -> jax.Array:
    from jax.experimental.pallas.ops.gpu.ragged_dot_mgpu import ragged_dot

    blocks = _blocks(x_RI.shape[0], w_EIO)
    return ragged_dot(x_RI, w_EIO, group_sizes=counts_E, transpose_rhs=turned, **blocks)


def _mosaic_outer(x_RI: jax.Array, w_EIO: jax.Array, counts_E: jax.Array, gradient_RO: jax.Array):
    """Gradient of the matrices."""
    from jax.experimental.pallas.ops.gpu.transposed_ragged_dot_mgpu import transposed_ragged_dot

    blocks = _blocks(x_RI.shape[0], w_EIO)
    blocks["block_m"] = blocks["block_n"]  # a side of the matrices here
    return transposed_ragged_dot(x_RI, gradient_RO, group_sizes=counts_E, **blocks)


def _over_tiles(one: Callable[..., jax.Array], start: jax.Array, rows: int, counts_E: jax.Array) -> jax.Array:
    """Fold of one(carry, expert, first row of a tile, rows of it that are the expert's) in their order.

    As many turns as there may be tiles; those without one begin behind the last row.
    """
    E, size = counts_E.shape[0], rows_of_a_tile(rows, counts_E.shape[0])
    tiles_E = -(-counts_E // size)
    behind_E, ends_E = jnp.cumsum(tiles_E), jnp.cumsum(counts_E)

    def turn(tile: jax.Array, carry: jax.Array) -> jax.Array:
        e = jnp.minimum(jnp.searchsorted(behind_E, tile, side="right"), E - 1)
        first = ends_E[e] - counts_E[e] + (tile - behind_E[e] + tiles_E[e]) * size
        return one(carry, e, jnp.minimum(first, rows), jnp.clip(ends_E[e] - first, 0, size))

    return jax.lax.fori_loop(0, rows // size + E, turn, start)


def _tiles(x_RI: jax.Array, w_EIO: jax.Array, counts_E: jax.Array) -> jax.Array:
    rows, size = x_RI.shape[0], rows_of_a_tile(x_RI.shape[0], counts_E.shape[0])
    padded_XI = jnp.pad(x_RI, ((0, size), (0, 0)))

    def one(out_XO: jax.Array, e: jax.Array, first: jax.Array, _) -> jax.Array:
        # what it writes of the next expert's rows, that one's first tile writes again
        tile_SO = jax.lax.dynamic_slice_in_dim(padded_XI, first, size) @ w_EIO[e]
        return jax.lax.dynamic_update_slice_in_dim(out_XO, tile_SO, first, 0)

    start = jnp.zeros((rows + size, w_EIO.shape[2]), x_RI.dtype)
    return _over_tiles(one, start, rows, counts_E)[:rows]


def _tiles_outer(x_RI: jax.Array, w_EIO: jax.Array, counts_E: jax.Array, gradient_RO: jax.Array) -> jax.Array:
    """Gradient of the matrices, summed in float32."""
    rows, size = x_RI.shape[0], rows_of_a_tile(x_RI.shape[0], counts_E.shape[0])
    padded_XI, padded_XO = (jnp.pad(x, ((0, size), (0, 0))) for x in (x_RI, gradient_RO))

    def one(out_EIO: jax.Array, e: jax.Array, first: jax.Array, count: jax.Array) -> jax.Array:
        x_SI, g_SO = (jax.lax.dynamic_slice_in_dim(x, first, size) for x in (padded_XI, padded_XO))
        own_SI = jnp.where((jnp.arange(size) < count)[:, None], x_SI, 0)
        return out_EIO.at[e].add(jnp.matmul(own_SI.T, g_SO, preferred_element_type=jnp.float32))

    return _over_tiles(one, jnp.zeros(w_EIO.shape, jnp.float32), rows, counts_E).astype(w_EIO.dtype)
