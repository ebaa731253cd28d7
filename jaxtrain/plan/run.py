"""`jaxtrain plan CONFIG --topology v5p:8x8x8`: memory, time, energy and money of a run, before it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxtrain import config as configs
from jaxtrain.model.config import ModelConfig
from jaxtrain.plan import bill, program, search, show
from jaxtrain.plan.hardware import Topology, parse
from jaxtrain.plan.work import shape_of
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """What to plan for."""

    topology: str
    """Chips and their shape: v4, v5e, v5p, v6e, 7x (`v5p:8x8x8`); a100, h100, h200, b200 (`h100:64`)."""
    slices: Count = 1
    """TPU slices, joined by the data centre's network."""
    sweep: bool = False
    """Compare meshes of data, fsdp and tensor by formula, and compile the best."""
    json: bool = False
    """Print JSON."""
    price: float = 0.0
    """US dollars an hour and chip; 0: the list price that is known."""
    link: float = 0.0
    """Bytes a second of one link in one direction; 0: the published figure."""
    network: float = 0.0
    """Bytes a second of a chip out of its slice or node; 0: the published figure."""


SWITCHES = ("--sweep", "--json")


def plan(arguments: list[str]) -> None:
    """Print the plan of a training config; what is not a field of PlanConfig overrides the config's."""
    path, own, rest = _divide(arguments)
    asked = configs.from_flags(PlanConfig, own)
    topology = _given(parse(asked.topology, asked.slices), asked)
    if topology.chip.platform == "tpu":
        program.tpu_environment()
    config = configs.override(configs.load(path), rest)
    found = answer(config, shape_of(config, Path(path).parent), topology, asked)
    print_ = json.dumps(found, indent=1) if asked.json else show.text(found)
    show.out(print_)


def answer(config: Any, shape: ModelConfig, topology: Topology, asked: PlanConfig) -> dict[str, Any]:
    """Everything that is shown, as JSON values. shape: `work.shape_of(config)`."""
    swept: list[search.Outcome] = []
    if asked.sweep:
        swept = search.swept(config, shape, topology)
        best, why = search.answered(swept[0].work.config, shape, topology)
        if isinstance(best.mesh, Mesh) and len(swept) > 1 and not best.compiled:
            best = search.compiled(best)
    else:
        best, why = search.answered(config, shape, topology)
    return bill.described(best, why, swept)


def _divide(arguments: list[str]) -> tuple[str, list[str], list[str]]:
    """The config's path, the flags of PlanConfig, the overrides of the config."""
    if not arguments or arguments[0].startswith("-"):
        raise UserError("plan takes a config first: jaxtrain plan CONFIG --topology v5p:8x8x8")
    names = {field.name for field in dataclasses.fields(PlanConfig)}
    own: list[str] = []
    rest: list[str] = []
    target = rest
    for argument in arguments[1:]:
        if argument.startswith("--"):
            is_own = argument[2:].split("=")[0] in names
            target = own if is_own else rest
        target.append(argument)
        if argument in SWITCHES:
            target.append("True")
            target = rest
    if not any(argument.split("=")[0] == "--topology" for argument in own):
        raise UserError("plan needs --topology, for example --topology v5p:8x8x8 or --topology h100:64")
    return arguments[0], own, rest


def _given(topology: Topology, asked: PlanConfig) -> Topology:
    """With the prices and bandwidths that were given."""
    chip = topology.chip
    changes: dict[str, float] = {}
    if asked.price:
        changes["price"] = asked.price / chip.per_chip
    if asked.link:
        changes["link"] = asked.link / chip.per_chip
    if asked.network:
        changes["network"] = asked.network / chip.per_chip
    return dataclasses.replace(topology, chip=dataclasses.replace(chip, **changes))
