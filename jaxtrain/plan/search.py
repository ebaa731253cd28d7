"""Settings that fit and are fast: neighbours of a config, measured by shapes, the best of them compiled."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from jaxtrain import config as configs
from jaxtrain.model.config import ModelConfig
from jaxtrain.plan import compiler, program, roofline
from jaxtrain.plan.collectives import Traffic, read
from jaxtrain.plan.compiler import OutOfMemory
from jaxtrain.plan.hardware import Topology
from jaxtrain.plan.program import Memory, Program
from jaxtrain.plan.roofline import Time
from jaxtrain.plan.work import AnyMesh, Work, work_of
from jaxtrain.runtime.cost import Range
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.progress import say
from jaxtrain.weights.learners import runs_as

Changes = tuple[str, ...]
TRIES = 4
"""Programs compiled in one search, at most."""
MARGIN = 0.9
"""Of a device's memory, for what is only estimated."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One program of a setting: what it takes and how long a call of it is expected to be."""

    program: Program
    memory: Memory
    traffic: list[Traffic]
    time: Time

    @property
    def seconds(self) -> Range:
        """For each step of the optimizer."""
        return self.time.step * self.program.calls


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One setting on one topology: what it takes and how fast it is expected to be."""

    work: Work
    shape: ModelConfig
    topology: Topology
    mesh: AnyMesh
    changes: Changes
    """From what was asked for."""
    parts: tuple[Part, ...]
    """In the order in which they run; the optimizer's step is the last."""
    compiled: bool = False
    compile_seconds: float = 0.0

    @property
    def memory(self) -> Memory:
        """Of the fullest program."""
        return max((part.memory for part in self.parts), key=lambda memory: memory.total)

    @property
    def seconds(self) -> Range:
        """From one optimizer step to the next."""
        return sum((part.seconds for part in self.parts), Range(0, 0, 0))

    @property
    def step(self) -> Part:
        return self.parts[-1]

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.topology.chip.memory


def measured(config: Any, shape: ModelConfig, topology: Topology, changes: Changes = ()) -> Outcome:
    """By shapes and formulas alone. UserError where mesh, rows and model do not go together."""
    mesh = compiler.mesh_of(config.train.mesh, topology)
    parts = []
    with compiler.set_mesh(mesh):
        work = work_of(config, shape)
        program.check(work)
        for one in program.programs(work, mesh):
            traffic = roofline.expected_traffic(one, work, mesh, one.memory)
            time = roofline.estimate(one, work, topology, mesh, one.memory, traffic)
            parts.append(Part(program=one, memory=one.memory, traffic=traffic, time=time))
    return Outcome(work=work, shape=shape, topology=topology, mesh=mesh, changes=changes, parts=tuple(parts))


def compiled(found: Outcome) -> Outcome:
    """The same by its compiled programs; OutOfMemory where one is refused, or has no room."""
    assert isinstance(found.mesh, Mesh), "an abstract mesh has no compiler"
    parts, seconds = [], 0.0
    for part in found.parts:
        say(f"compiling the {part.program.name} for {found.topology.name}, mesh {mesh_words(found)} …")
        with compiler.set_mesh(found.mesh):
            made = compiler.compiled(part.program)
        if made.memory.total > found.topology.chip.memory:
            raise OutOfMemory(made.memory.total)
        traffic = read(made.text, dict(found.mesh.shape))
        time = roofline.estimate(
            part.program, found.work, found.topology, found.mesh, made.memory, traffic, made.flops
        )
        one = dataclasses.replace(part, memory=made.memory, traffic=traffic, time=time)
        parts.append(one)
        seconds += made.seconds
    return dataclasses.replace(found, parts=tuple(parts), compiled=True, compile_seconds=seconds)


def answered(config: Any, shape: ModelConfig, topology: Topology) -> tuple[Outcome, str]:
    """What was asked for, or the nearest that fits; and in words why it is not what was asked for ("")."""
    asked = measured(config, shape, topology)
    has_compiler = isinstance(asked.mesh, Mesh)
    limit = topology.chip.memory
    if not has_compiler and asked.fits:
        return asked, ""
    needed = asked.memory.total
    if has_compiler and asked.step.memory.state < limit:
        try:
            return compiled(asked), ""
        except OutOfMemory as error:
            needed = error.needed or needed
    why = f"{_gib(needed)} GiB are needed, a device of {topology.name} has {_gib(limit)}"
    while True:
        if (found := _nearest(config, shape, topology)) is not None:
            return found, why
        topology = _doubled(topology)
        if topology.devices > 2**15:
            raise UserError(f"{why}; no mesh, micro-batch or remat fits, on 32,768 devices neither")
        say(f"nothing fits; trying {topology.name}")


def _nearest(config: Any, shape: ModelConfig, topology: Topology) -> Outcome | None:
    """The fewest changes that fit, then the fastest; compiled where there is a compiler."""
    limit = MARGIN * topology.chip.memory
    if program.whole_state(config, shape) > limit * topology.devices:
        return None
    tries = 0
    for _, alike in itertools.groupby(neighbours(config, shape, topology), key=lambda one: len(one[1])):
        likely = [one for one in _measured_all(alike, shape, topology) if one.memory.total <= limit]
        for one in sorted(likely, key=lambda one: one.seconds.value):
            if not isinstance(one.mesh, Mesh):
                return one
            try:
                return compiled(one)
            except OutOfMemory:
                say(f"out of memory: {'; '.join(one.changes)}")
                tries += 1
                if tries == TRIES:
                    return None
    return None


