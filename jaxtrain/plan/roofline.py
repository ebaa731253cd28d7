"""How long a program takes: arithmetic, memory and links, each at its limit, and what is to be expected.

B rows of a device, T time, D model, F hidden, L layers
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxtrain.plan.collectives import Traffic
from jaxtrain.plan.hardware import Chip, Topology, attainable
from jaxtrain.plan.program import ONCE, Memory, Program, weights_of
from jaxtrain.plan.work import AnyMesh, Work
from jaxtrain.runtime.cost import Range
from jaxtrain.runtime.mesh import BATCH

NODE = 8  # GPUs behind one NVLink switch
DECODING = Range(1, 2, 5)
"""Times that decoding takes longer than its bytes do at the memory's peak: an assumption, for no one
publishes it of a loop in JAX."""


@dataclass(frozen=True, kw_only=True)
class Time:
    """Seconds of a call, were each of the three the only limit, and what is expected."""

    compute: float
    """All FLOPs, recomputed ones too, at the chip's peak."""
    memory: float
    links: float
    step: Range
    """low: arithmetic at the best published share of the peak, links hidden behind it. value: at the median,
    hidden. high: at the lowest, and nothing hidden."""
    flops_per_token: float
    recompute: float
    """FLOPs done over FLOPs that count."""

    @property
    def bound(self) -> str:
        parts = {"compute": self.compute, "memory": self.memory, "links": self.links}
        return max(parts, key=lambda name: parts[name])


def estimate(
    program: Program,
    work: Work,
    topology: Topology,
    mesh: AnyMesh,
    memory: Memory,
    traffic: list[Traffic],
    flops: dict[str, float] | None = None,
) -> Time:
    """Of one call on all devices of the topology. flops: of a device, counted in its program."""
    chip = topology.chip
    per_token, again = work.model.flops_per_token(work.length), 1.0
    if program.name == "step":
        again = recompute(work)
    else:  # forward alone
        per_token /= 3
    tokens = program.rows * work.length / topology.devices
    counted = tokens * per_token
    if flops is not None and program.name != "sampling":  # its loop ends with the last answer
        again = sum(flops.values()) / counted
    peak = counted * again / chip.flops
    low, value, high = attainable(chip)
    # A pipeline works M of its M + S - 1 turns.
    stages, parts = mesh.shape["stage"], work.model.stage_microbatches
    turns = (parts + stages - 1) / parts if stages > 1 else 1.0
    in_memory = _memory_bytes(program, work, mesh, memory) / chip.bandwidth
    links = sum(one.sent / bandwidth(one, topology, mesh) for one in traffic)
    in_time = (DECODING if program.name == "sampling" else ONCE) * in_memory
    spent = [peak * turns / share for share in (high, value, low)]
    step = Range(
        max(spent[0], in_time.low, links),
        max(spent[1], in_time.value, links),
        max(spent[2], in_time.high) + links,
    )
    work_done = {"flops_per_token": per_token, "recompute": again}
    return Time(compute=peak, memory=in_memory, links=links, step=step, **work_done)


def recompute(work: Work) -> float:
    """FLOPs done over FLOPs that count, by what the backward pass finds. Not done again: the output head, and
    of a dense layer the last matmul, whose result no gradient needs."""
    model = work.model
    if model.remat not in ("full", "offload"):
        return 1.0
    last = 0 if model.experts or model.norm_placement != "before" else model.layers * model.d_hidden
    once = 2 * model.d_model * (model.vocab_size + last)
    return 4 / 3 - once / model.flops_per_token(work.length)


def _memory_bytes(program: Program, work: Work, mesh: AnyMesh, memory: Memory) -> float:
    """At least: gathered weights read in each pass, the optimizer's own, activations once each. Sampling
    reads the weights and all slots of keys and values for every token."""
    model, shape, width = work.model, mesh.shape, work.width
    if program.name == "sampling":
        assert work.rollouts is not None
        return work.rollouts.new * (weights_of(model) * width / shape["tensor"] + memory.kept)
    whole = memory.weights / 4 * width * shape["fsdp"]
    rows = program.rows / math.prod(shape[axis] for axis in BATCH)
    hidden = model.d_hidden * (model.experts_per_token if model.experts else 1)
    stream = rows * work.length / shape["context"] * model.layers / shape["stage"] * width
    activations = stream * (8 * model.d_model + 3 * hidden) / shape["tensor"]
    if program.name == "log-probabilities":
        return whole + activations
    passes = work.train.microbatches * (4 if model.remat in ("full", "offload") else 3)
    return passes * whole + 2 * (memory.weights + memory.optimizer) + memory.weights + 3 * activations


