"""What a run cost: time, money at a stated price, energy measured and energy estimated, carbon.

Measured is what counters read (`cost.json`, runtime/energy.py); estimated is stated power times time
(runtime/cost.py). They stand beside each other and are never added.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import jax

from jaxtrain import artifact
from jaxtrain.runtime import cost
from jaxtrain.runtime.cost import Range

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


def gather(folders: Mapping[str, Path], accelerated: Collection[str], prices: Prices) -> Line:
    """Of each stage and of all, if this machine is the one that ran them.

    accelerated: those of `folders` whose stage computes on the accelerator, if there is one.
    """
    spent = {name: artifact.read_cost(folder) for name, folder in folders.items()}
    devices, cores = jax.devices(), cost.cores()
    each, host = cost.device_watts(devices[0].device_kind), cost.CORE_WATTS * cores
    pue = Range(prices.pue, prices.pue, prices.pue) if prices.pue else cost.PUE
    grid = Range(prices.grid, prices.grid, prices.grid) if prices.grid else cost.GRID
    stages: dict[str, Line] = {}
    energies = []
    for name, of in spent.items():
        watts = host if name not in accelerated else None if each is None else host + each * len(devices)
        energies.append(None if watts is None else cost.kilowatt_hours(of["seconds"], watts, pue))
        counters = of.get("measured", {})
        stages[name] = {
            "seconds": of["seconds"],
            "restarts": of.get("restarts", 0),
            "kilowatt_hours": energies[-1] and asdict(energies[-1]),
            "measured": counters.get("kilowatt_hours", {}),
            "measured_seconds": counters.get("seconds", 0.0),
        }
    energy = None if None in energies else reduce(Range.__add__, energies)
    # at the device, by kind of counter: without the building's share
    kinds = dict.fromkeys(kind for stage in stages.values() for kind in stage["measured"])
    measured = {kind: sum(stage["measured"].get(kind, 0.0) for stage in stages.values()) for kind in kinds}
    added = ("seconds", "restarts", "measured_seconds")
    whole = {what: sum(stage[what] for stage in stages.values()) for what in added}
    busy = sum(stage["seconds"] for name, stage in stages.items() if name in accelerated)
    is_cpu = devices[0].platform == "cpu"
    hours = (whole["seconds"] if is_cpu else busy * len(devices)) / 3600
    return whole | {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "cores": cores,
        "stages": stages,
        "device_hours": hours,
        "price": prices.price or None,
        "currency": prices.currency,
        "money": hours * prices.price if prices.price else None,
        "kilowatt_hours": energy and asdict(energy),
        "measured": measured,
        "pue": asdict(pue),
        "grid": asdict(grid),
        "kilograms": energy and asdict(cost.kilograms(energy, grid)),
    }
