"""Matmuls of 8-bit floating-point numbers while a model trains (Micikevicius et al. 2022).

    block = narrowed(block)     # its plain matmuls take 8 bits; its weights and gradients stay as they were

Activations and weights are rounded to e4m3, gradients to e5m2. Each array is divided by the power of two that
brings its largest number just below the largest code, found anew at every use: no scale is kept from step to
step. Hopper and newer GPUs multiply the codes; on a CPU they are multiplied in the dtype of the activations,
which holds them exactly.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxtrain.model.quantized import matrix_at
from jaxtrain.runtime import mesh as meshes

FORWARD, BACKWARD = jnp.float8_e4m3fn, jnp.float8_e5m2


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Float8:
    """A matrix whose matmuls take 8 bits, in the place of the array of an `nnx.Param`."""

    weight: jax.Array

    def __getitem__(self, _: Any) -> jax.Array:
        """The numbers: for what is no plain matmul."""
        return self.weight

    def astype(self, dtype: Any) -> "Float8":
        return Float8(self.weight.astype(dtype))


class Codes(NamedTuple):
    """An array as 8-bit numbers and the power of two that they are multiplied with, float32."""

    codes: jax.Array
    scale: jax.Array

    @staticmethod
    def of(x: jax.Array, kind: Any = FORWARD) -> "Codes":
        most = jnp.max(jnp.abs(x)).astype(jnp.float32)
        # the mantissa is below 1, so nothing exceeds the largest code
        scale = jnp.ldexp(jnp.float32(1), jnp.frexp(most / float(jnp.finfo(kind).max))[1])
        return Codes((x / scale.astype(x.dtype)).astype(kind), scale)

    @property
    def whole(self) -> jax.Array:
        """The codes, whole along `fsdp`, whose devices exchange them."""
        spec = jax.typeof(self.codes).sharding.spec
        return jax.sharding.reshard(self.codes, P(*(None if axis == "fsdp" else axis for axis in spec)))


def einsum(equation: str, a: Codes, b: Codes, out_sharding: P, dtype: Any) -> jax.Array:
    """`jnp.einsum` of two arrays, whose result is in `dtype`."""
    codes = (a.whole, b.whole)
    if meshes.platform() == "cpu":
        codes = tuple(one.astype(dtype) for one in codes)
    out = jnp.einsum(equation, *codes, preferred_element_type=dtype, out_sharding=out_sharding)
    return out * (a.scale * b.scale).astype(dtype)


def narrowed(block: Any) -> Any:
    """The block with its matrices as `Float8`, those of experts aside."""

    def of(path: tuple[Any, ...], weight: jax.Array) -> jax.Array | Float8:
        name = matrix_at(path)
        return weight if name is None or name[1] else Float8(weight)

    return jax.tree_util.tree_map_with_path(of, block)
