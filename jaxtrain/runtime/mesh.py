"""The device mesh: JAX's explicit sharding mode, one mesh of named axes.

A mesh axis of size 1 is a no-op, so the mesh alone chooses the parallelism and no model text branches
on it. Axes, outermost (slowest network) first:
  data     copies of the model, gradients summed        stage    pipeline stages
  fsdp     batch, weights and optimizer all sharded     expert   experts of a mixture
  context  the sequence                                 tensor   heads and hidden units
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Limits

if "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
    # Emulated devices share a pool of as many threads as they are, and each thread that waits in a collective
    # is lost to the pool: where a program has two that do not depend on each other, some devices wait in one
    # and some in the other, for ever. XLA asks for the size when it is first used, which is later than this.
    os.environ.setdefault("NPROC", "64")

BATCH = ("data", "fsdp", "expert")
"""The mesh axes that the rows of a batch are sharded over."""


Axis = Annotated[int, Limits(-1)]
"""Devices along an axis; -1: all that remain."""


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis; -1 for one of them: all that remain."""

    data: Axis = 1
    """Devices that hold copies of the model; their gradients are summed."""
    stage: Axis = 1
    """Devices in a pipeline, each with a part of the layers."""
    fsdp: Axis = -1
    """Devices that share the batch, the weights and the optimizer state."""
    expert: Axis = 1
    """Devices that share the experts of a mixture."""
    context: Axis = 1
    """Devices that share the sequence."""
    tensor: Axis = 1
    """Devices that share the heads and hidden units of a layer."""

    def check(self) -> None:
        given = [getattr(self, axis) for axis in AXES]
        if 0 in given or given.count(-1) > 1:
            text = ", ".join(f"{axis} {size}" for axis, size in zip(AXES, given, strict=True))
            raise UserError(f"mesh {text}: every axis is at least 1, and at most one may be -1")


AXES = tuple(f.name for f in fields(MeshConfig))


