"""The real training step: its shapes on a mesh, and its program compiled ahead of time.

Nothing is computed and no weight is drawn, so a host without accelerators does it.
"""

import dataclasses
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtrain.model.transformer import Transformer
from jaxtrain.plan.hardware import GIB, Topology
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import AXES, BATCH
from jaxtrain.train import losses
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.losses import token_loss
from jaxtrain.train.state import initializer
from jaxtrain.train.step import make_step

AnyMesh = Mesh | AbstractMesh
NO_MESH = AbstractMesh((), ())


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device. The first four are exact; what XLA makes of the rest only a compiler knows."""

    weights: int
    optimizer: int
    batch: int
    """Rows of a step, the guard and the counters too."""
    kept: int
    """What the backward pass of a micro-batch finds of the forward pass, weights in compute precision too."""
    working: int
    """Estimate of the rest: gradients, the vocabulary loss, a layer at work."""
    arguments: int | None = None
    """By the compiler: weights, optimizer and batch as they lie in memory."""
    peak: int | None = None
    """By the compiler: what is in use at the fullest moment, arguments included. (Its sum of temporaries
    counts some twice: a step with 16.7 GiB of them compiles for a chip of 15.75.)"""
    code: int = 0

    @property
    def state(self) -> int:
        return self.weights + self.optimizer + self.batch

    @property
    def total(self) -> int:
        """By the compiler where it was asked, else the estimate."""
        if self.peak is not None:
            return self.peak + self.code
        return self.state + self.kept + self.working


@dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled step."""

    memory: Memory
    text: str
    """As XLA prints it, after partitioning and scheduling."""
    seconds: float
    """Spent compiling."""


class OutOfMemory(Exception):
    """The compiler refuses. needed: bytes of a device, where it says so."""

    def __init__(self, needed: float | None):
        super().__init__("out of memory")
        self.needed = needed


def tpu_environment() -> None:
    """What libtpu needs to compile on a host without TPUs; before JAX is first used."""
    jax.config.update("jax_platforms", "cpu")  # else JAX looks for the chips of the libtpu that it finds
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_STDERR_LOG_LEVEL": "3"}
    for name, value in {**quiet, "TPU_MIN_LOG_LEVEL": "3", "TPU_LIBRARY_LOG_LEVEL": "3"}.items():
        os.environ.setdefault(name, value)


def devices(topology: Topology) -> list[Any]:
    """Devices that programs can be compiled for and not run on. UserError where libtpu is missing."""
    from jax.experimental import topologies

    name = ("tpu" if topology.chip.name == "7x" else "") + topology.name.split(" x ")[-1]
    more = {"num_slices": topology.slices} if topology.slices > 1 else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **more).devices)
    except Exception as error:  # JAX raises RuntimeError, its own errors and ImportError, by version
        first = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"topology {topology.name}: {first}; compiling for TPUs needs libtpu, in an environment of its "
            "own: pip install -e '.[tpu]'"
        ) from error


def mesh_of(config: PretrainConfig, topology: Topology) -> AnyMesh:
    """The mesh of a config: of devices for TPUs; of GPUs an abstract one, which no program is made for."""
    if topology.chip.platform == "tpu":
        return meshes.make(config.train.mesh, devices(topology))
    sizes = meshes.sizes(config.train.mesh, topology.devices)
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


def check(config: PretrainConfig, mesh: AnyMesh) -> None:
    """UserError where the batch or the sequence cannot be cut as the mesh wants."""
    with set_mesh(mesh):
        meshes.check_rows(
            config.batch_size,
            config.model.max_length,
            config.train.microbatches,
            config.model.stage_microbatches,
        )


def shapes(config: PretrainConfig, mesh: AnyMesh) -> tuple[Any, dict[str, jax.ShapeDtypeStruct]]:
    """The training state and a batch, as shapes with their shardings; within `set_mesh(mesh)`."""
    rule = optimizers.make(config.train.optimizer, config.train.steps)
    state = meshes.abstract(initializer(partial(Transformer, config.model), rule, config.train.seed), mesh)
    cut = NamedSharding(mesh, P(BATCH, "context"))
    size = (config.batch_size, config.model.max_length)
    names = ("tokens", "targets", "segment_ids", "positions")
    batch = {name: jax.ShapeDtypeStruct(size, jnp.int32, sharding=cut) for name in names}
    return state, {**batch, "loss_weights": jax.ShapeDtypeStruct(size, jnp.float32, sharding=cut)}


