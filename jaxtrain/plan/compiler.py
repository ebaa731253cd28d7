"""XLA for accelerators that are not there: by libtpu for TPUs, by JAX's CUDA plugin for GPUs."""

import dataclasses
import importlib.util
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jinja2
from jax.sharding import AbstractMesh, Mesh

from jaxtrain.plan import hlo
from jaxtrain.plan.hardware import GIB, Topology
from jaxtrain.plan.program import NO_MESH, Memory, Program
from jaxtrain.plan.work import AnyMesh
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import AXES, MeshConfig
from jaxtrain.runtime.progress import say

PLUGINS = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A program as XLA makes it."""

    memory: Memory
    text: str
    """As XLA prints it, after partitioning and scheduling."""
    seconds: float
    """Spent compiling."""
    flops: dict[str, float] | None
    """Of one device and call, by what multiplies (`hlo.flops`); None for TPUs and unknown kernels."""


class OutOfMemory(Exception):
    """The compiler refuses. needed: bytes of a device, where it says so."""

    def __init__(self, needed: float | None):
        super().__init__("out of memory")
        self.needed = needed


def missing(topology: Topology) -> str:
    """What has to be installed to compile for it, or ""."""
    if topology.chip.platform == "tpu":  # `devices` says it of libtpu, without which there is no plan
        return ""
    if not topology.chip.xla:
        return f"a description of {topology.chip.name} for XLA, which publishes none"
    found = importlib.util.find_spec("jax_plugins") and any(map(importlib.util.find_spec, PLUGINS))
    return "" if found else "JAX's CUDA plugin: pip install -e '.[cuda]', in an environment of its own"


def environment(topology: Topology) -> None:
    """What compiling for chips that are not there needs; before JAX is first used."""
    jax.config.update("jax_platforms", "cpu")  # else JAX looks for the chips of the plugin that it finds
    if topology.chip.platform == "tpu":
        quiet = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_STDERR_LOG_LEVEL": "3"}
        for name, value in {**quiet, "TPU_MIN_LOG_LEVEL": "3", "TPU_LIBRARY_LOG_LEVEL": "3"}.items():
            os.environ.setdefault(name, value)


def devices(topology: Topology) -> list[Any]:
    """Devices that programs can be compiled for and not run on. UserError where libtpu is missing."""
    from jax.experimental import topologies

    chip = topology.chip
    if chip.platform == "gpu":
        nodes, each = (topology.devices // 8, 8) if topology.devices % 8 == 0 else (1, topology.devices)
        target = jinja2.Template(Path(__file__).with_name("gpu.jinja").read_text()).render(chip=chip)
        what = {"target_config": target, "topology": f"{nodes}x1x{each}"}
        return list(topologies.get_topology_desc(platform="cuda", **what).devices)
    name = ("tpu" if chip.name == "7x" else "") + topology.name.split(" x ")[-1]
    more = {"num_slices": topology.slices} if topology.slices > 1 else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **more).devices)
    except Exception as error:  # JAX raises RuntimeError, its own errors and ImportError, by version
        first = str(error).strip().splitlines()[0][:200]
        remedy = "compiling for TPUs needs libtpu, in an environment of its own: pip install -e '.[tpu]'"
        raise UserError(f"topology {topology.name}: {first}; {remedy}") from error


def mesh_of(config: MeshConfig, topology: Topology) -> AnyMesh:
    """The mesh of a config: of devices, or an abstract one where no compiler is there."""
    if not missing(topology):
        return meshes.make(config, devices(topology))
    sizes = meshes.sizes(config, topology.devices)
    kind = jax.sharding.AbstractDevice(device_kind=topology.chip.device_kind, num_cores=None, platform="gpu")
    types = (jax.sharding.AxisType.Explicit,) * len(AXES)
    return AbstractMesh(tuple(sizes), AXES, axis_types=types, abstract_device=kind)


@contextmanager
def set_mesh(mesh: AnyMesh) -> Iterator[None]:
    """A planned mesh, also where one of this machine's devices is set already, as in a notebook."""
    if isinstance(mesh, Mesh):
        with jax.set_mesh(mesh):
            yield
    else:  # JAX goes from one size to another through none
        with jax.sharding.use_abstract_mesh(NO_MESH), jax.sharding.use_abstract_mesh(mesh):
            yield


def compiled(program: Program) -> Compiled:
    """A program for the devices of the mesh that is set; OutOfMemory where the compiler refuses it."""
    begun, platform = time.perf_counter(), meshes.platform()
    # there is nothing to time kernels on
    options = {"xla_gpu_autotune_level": 0} if platform in ("gpu", "cuda") else {}
    try:
        with _first_device():
            made = program.function.lower(*program.arguments).compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(_needed(str(error))) from error
    sizes, text = made.memory_analysis(), made.as_text()
    memory = dataclasses.replace(
        program.memory,
        arguments=sizes.argument_size_in_bytes,
        peak=sizes.peak_memory_in_bytes,
        code=sizes.generated_code_size_in_bytes,
    )
    return Compiled(
        memory=memory,
        text=text,
        seconds=time.perf_counter() - begun,
        flops=None if platform == "tpu" else _flops(text),
    )


@contextmanager
def _first_device() -> Iterator[None]:
    """`jax.devices()` as on the planned machine: a Pallas kernel asks how many cores they have."""
    real, mesh = jax.devices, jax.sharding.get_mesh()
    if meshes.platform() in ("gpu", "cuda"):
        jax.devices = lambda *_: list(mesh.devices.flat)
    try:
        yield
    finally:
        jax.devices = real


def _flops(text: str) -> dict[str, float] | None:
    try:
        return hlo.flops(text)
    except hlo.UnknownCall as error:
        say(f"FLOPs are by formula: {error}")
        return None


def _needed(message: str) -> float | None:
    found = re.search(r"[Uu]sed ([\d.]+)([GMK]) of [\d.]+[GMK] hbm", message)
    found = found or re.search(r"\(([\d.]+)([GMK])\) exceeds", message)
    return float(found[1]) * {"K": 2**10, "M": 2**20, "G": GIB}[found[2]] if found else None
