"""Settings that fit and are fast: neighbours of a config, measured by shapes, the best of them compiled."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jax.sharding import Mesh

from jaxtrain import config as configs
from jaxtrain.plan import program, roofline
from jaxtrain.plan.collectives import Traffic, read
from jaxtrain.plan.hardware import Topology
from jaxtrain.plan.program import AnyMesh, Memory, OutOfMemory
from jaxtrain.plan.roofline import Time
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.progress import say

TRIES = 4
"""Programs compiled in one search, at most."""
MARGIN = 0.9
"""Of a device's memory, for what is only estimated."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One setting on one topology: what it takes and how fast it is expected to be."""

    config: PretrainConfig
    topology: Topology
    mesh: AnyMesh
    changes: tuple[str, ...]
    """From what was asked for."""
    memory: Memory
    traffic: list[Traffic]
    time: Time
    compiled: bool
    compile_seconds: float = 0.0

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.topology.chip.memory


def measured(config: PretrainConfig, topology: Topology, changes: tuple[str, ...] = ()) -> Outcome:
    """By shapes and formulas alone. UserError where mesh, batch and model do not go together."""
    mesh = program.mesh_of(config, topology)
    program.check(config, mesh)
    memory = program.measure(config, mesh)
    traffic = roofline.expected_traffic(config, mesh, memory)
    time = roofline.estimate(config, topology, mesh, memory, traffic)
    return Outcome(
        config=config,
        topology=topology,
        mesh=mesh,
        changes=changes,
        memory=memory,
        traffic=traffic,
        time=time,
        compiled=False,
    )


def compiled(found: Outcome) -> Outcome:
    """The same by its compiled program; OutOfMemory where there is none."""
    assert isinstance(found.mesh, Mesh), "an abstract mesh has no compiler"
    say(f"compiling for {found.topology.name}, mesh {mesh_words(found)} …")
    made = program.compile_step(found.config, found.mesh, found.memory)
    traffic = read(made.text, dict(found.mesh.shape))
    return dataclasses.replace(
        found,
        memory=made.memory,
        traffic=traffic,
        time=roofline.estimate(found.config, found.topology, found.mesh, made.memory, traffic),
        compiled=True,
        compile_seconds=made.seconds,
    )


def answered(config: PretrainConfig, topology: Topology) -> tuple[Outcome, str]:
    """What was asked for, or the nearest that fits; and in words why it is not what was asked for ("")."""
    asked = measured(config, topology)
    has_compiler = isinstance(asked.mesh, Mesh)
    limit = topology.chip.memory
    if not has_compiler and asked.fits:
        return asked, ""
    needed = asked.memory.total
    if has_compiler and asked.memory.state < limit:
        try:
            return compiled(asked), ""
        except OutOfMemory as error:
            needed = error.needed or needed
    why = f"{_gib(needed)} GiB are needed, a device of {topology.name} has {_gib(limit)}"
    while True:
        if (found := _nearest(config, topology)) is not None:
            return found, why
        topology = _doubled(topology)
        if topology.devices > 2**15:
            raise UserError(f"{why}; no mesh, micro-batch or remat fits, on 32,768 devices neither")
        say(f"nothing fits; trying {topology.name}")


def _nearest(config: PretrainConfig, topology: Topology) -> Outcome | None:
    """The fewest changes that fit, then the fastest; compiled where there is a compiler."""
    limit = MARGIN * topology.chip.memory
    if program.whole_state(config) > limit * topology.devices:
        return None
    tries = 0
    for _, alike in itertools.groupby(neighbours(config, topology), key=lambda one: len(one[1])):
        likely = [one for one in _measured_all(alike, topology) if one.memory.total <= limit]
        for one in sorted(likely, key=lambda one: one.time.step.value):
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


def neighbours(config: PretrainConfig, topology: Topology) -> list[tuple[PretrainConfig, tuple[str, ...]]]:
    """The config with other remat, micro-batches and meshes, and what is changed; fewest changes first."""
    remats: dict[str, tuple[str, ...]] = {"full": ("model.remat full",), config.model.remat: ()}
    found = []
    for remat, of_remat in remats.items():
        model = dataclasses.replace(config.model, remat=remat)
        for factor in (1, 2, 4, 8):
            parts = config.train.microbatches * factor
            of_parts = (f"microbatches {parts}",) if factor > 1 else ()
            for mesh, of_mesh in _meshes(config, topology):
                changed = configs.changed(config, train__microbatches=parts, train__mesh=mesh, model=model)
                found.append((changed, of_remat + of_parts + of_mesh))
    return sorted(found, key=lambda one: len(one[1]))


def _measured_all(
    settings: Iterable[tuple[PretrainConfig, tuple[str, ...]]], topology: Topology
) -> Iterator[Outcome]:
    """Of those whose mesh, batch and model go together; neighbours are made by rule, and many do not."""
    for config, changes in settings:
        try:
            yield measured(config, topology, changes)
        except UserError:
            continue


def swept(config: PretrainConfig, topology: Topology) -> list[Outcome]:
    """Every mesh of data, fsdp and tensor by formula, the fastest that fits first."""
    meshes = [(configs.changed(config, train__mesh=mesh), words) for mesh, words in _meshes(config, topology)]
    found = list(_measured_all(meshes, topology))
    if not found:
        raise UserError(
            f"no mesh of {topology.name} cuts batch_size {config.batch_size} and this model; "
            f"make batch_size a multiple of {topology.devices}"
        )
    return sorted(found, key=lambda one: (not one.fits, one.time.step.value))


def _meshes(config: PretrainConfig, topology: Topology) -> Iterator[tuple[MeshConfig, tuple[str, ...]]]:
    """The config's own mesh, then those of data and tensor that leave a whole number of devices for fsdp."""
    own = config.train.mesh
    yield own, ()
    fixed = max(1, own.stage) * max(1, own.expert) * max(1, own.context)
    for tensor in (1, 2, 4, 8):
        for copies in (1, 2, 4, 8):
            data = topology.slices * copies
            rest, left = divmod(topology.devices, fixed * tensor * data)
            if left or rest < 1 or config.model.kv_heads % tensor:
                continue
            mesh = dataclasses.replace(own, data=data, fsdp=rest, tensor=tensor)
            words = f"mesh.data {data}, mesh.fsdp {rest}, mesh.tensor {tensor}"
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
