"""A plan as JSON values and ranges: the setting, memory, what travels, time, and what the whole run costs."""

import dataclasses
from typing import Any

from jaxtrain.plan import compiler, hardware
from jaxtrain.plan.program import Memory
from jaxtrain.plan.search import Outcome, Part, mesh_words
from jaxtrain.runtime import cost
from jaxtrain.runtime.cost import Range

DAY = 86_400.0
PUE = Range(1.05, 1.1, 1.4)
"""Of a data centre for accelerators: the mean of Google's is 1.09 (2024), of clouds 1.1 to 1.2; old 1.4."""


def described(found: Outcome, why: str, swept: list[Outcome]) -> dict[str, Any]:
    """Everything of a plan. Times in seconds, sizes in bytes, of one device unless said."""
    work, chip, devices = found.work, found.topology.chip, found.topology.devices
    train, model, time = work.config.train, work.model, found.step.time
    tokens = work.rows * work.length
    each = found.seconds
    per_second = Range(tokens / each.high, tokens / each.value, tokens / each.low)
    of_step = Range(tokens / time.step.high, tokens / time.step.value, tokens / time.step.low)
    return {
        "asked_for_does_not_fit": why,
        "changes": list(found.changes),
        "topology": found.topology.name,
        "devices": devices,
        "mesh": mesh_words(found),
        "model": {
            "matmul_parameters": model.matmul_parameters,
            "layers": model.layers,
            "remat": model.remat,
            "dtype": model.dtype,
        },
        "rows": work.rows,
        "length": work.length,
        "microbatches": train.microbatches,
        "steps": train.steps,
        "compiled": found.compiled,
        "not_compiled_for_want_of": compiler.missing(found.topology),
        "compile_seconds": round(found.compile_seconds, 1),
        "memory": _memory(found.memory) | {"has": int(chip.memory)},
        "programs": [_part(part, each) for part in found.parts],
        "step": {
            "seconds": each,
            "flops_per_token": time.flops_per_token,
            "recompute": time.recompute,
            "tokens_per_second": per_second,
            "tokens_per_second_per_device": per_second * (1 / devices),
            "mfu": of_step * (time.flops_per_token / (devices * chip.flops)),
        },
        "run": _run(found) if train.steps else None,
        "inputs": _inputs(found),
        "sweep": [_compared(one) for one in swept],
    }


def _memory(memory: Memory) -> dict[str, Any]:
    return {**dataclasses.asdict(memory), "total": memory.total}


def _part(part: Part, each: Range) -> dict[str, Any]:
    """A program; `share`: of the time between two optimizer steps."""
    return {
        "name": part.program.name,
        "rows": part.program.rows,
        "calls": part.program.calls,
        "memory": _memory(part.memory),
        "traffic": [dataclasses.asdict(one) | {"sent": one.sent} for one in part.traffic],
        "compute": part.time.compute,
        "bandwidth": part.time.memory,
        "links": part.time.links,
        "bound": part.time.bound,
        "seconds_a_call": part.time.step,
        "seconds": part.seconds,
        "share": part.seconds.value / each.value,
    }


def _run(found: Outcome) -> dict[str, Any]:
    """What all steps cost."""
    work, chip, devices = found.work, found.topology.chip, found.topology.devices
    steps = work.config.train.steps
    seconds = found.seconds * steps
    hours = seconds * (devices / chip.per_chip / 3600)
    energy = seconds * chip.watts * PUE * (devices / 3.6e6)
    return {
        "tokens": work.rows * work.length * steps,
        "days": seconds * (1 / DAY),
        "chip_hours": hours,
        "dollars": None if chip.price is None else hours * (chip.price * chip.per_chip),
        "kWh": energy,
        "kgCO2e": cost.kilograms(energy),
    }


def _inputs(found: Outcome) -> dict[str, Any]:
    chip = found.topology.chip
    return {
        "peak_flops": chip.flops,
        "memory": chip.memory,
        "bandwidth": chip.bandwidth,
        "link": chip.link,
        "network": chip.network,
        "attainable": Range(*hardware.attainable(chip)),
        "watts_a_device_with_its_host": chip.watts,
        "PUE": PUE,
        "kgCO2e_a_kWh": cost.GRID,
        "dollars_an_hour_and_chip": None if chip.price is None else chip.price * chip.per_chip,
        "sources": chip.sources,
    }


def _compared(one: Outcome) -> dict[str, Any]:
    return {
        "mesh": mesh_words(one),
        "remat": one.work.model.remat,
        "microbatches": one.work.config.train.microbatches,
        "fits": one.fits,
        "memory": one.memory.total,
        "seconds": one.seconds.value,
        "links": one.step.time.links,
        "bound": one.step.time.bound,
    }