def bandwidth(traffic: Traffic, topology: Topology, mesh: AnyMesh) -> float:
    """Bytes/s at which a device sends, over all links that the axes give it, in both directions of a ring."""
    chip = topology.chip
    if chip.platform == "gpu":
        return chip.link if traffic.devices <= NODE and _inside_node(traffic, mesh) else chip.network
    if isinstance(mesh, Mesh) and traffic.axes:
        return _torus(chip, topology, _line(mesh, traffic.axes))
    return chip.link * 2


def _inside_node(traffic: Traffic, mesh: AnyMesh) -> bool:
    """Whether a line along these axes stays among eight neighbours: the axes behind them count too."""
    names = list(mesh.shape)
    if not traffic.axes:
        return False
    first = min(names.index(axis) for axis in traffic.axes)
    return math.prod(mesh.shape[axis] for axis in names[first:]) <= NODE


def _line(mesh: Mesh, axes: tuple[str, ...]) -> list[Any]:
    """The devices of one group along these axes."""
    at = tuple(slice(None) if name in axes else 0 for name in mesh.axis_names)
    return list(np.asarray(mesh.devices[at]).ravel())


def _torus(chip: Chip, topology: Topology, devices: list[Any]) -> float:
    """Two directions a dimension that the devices span, one where the ring is not closed."""
    if len({getattr(device, "slice_index", 0) for device in devices}) > 1:
        return chip.network
    coordinates = np.array([device.coords for device in devices])
    rate = 0.0
    for dimension, whole in enumerate(topology.shape):
        spanned = len(set(coordinates[:, dimension]))
        # v5e and v6e close a ring at 16, the others at multiples of 4 (Google Cloud, TPU architecture).
        closed = spanned == whole and (whole == 16 if chip.dimensions == 2 else whole % 4 == 0)
        if spanned > 1:
            rate += chip.link * (2 if closed else 1)
    return rate or chip.link * 2  # the two halves of one chip


def expected_traffic(program: Program, work: Work, mesh: AnyMesh, memory: Memory) -> list[Traffic]:
    """By formula, where no program is compiled: what each axis moves in a call.

    fsdp gathers the weights in compute precision for each pass and scatters the gradients, in each turn of a
    pipeline; tensor gathers and scatters the residual stream four times a layer and pass, context passes keys
    and values round, expert exchanges tokens twice a pass, stage hands the stream on, data sums
    the gradients. Sampling gathers the weights once.
    """
    model, n, width = work.model, dict(mesh.shape), work.width
    learns = program.name == "step"
    passes = (3 if model.remat in ("full", "offload") else 2) if learns else 1  # forward, again, backward
    back = int(learns)
    parts = work.train.microbatches if learns else 1
    whole = memory.weights * n["fsdp"] // 4 * width
    rows = program.rows / math.prod(n[axis] for axis in BATCH)
    stream = int(rows * work.length / n["context"] * model.d_model * width)
    layers = model.layers // n["stage"]
    keys = int(stream / model.d_model * 2 * model.kv_heads * model.head_dim / n["tensor"])
    experts = 2 * layers * (passes + back) if model.experts else 0
    turns = model.stage_microbatches + n["stage"] - 1 if n["stage"] > 1 else 1
    plan = [
        ("all-gather", "fsdp", passes * parts * turns, whole),
        ("reduce-scatter", "fsdp", back * parts * turns, whole),
        ("all-gather", "tensor", 2 * layers * (passes + back), stream),
        ("reduce-scatter", "tensor", 2 * layers * (passes + back), stream),
        ("collective-permute", "context", layers * (passes + 2 * back) * (n["context"] - 1), keys),
        ("ragged-all-to-all", "expert", experts, model.experts_per_token * stream),
        ("collective-permute", "stage", (1 + back) * turns, stream // model.stage_microbatches),
        ("all-reduce", "data", back, memory.weights),
    ]
    return [
        Traffic(kind=kind, axes=(axis,), devices=n[axis], count=count, size=count * size)
        for kind, axis, count, size in plan
        if n[axis] > 1 and count
    ]
