"""What a run costs: operations of a token, watts of a machine, and the energy and carbon of seconds of it.

No meter is read. Every figure is a Range of stated assumptions, to be printed as an estimate:
    kWh = seconds x watts x PUE / 3.6e6        kg CO2e = kWh x grid
"""

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Range:
    """A figure with the bounds between which it plausibly lies."""

    low: float
    value: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.value + other.value, self.high + other.high)

    def __mul__(self, other: "Range | float") -> "Range":
        by = other if isinstance(other, Range) else Range(other, other, other)
        return Range(self.low * by.low, self.value * by.value, self.high * by.high)


CORE_WATTS = Range(5, 10, 15)
"""A busy CPU core with its share of memory and supply. Thermal design power over cores: 4 W (EPYC 9654,
360 W / 96), 6 W (Xeon 8480+, 350 W / 56), 11 W (Core i9-13900K, 253 W / 24)."""
PUE = Range(1.0, 1.2, 1.6)
"""Power of the building over that of the machine: 1 at home, 1.56 the mean of Uptime's 2024 survey."""
GRID = Range(0.05, 0.4, 0.8)
"""kg CO2e of a kWh: nuclear or hydro; near the world's mean (Llama 3.1's model card implies 0.41); coal."""
LOAD = Range(0.3, 0.7, 1.0)
"""Mean power of an accelerator over its thermal design power while a model runs on it."""
DEVICES: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("devices.toml").read_text("utf-8")
)
"""What is known of accelerators, by the words in the name of one."""


def device(kind: str) -> tuple[float | None, float | None]:
    """FLOP/s and watts of a device by JAX's `device_kind`; None where they are not known."""
    words = set(re.split(r"[\s\-_]+", kind))
    found = next((of for name, of in DEVICES.items() if words.issuperset(name.split())), {})
    return found.get("flops"), found.get("watts")


def cores() -> int:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_watts(kind: str) -> Range | None:
    """Power of one accelerator by JAX's `device_kind`; None where none is published, zero for the CPU."""
    if kind == "cpu":
        return Range(0, 0, 0)  # its cores are counted
    _, watts = device(kind)
    return None if watts is None else LOAD * watts


def kilowatt_hours(seconds: float, watts: Range, pue: Range = PUE) -> Range:
    """Energy at the building's meter."""
    return watts * pue * (seconds / 3.6e6)


def kilograms(energy: Range, grid: Range = GRID) -> Range:
    """Carbon dioxide equivalent of kWh, by where the electricity comes from."""
    return energy * grid


def flops_per_token(matmul_parameters: int, keys: float, width: float) -> float:
    """Operations to train on one token: forward and backward of every matmul, and of attention what it sees.

    keys: that a query sees on average, summed over the layers: half of the context in each. width: heads x
    head_dim. Source: Chowdhery et al. 2022 (PaLM), appendix B, whose 12 L T D counts the masked half too.
    """
    return 6 * matmul_parameters + 12 * keys * width