def neighbours(config: Any, shape: ModelConfig, topology: Topology) -> list[tuple[Any, Changes]]:
    """The config with other remat, micro-batches, meshes and rows; and the changes, fewest first."""
    remats = dict.fromkeys((runs_as(config.train, shape).remat, "full"))
    found = []
    for rows, of_rows in _fewer(config):
        for parts, of_parts in _settings(rows, shape, remats, (1, 2, 4, 8)):
            for mesh, of_mesh in _meshes(config, shape, topology):
                changed = configs.changed(parts, train__mesh=mesh)
                found.append((changed, of_rows + of_parts + of_mesh))
    return sorted(found, key=lambda one: len(one[1]))


def _settings(
    config: Any, shape: ModelConfig, remats: Iterable[str], factors: Iterable[float]
) -> Iterator[tuple[Any, Changes]]:
    """The config with each remat, and its micro-batches times each factor that leaves whole ones."""
    own = runs_as(config.train, shape).remat
    for remat, factor in itertools.product(remats, factors):
        if (parts := config.train.microbatches * factor) != int(parts):
            continue
        changed = configs.changed(config, train__microbatches=int(parts))
        changed = configs.changed(changed, train__remat=remat) if remat != own else changed
        words = (f"train.remat {remat}",) * (remat != own)
        yield changed, words + (f"train.microbatches {int(parts)}",) * (factor != 1)


def _fewer(config: Any) -> Iterator[tuple[Any, Changes]]:
    """The config itself, and with fewer answers side by side or a round, where it samples any."""
    yield config, ()
    for name in ("sample_rows", "rollouts", "prompts", "group"):
        for divisor in (2, 4, 8):
            if (size := getattr(config, name, 0)) >= 2 * divisor and size % divisor == 0:
                yield configs.changed(config, **{name: size // divisor}), (f"{name} {size // divisor}",)


def _measured_all(
    settings: Iterable[tuple[Any, Changes]], shape: ModelConfig, topology: Topology
) -> Iterator[Outcome]:
    """Of those whose mesh, batch and model go together; neighbours are made by rule, and many do not."""
    for config, changes in settings:
        try:
            yield measured(config, shape, topology, changes)
        except UserError:
            continue


def swept(config: Any, shape: ModelConfig, topology: Topology) -> list[Outcome]:
    """Meshes of data, fsdp and tensor by formula, then of the best of them every remat and micro-batches.

    The fastest first that leaves a tenth of the memory; of equally fast ones the surer.
    """
    limit = MARGIN * topology.chip.memory

    def in_order(found: Iterable[Outcome]) -> list[Outcome]:
        # of those that are expected as fast, what hides less behind arithmetic
        rank = lambda o: (o.memory.total > limit, o.seconds.value, o.seconds.high, len(o.changes))  # noqa: E731
        return sorted(found, key=rank)

    choices = _meshes(config, shape, topology)
    settings = ((configs.changed(config, train__mesh=mesh), words) for mesh, words in choices)
    meshes = in_order(_measured_all(settings, shape, topology))
    if not meshes:
        remedy = f"make the rows of a step a multiple of {topology.devices}"
        raise UserError(f"no mesh of {topology.name} cuts this model and its rows; {remedy}")
    best, factors = meshes[0], [2.0**power for power in range(-6, 7)]
    others = _settings(best.work.config, shape, ("none", "dots", "full"), factors)
    changed = ((one, best.changes + words) for one, words in others if words)
    return in_order([*meshes, *_measured_all(changed, shape, topology)])


def fastest(found: list[Outcome]) -> Outcome | None:
    """The first of a sweep that leaves a tenth of the memory; compiled where there is a compiler."""
    limit = MARGIN * found[0].topology.chip.memory
    for one in [one for one in found if one.memory.total <= limit][:TRIES]:
        if not isinstance(one.mesh, Mesh):
            return one
        with contextlib.suppress(OutOfMemory):  # said below, as of one that takes too much
            if (made := compiled(one)).memory.total <= limit:
                return made
        say(f"too little memory is left: {'; '.join(one.changes) or 'as the config says'}")
    return None


def _meshes(config: Any, shape: ModelConfig, topology: Topology) -> Iterator[tuple[MeshConfig, Changes]]:
    """The config's own mesh, then those of data and tensor that leave a whole number of devices for fsdp."""
    own = config.train.mesh
    yield own, ()
    fixed = max(1, own.stage) * max(1, own.expert) * max(1, own.context)
    for tensor in (1, 2, 4, 8):
        for copies in (1, 2, 4, 8):
            data = topology.slices * copies
            rest, left = divmod(topology.devices, fixed * tensor * data)
            is_own = (data, tensor) == (own.data, own.tensor) and own.fsdp in (-1, rest)
            if left or rest < 1 or shape.kv_heads % tensor or is_own:
                continue
            mesh = dataclasses.replace(own, data=data, fsdp=rest, tensor=tensor)
            words = f"train.mesh.data {data}, train.mesh.fsdp {rest}, train.mesh.tensor {tensor}"
            yield mesh, (words,)


def _doubled(topology: Topology) -> Topology:
    """Twice the devices: the shortest side of the torus doubled."""
    sides = list(topology.shape)
    sides[sides.index(min(sides))] *= 2
    return dataclasses.replace(topology, shape=tuple(sorted(sides)))


def mesh_words(found: Outcome) -> str:
    sizes = [f"{axis} {size}" for axis, size in found.mesh.shape.items() if size > 1]
    return " x ".join(sizes) or "of one device"


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}"
