"""What a run cost: time, money at a stated price, energy measured and energy estimated, carbon.

Measured is what counters read (`cost.json`, runtime/energy.py); estimated is stated power times time
(runtime/cost.py). They stand beside each other and are never added.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import jax

from jaxtrain import artifact
from jaxtrain.runtime import cost
from jaxtrain.runtime.cost import Range

ON_ACCELERATOR = {"pretrain", "finetune", "rate", "reward", "ppo", "evaluate"}
Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What the reader states; 0: not stated."""

    price: float = 0.0
    """Of one device (on CPUs: of the machine) for an hour."""
    currency: str = "USD"
    """Of that price."""
    pue: float = 0.0
    """Power of the building over that of the machine."""
    grid: float = 0.0
    """kg CO2e of a kWh."""


def gather(folders: Mapping[str, Path], prices: Prices) -> Line:
    """Of each stage and of all, if this machine is the one that ran them."""
    spent = {name: artifact.read_cost(folder) for name, folder in folders.items()}
    devices, cores = jax.devices(), cost.cores()
    each, host = cost.device_watts(devices[0].device_kind), cost.CORE_WATTS * cores
    pue = Range(prices.pue, prices.pue, prices.pue) if prices.pue else cost.PUE
    grid = Range(prices.grid, prices.grid, prices.grid) if prices.grid else cost.GRID
    stages: dict[str, Line] = {}
    for name, of in spent.items():
        watts = host if name not in ON_ACCELERATOR else None if each is None else host + each * len(devices)
        energy = None if watts is None else cost.kilowatt_hours(of["seconds"], watts, pue)
        stages[name] = {
            "seconds": of["seconds"],
            "restarts": of.get("restarts", 0),
            "kilowatt_hours": energy,
            "measured": of.get("measured", {}).get("kilowatt_hours", {}),
            "measured_seconds": of.get("measured", {}).get("seconds", 0.0),
        }
    energies = [stage["kilowatt_hours"] for stage in stages.values()]
    energy = None if None in energies else reduce(Range.__add__, energies)
    busy = sum(stage["seconds"] for name, stage in stages.items() if name in ON_ACCELERATOR) / 3600
    hours = busy * len(devices) if devices[0].platform != "cpu" else sum(_seconds(stages)) / 3600
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "cores": cores,
        "stages": {
            name: {**stage, "kilowatt_hours": _asdict(stage["kilowatt_hours"])}
            for name, stage in stages.items()
        },
        "seconds": sum(_seconds(stages)),
        "restarts": sum(stage["restarts"] for stage in stages.values()),
        "device_hours": hours,
        "price": prices.price or None,
        "currency": prices.currency,
        "money": hours * prices.price if prices.price else None,
        "kilowatt_hours": _asdict(energy),
        "measured": _measured(stages),
        "measured_seconds": sum(stage["measured_seconds"] for stage in stages.values()),
        "pue": asdict(pue),
        "grid": asdict(grid),
        "kilograms": _asdict(energy and cost.kilograms(energy, grid)),
    }


def _seconds(stages: Mapping[str, Line]) -> list[float]:
    return [stage["seconds"] for stage in stages.values()]


def _measured(stages: Mapping[str, Line]) -> dict[str, float]:
    """kWh by kind of counter, at the device: without the building's share."""
    sums: dict[str, float] = {}
    for stage in stages.values():
        for kind, value in stage["measured"].items():
            sums[kind] = sums.get(kind, 0.0) + value
    return sums


def _asdict(figure: Range | None) -> dict[str, float] | None:
    return None if figure is None else asdict(figure)