def sizes(config: MeshConfig, devices: int) -> list[int]:
    """Of the axes in order, for so many devices; UserError where they do not multiply to them."""
    config.check()
    given = [getattr(config, axis) for axis in AXES]
    known = math.prod(size for size in given if size != -1)
    found = [devices // known if size == -1 else size for size in given]
    if math.prod(found) != devices:
        raise UserError(f"mesh {_words(found)} does not fit {devices} devices; set one axis to -1")
    return found


def _words(shape: list[int]) -> str:
    return " x ".join(f"{axis} {size}" for axis, size in zip(AXES, shape, strict=True) if size > 1) or "1"


def make(
    config: MeshConfig,
    devices: list[Any] | None = None,
    slice_of: Callable[[Any], int] = lambda device: getattr(device, "slice_index", None) or 0,
) -> Mesh:
    """A mesh over all devices (or those given); UserError where the sizes do not multiply to them.

    slice_of: which slice a device is in. Between slices the network is slow, so only `data`, then `stage`,
    crosses it: their product must be a multiple of the slices.
    """
    devices = devices or jax.devices()
    shape = sizes(config, len(devices))
    types = (AxisType.Explicit,) * len(AXES)
    slices: dict[int, list[Any]] = {}
    for device in devices:
        slices.setdefault(slice_of(device), []).append(device)
    if len(slices) == 1:
        try:
            return jax.make_mesh(tuple(shape), AXES, types, devices=devices)
        except NotImplementedError as error:  # JAX's word for a torus that the axes do not divide
            remedy = "make each axis a product of whole sides of it"
            raise UserError(f"mesh {_words(shape)} cannot be laid on the chips' torus; {remedy}") from error
    data = math.gcd(shape[0], len(slices))
    stage = len(slices) // data
    if shape[1] % stage != 0:
        wrong = f"mesh data {shape[0]} x stage {shape[1]} does not fit {len(slices)} slices"
        remedy = f"set mesh.data to {len(slices)}: of copies of the model only gradients cross between slices"
        raise UserError(f"{wrong}; {remedy}")
    inside = [shape[0] // data, shape[1] // stage, *shape[2:]]
    parts = [mesh_utils.create_device_mesh(inside, slices[at]) for at in sorted(slices)]
    rows = [np.concatenate(parts[at : at + stage], axis=1) for at in range(0, len(parts), stage)]
    return Mesh(np.concatenate(rows, axis=0), AXES, axis_types=types)


def ensure() -> None:
    """Set a mesh of one device where none is set, so that a bare interpreter or notebook works."""
    if jax.sharding.get_abstract_mesh().empty:
        jax.set_mesh(make(MeshConfig(), jax.devices()[:1]))


def platform() -> str:
    """cpu, gpu or tpu: of the mesh that is set, which may be of devices that are only planned for."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


CAPABILITIES = {"A100": 8.0, "H100": 9.0, "H200": 9.0, "B200": 10.0, "B300": 10.3}
"""NVIDIA's compute capability of GPUs that may be planned for."""


def capability() -> float:
    """Compute capability of the GPUs of the mesh that is set, which may be planned for only; 9: Hopper."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    kind = jax.devices()[0].device_kind if device is None else device.device_kind
    real = [one for one in jax.devices() if one.device_kind == kind and hasattr(one, "compute_capability")]
    if real:
        return float(real[0].compute_capability)
    return next((value for name, value in CAPABILITIES.items() if name in kind), 0.0)


def batch_rows() -> int:
    """How many ways the rows of a batch are sharded on the mesh that is set."""
    return math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in BATCH)


def sequence_axes(length: int) -> tuple[str, ...]:
    """The mesh axes over which `length` tokens of the residual stream are cut; `tensor` too, if it can be."""
    shape = jax.sharding.get_abstract_mesh().shape
    whole = ("context", "tensor")
    return whole if length % (shape["context"] * shape["tensor"]) == 0 else ("context",)


def per_device(
    f: Callable[..., Any], in_specs: tuple[P, ...], out_specs: Any, check: bool = True
) -> Callable[..., Any]:
    """`f` on each device's own part of inputs laid out as said, over every axis not yet dealt out so.

    check: that what should be the same on every device is; not for Pallas calls, whose types do not say.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = {name for name in mesh.axis_names if name not in mesh.manual_axes}
    check = check and not mesh.manual_axes  # inside a stage JAX 0.10 to 0.12 checks by the wrong axes
    run = jax.shard_map(f, in_specs=in_specs, out_specs=out_specs, axis_names=free, check_vma=check)

    return lambda *inputs: run(*jax.sharding.reshard(inputs, in_specs))


def _keep_layout_at_a_stage() -> None:
    """Arrays stay cut over the explicit axes where they enter or leave a `shard_map` over one axis alone.

    JAX before 0.12 lowers that edge by the specs, which name the manual axis only, and holds the array whole
    along all others: it gathered a stage's weights, its activations and what the backward pass keeps. The
    array's type says how it lies; JAX 0.12 reads it there, as this does. To go with Python 3.11 (JAX 0.10).
    """
    from jax._src import shard_map

    by_specs = shard_map._shardy_shard_map_sharding

    def by_type(context: Any, mesh: Any, manual_axes: Any, spec: P, array: Any) -> Any:
        has_type = AxisType.Auto not in mesh.axis_types and not array.sharding.mesh.empty
        return by_specs(context, mesh, manual_axes, array.sharding.spec if has_type else spec, array)

    shard_map._shardy_shard_map_sharding = by_type


if jax.__version_info__ < (0, 12):
    _keep_layout_at_a_stage()


def put_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Numpy arrays `[B, T]` (this process's rows) to device arrays sharded over rows and sequence."""
    sharding = NamedSharding(mesh, P(BATCH, "context"))
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def own_rows(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of a global batch that every process has whole, this process's rows."""
    this, processes = jax.process_index(), jax.process_count()
    return {
        name: rows[this * len(rows) // processes : (this + 1) * len(rows) // processes]
        for name, rows in batch.items()
    }


def fetch(tree: Any) -> Any:
    """Numpy arrays of a tree of arrays, whole on every process."""

    def whole(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
            return np.asarray(multihost_utils.process_allgather(x, tiled=True))
        return np.asarray(x)

    return jax.tree.map(whole, tree)


def map_rows(function: Callable[..., Any], rows: dict[str, Any], most: int) -> Any:
    """`function(batch)` of all rows, so many at a time: numpy arrays of one number or more a row.

    function: of device arrays [b, T], b always the same, at least `most`; a tree of arrays [b, …].
    """
    mesh, count = jax.sharding.get_mesh(), len(next(iter(rows.values())))
    size = -(-min(most, count) // batch_rows()) * batch_rows()
    found = []
    for first in range(0, count, size):
        at = np.minimum(first + np.arange(size), count - 1)  # one shape: the last row fills up
        part = own_rows({name: values[at] for name, values in rows.items()})
        found.append(fetch(function(put_batch(part, mesh))))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *found)


def check_rows(
    rows: int, length: int, microbatches: int = 1, stage_microbatches: int = 1, name: str = "batch_size"
) -> None:
    """UserError where the mesh that is set cannot cut a batch of so many rows of so many tokens.

    stage_microbatches: `ModelConfig.stage_microbatches`. name: what the config calls the number of rows.
    """
    shape = jax.sharding.get_abstract_mesh().shape
    parts = microbatches * batch_rows() * (stage_microbatches if shape["stage"] > 1 else 1)
    if rows < 1 or rows % parts:
        micro = f"{microbatches} microbatches on " if microbatches > 1 else ""
        stages = f" and {shape['stage']} stages" if shape["stage"] > 1 else ""
        raise UserError(f"{name} is {rows}; {micro}{batch_rows()} devices{stages} need a multiple of {parts}")
    if length % (context := shape["context"]):
        raise UserError(f"rows of {length} tokens do not fit mesh.context {context}; take a multiple of it")
    if rows % jax.process_count():
        raise UserError(f"{name} is {rows}; {jax.process_count()} processes need a multiple of that")


def abstract(init: Any, mesh: Mesh) -> Any:
    """Shapes, dtypes and shardings of `init()`'s tree without computing it; what a restore needs."""

    def leaf(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = x.sharding.spec if x.sharding is not None else P()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(leaf, jax.eval_shape(init))
