"""Weights as codes of 8 or 4 bits with scales, which a matmul turns into numbers a layer at a time.

    model = quantize(model, "nf4")       # the matrices of its blocks, and those that adapters stand on

int8   255 even steps, a scale for each output
nf4    16 steps, which weights of a normal distribution use evenly, a scale for each 64 weights, itself one of
       255 steps: 4.13 bits a weight (QLoRA, Dettmers et al. 2023)

Of a matrix whose inputs and outputs are flattened to I and O the codes are [..., I, O]. nf4's have the side
that `tensor` cuts first, and blocks of 64 along it; of the other side a code of each half is in a byte.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain.runtime import mesh as meshes

Kind = Literal["model", "int8", "nf4"]
"""model: numbers in the dtype that the model has."""
MATRIX = re.compile(r"(?!router|taps|shared_gate)(?!.*bias)\w+_(E?)([A-Z]{2,})")
"""Names of matrices; the letters are E of experts, and their inputs and outputs."""
BLOCKS = ("first_blocks", "local_blocks", "blocks")
"""Attributes of a transformer that hold its layers, and are quantised."""
BLOCK, PART = 64, 1 << 18
"""Weights that share a scale; that are numbers at once on a CPU."""
NF4 = np.array(
    [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0]
    + [0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0],
    np.float32,
)
"""The steps, of the paper's appendix E."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Quantized:
    """A matrix, or a stack of them, in the place of the array of an `nnx.Param`."""

    codes: jax.Array
    """int8; of nf4 uint8, two in each."""
    scale: jax.Array
    """float32: of each output [..., 1, O]; of nf4 the largest weight of a matrix [..., 1, 1]."""
    shares: jax.Array | None
    """nf4: uint8, 255ths of `scale`, one for each block."""
    shape: tuple[int, ...] = field(metadata={"static": True})
    """Of one matrix."""
    inputs: int = field(metadata={"static": True})
    """How many of its axes are inputs; outputs follow."""
    spec: tuple[Any, ...] = field(metadata={"static": True})
    """How its axes are cut."""
    dtype: Any = field(metadata={"static": True})

    def __getitem__(self, _: Any) -> jax.Array:
        """The numbers, cut as the weight was: for what is no plain matmul."""
        numbers = self.numbers(self.dtype)
        lead = jax.typeof(numbers).sharding.spec[: -len(self.shape)]
        return jax.sharding.reshard(numbers, P(*lead, *self.spec))

    def numbers(self, dtype: Any) -> jax.Array:
        """The numbers, whole along `fsdp`, whose devices exchange codes."""
        whole = lambda x: jax.sharding.reshard(x, _whole(jax.typeof(x).sharding.spec))  # noqa: E731
        codes, scale = whole(self.codes), whole(self.scale)
        if self.shares is None:
            flat = (codes * scale).astype(dtype)
        else:
            codes = jnp.concatenate([codes & 15, codes >> 4], axis=-1)
            values = jnp.full_like(codes, NF4[0], jnp.float32)
            for code in range(1, 16):
                values = jnp.where(codes >= code, NF4[code], values)
            each, spec = codes.shape[-2] // self.shares.shape[-2], jax.typeof(codes).sharding.spec
            shares = jnp.repeat(whole(self.shares), each, axis=-2, out_sharding=P(*spec))
            # XLA for TPUs writes them out, and would first make floats of them
            shares = jax.lax.optimization_barrier(shares)
            flat = (values * (shares * (scale / 255))).astype(dtype)
            flat = flat if _inputs_first(self.spec, self.inputs) else flat.swapaxes(-2, -1)
        *lead, into, out = jax.typeof(flat).sharding.spec
        cut: list[Any] = [None] * len(self.shape)
        cut[0], cut[self.inputs] = into, out
        found = jnp.reshape(flat, (*flat.shape[:-2], *self.shape), out_sharding=P(*lead, *cut))
        return jax.sharding.reshard(found, P(*lead, *_whole(self.spec)))

    def einsum(self, equation: str, x: jax.Array, sharding: P) -> jax.Array:
        """`einsum(equation, x, numbers)`; inputs of the weight are the last axes of x."""
        is_one_cpu = meshes.platform() == "cpu" and jax.sharding.get_abstract_mesh().size == 1
        if self.shares is not None or not is_one_cpu:
            return jnp.einsum(equation, x, self.numbers(x.dtype), out_sharding=sharding)
        return jax.sharding.auto_axes(self._in_parts, out_sharding=sharding)(x, self.codes, self.scale)

    def _in_parts(self, x: jax.Array, codes: jax.Array, scale: jax.Array) -> jax.Array:
        """The same of int8, numbers of a part of the inputs at a time, so that they stay in a CPU's cache.

        XLA for CPUs makes them before the matmul, and of unrolled layers all of them before the first.
        """
        inputs, outputs = codes.shape
        most = max(1, PART // outputs)
        count = inputs // next(part for part in range(min(most, inputs), 0, -1) if inputs % part == 0)
        x_NRI = jnp.moveaxis(x.reshape(-1, count, inputs // count).astype(jnp.float32), 1, 0)

        def add(sum_RO: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            x_RI, codes_IO = part
            return sum_RO + x_RI @ codes_IO.astype(jnp.float32), None

        zeros_RO = jnp.zeros((x_NRI.shape[1], outputs), jnp.float32)
        sum_RO, _ = jax.lax.scan(add, zeros_RO, (x_NRI, codes.reshape(count, -1, outputs)))
        out = (sum_RO * scale).astype(x.dtype)
        return out.reshape(*x.shape[: x.ndim - self.inputs], *self.shape[self.inputs :])


def operand(weight: Any, dtype: Any) -> jax.Array | Quantized:
    """What a matmul in `dtype` reads of an `nnx.Param` or an array: codes as they are."""
    held = weight.get_value() if isinstance(weight, nnx.Variable) else weight
    return held if isinstance(held, Quantized) else held.astype(dtype)


def quantize(model: Any, kind: Kind, parts: Iterable[str] = BLOCKS) -> Any:
    """The model with the matrices of these attributes as codes; adapters beside them stay numbers."""
    return jax.tree_util.tree_map_with_path(partial(quantized, kind=kind, parts=parts), model)


def matrix_at(path: tuple[Any, ...]) -> re.Match[str] | None:
    """The name of a leaf, where it is a matrix."""
    names = [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]
    return MATRIX.fullmatch([name for name in names if name not in ("", "value", "base")][-1])


def quantized(
    path: tuple[Any, ...], weight: jax.Array, kind: Kind, parts: Iterable[str] = BLOCKS
) -> jax.Array | Quantized:
    """The weight at a leaf's path as it is held."""
    matrix, part = matrix_at(path), getattr(path[0], "name", getattr(path[0], "key", ""))
    if kind == "model" or part not in parts or matrix is None:
        return weight
    axes = matrix[2]
    inputs = len(axes) - 1 if axes.endswith("D") else 1
    return _quantized(weight, kind, len(axes), inputs)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _quantized(weight: jax.Array, kind: Kind, axes: int, inputs: int) -> Quantized:
    """A stack of matrices of so many axes, the first of them inputs."""
    spec = (*jax.typeof(weight).sharding.spec, *[None] * weight.ndim)[: weight.ndim]
    lead, own, shape = spec[:-axes], spec[-axes:], weight.shape[-axes:]
    sizes, cut = [math.prod(shape[:inputs]), math.prod(shape[inputs:])], [own[0], own[inputs]]
    encode, specs = _int8, (P(*lead, *cut), P(*lead, None, cut[1]))
    if kind == "nf4":
        order = 1 if _inputs_first(own, inputs) else -1
        (first, second), cut = sizes[::order], cut[::order]
        each = math.gcd(BLOCK, first)
        for side, units in enumerate((first // each, second // 2)):
            if units % jax.sharding.get_abstract_mesh().shape.get(cut[side], 1):
                cut[side] = None  # then it is whole on every device
        encode = lambda flat: _nf4(each, flat if order == 1 else flat.swapaxes(-2, -1))  # noqa: E731
        specs = (P(*lead, *cut), P(*lead, None, None), P(*lead, *cut))

    def encoded(weight: jax.Array) -> Any:
        return encode(weight.reshape(*weight.shape[:-axes], *sizes).astype(jnp.float32))

    held = jax.sharding.auto_axes(encoded, out_sharding=specs)(weight)
    return Quantized(*held, *[None] * (3 - len(held)), shape, inputs, own, weight.dtype)


def _int8(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
    most = jnp.max(jnp.abs(flat), axis=-2, keepdims=True)
    scale = jnp.where(most > 0, most / 127, 1)
    return jnp.round(flat / scale).astype(jnp.int8), scale


def _nf4(each: int, flat: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Codes, the largest weight, and shares, of blocks of `each` rows."""
    blocks = flat.reshape(*flat.shape[:-2], -1, each, flat.shape[-1])
    most = jnp.max(jnp.abs(blocks), axis=-2)
    scale = jnp.maximum(jnp.max(most, axis=(-2, -1), keepdims=True), np.finfo(np.float32).tiny * 255)
    shares = jnp.ceil(most / (scale / 255)).clip(1, 255)
    even = blocks / (shares * (scale / 255))[..., None, :]
    above = [(even > middle).astype(jnp.uint8) for middle in (NF4[1:] + NF4[:-1]) / 2]
    first, second = jnp.split(reduce(jnp.add, above).reshape(flat.shape), 2, axis=-1)
    return first | second << 4, scale, shares.astype(jnp.uint8)


def _inputs_first(spec: tuple[Any, ...], inputs: int) -> bool:
    """Whether nf4's codes are [..., I, O] and not [..., O, I].

    Blocks lie along the last axis but one, where XLA for TPUs spreads their scales without another layout.
    """
    return "tensor" in spec[:inputs]


def _whole(spec: Iterable[Any]) -> P:
    """Without `fsdp`."""
    return P(*(None if axis == "fsdp" else axis for axis in spec))