def whole_state(config: PretrainConfig) -> int:
    """Bytes of weights and optimizer on all devices together, were nothing held twice."""
    one = AbstractMesh((1,) * len(AXES), AXES, axis_types=(jax.sharding.AxisType.Explicit,) * len(AXES))
    with set_mesh(one):
        state, _ = shapes(config, one)
    return _bytes((state.model, state.optimizer))


def measure(config: PretrainConfig, mesh: AnyMesh) -> Memory:
    """Bytes of a device by shapes and shardings alone; nothing is compiled."""
    with set_mesh(mesh):
        state, batch = shapes(config, mesh)
        rows = config.batch_size // config.train.microbatches
        micro = {
            name: jax.ShapeDtypeStruct((rows, x.shape[1]), x.dtype, sharding=x.sharding)
            for name, x in batch.items()
        }

        def backward(model: Any, batch: Any) -> Any:
            return jax.vjp(lambda model: token_loss(model, batch, config.z_loss)[0], model)[1]

        residuals = jax.eval_shape(backward, state.model, micro)
    weights = _bytes(state.model)
    kept = max(0, _bytes(residuals) - weights)  # the weights themselves are among them
    rest = dataclasses.replace(state, model=None, optimizer=None)
    return Memory(
        weights=weights,
        optimizer=_bytes(state.optimizer),
        batch=_bytes(batch) + _bytes(rest),
        kept=kept,
        working=_working(config, mesh, weights),
    )


def compile_step(config: PretrainConfig, mesh: Mesh, memory: Memory) -> Program:
    """The step's program for the mesh's devices; OutOfMemory where the compiler refuses it."""
    import time

    rule = optimizers.make(config.train.optimizer, config.train.steps)
    begun = time.perf_counter()
    with jax.set_mesh(mesh):
        step = make_step(
            partial(token_loss, z_loss=config.z_loss),
            rule,
            config.train.microbatches,
            learning_rate=optimizers.learning_rate(config.train.optimizer, config.train.steps),
        )
        try:
            compiled = step.lower(*shapes(config, mesh)).compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise OutOfMemory(_needed(str(error))) from error
    sizes = compiled.memory_analysis()
    memory = dataclasses.replace(
        memory,
        arguments=sizes.argument_size_in_bytes,
        peak=sizes.peak_memory_in_bytes,
        code=sizes.generated_code_size_in_bytes,
    )
    return Program(memory=memory, text=compiled.as_text(), seconds=time.perf_counter() - begun)


def _bytes(tree: Any) -> int:
    """Of one device."""

    def of(leaf: Any) -> int:
        whole = leaf.sharding is None or isinstance(leaf.sharding, jax.sharding.SingleDeviceSharding)
        shape = leaf.shape if whole else leaf.sharding.shard_shape(leaf.shape)
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(of(leaf) for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape"))


def _working(config: PretrainConfig, mesh: AnyMesh, weights: int) -> int:
    """Gradients; the vocabulary loss: the head's gradient whole over fsdp in float32, the head in compute
    precision, a chunk of logits three times; and a layer's weights, gathered, with its hidden units."""
    model, shape = config.model, mesh.shape
    width = 2 if model.dtype == "bfloat16" else 4
    ways = math.prod(shape[axis] for axis in BATCH)
    rows = max(1, config.batch_size // config.train.microbatches // ways)
    time = model.max_length // shape["context"]
    vocab = model.vocab_size // shape["tensor"]
    chunk = min(rows * time, max(losses.TOKENS, losses.LOGITS // vocab))
    loss = model.d_model * vocab * (4 + width) + 3 * 4 * chunk * vocab
    hidden = model.d_hidden * (model.experts_per_token * shape["expert"] if model.experts else 1)
    attention = model.d_model * model.head_dim * (2 * model.heads + 2 * model.kv_heads)
    mlps = max(1, model.experts // shape["expert"]) * (3 if model.gated else 2)
    gathered = (attention + mlps * model.d_model * model.d_hidden) // shape["tensor"]
    layer = 2 * gathered * width + rows * time * (4 * hidden + 4 * model.d_model) * width // shape["tensor"]
    return weights * (2 if config.train.microbatches > 1 else 1) + loss + layer


def _needed(message: str) -> float | None:
    found = re.search(r"[Uu]sed ([\d.]+)([GMK]) of [\d.]+[GMK] hbm", message)
    found = found or re.search(r"\(([\d.]+)([GMK])\) exceeds", message)
    return float(found[1]) * {"K": 2**10, "M": 2**20, "G": GIB}[found[2]] if found else None
