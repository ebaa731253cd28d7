"""`jaxtrain plan CONFIG --topology v5p:8x8x8`: memory, time, energy and money of a run, before it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtrain import config as configs
from jaxtrain.model.config import ModelConfig
from jaxtrain.plan import bill, compiler, search, show
from jaxtrain.plan.hardware import Topology, parse
from jaxtrain.plan.work import shape_of
from jaxtrain.runtime.limits import Count


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Compiles what a training config runs (the step; sampling and log-probabilities too, where it samples)
    for chips that are not there (TPUs need libtpu, GPUs JAX's CUDA plugin; without it all is by formula):
    memory of a device, what travels, time, money, energy. Where it does not fit: what does. Other flags
    change the config, as in its own command."""

    config: str
    """The config file."""
    topology: str
    """Chips and their shape: v4, v5e, v5p, v6e, 7x (`v5p:8x8x8`); a100, h100, h200, b200, l4, l40s,
    rtx4090 (`h100:64`)."""
    slices: Count = 1
    """TPU slices, joined by the data centre's network."""
    sweep: bool = False
    """Compare remat, micro-batches and meshes of data, fsdp and tensor by formula; compile the fastest."""
    json: bool = False
    """Print JSON."""
    price: float = 0.0
    """US dollars an hour and chip; 0: the list price that is known."""
    link: float = 0.0
    """Bytes a second of one link in one direction; 0: the published figure."""
    network: float = 0.0
    """Bytes a second of a chip out of its slice or node; 0: the published figure."""


def plan(asked: PlanConfig, overrides: list[str]) -> str:
    """The plan of a training config, changed by `overrides`, as text or JSON."""
    topology = _given(parse(asked.topology, asked.slices), asked)
    if not compiler.missing(topology):
        compiler.environment(topology)
    config = configs.override(configs.load(asked.config, configs.scale_in(overrides)), overrides)
    found = answer(config, shape_of(config, Path(asked.config).parent), topology, asked)
    return json.dumps(found, indent=1, default=dataclasses.astuple) if asked.json else show.text(found)


def answer(config: Any, shape: ModelConfig, topology: Topology, asked: PlanConfig) -> dict[str, Any]:
    """Everything that is shown, as JSON values and ranges. shape: `work.shape_of(config)`."""
    swept = search.swept(config, shape, topology) if asked.sweep else []
    if swept and (best := search.fastest(swept)):
        return bill.described(best, "", swept)
    best, why = search.answered(config, shape, topology)
    return bill.described(best, why, swept)


def _given(topology: Topology, asked: PlanConfig) -> Topology:
    """With the prices and bandwidths that were given."""
    chip, given = topology.chip, {name: getattr(asked, name) for name in ("price", "link", "network")}
    changes = {name: value / chip.per_chip for name, value in given.items() if value}
    return dataclasses.replace(topology, chip=dataclasses.replace(chip, **changes))
