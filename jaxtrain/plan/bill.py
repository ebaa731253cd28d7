"""A plan as JSON values: the setting, memory, what travels, time, and what the whole run costs."""

import dataclasses
from typing import Any

from jaxtrain.plan import known, published
from jaxtrain.plan.search import Outcome, mesh_words
from jaxtrain.runtime import cost
from jaxtrain.runtime.cost import Range

DAY = 86_400.0
PUE = Range(1.05, 1.1, 1.4)
"""Of a data centre for accelerators: the mean of Google's is 1.09 (2024), of clouds 1.1 to 1.2; old 1.4."""


def described(found: Outcome, why: str, swept: list[Outcome]) -> dict[str, Any]:
    """Everything of a plan. Times in seconds, sizes in bytes, of one device unless said."""
    config, chip, devices = found.config, found.topology.chip, found.topology.devices
    chips = devices / chip.per_chip
    tokens = config.batch_size * config.model.max_length
    step = found.time.step
    seconds = step * config.train.steps
    hours = seconds * (chips / 3600)
    watts = chip.watts * devices
    energy = Range(
        watts.low * PUE.low * seconds.low / 3.6e6,
        watts.value * PUE.value * seconds.value / 3.6e6,
        watts.high * PUE.high * seconds.high / 3.6e6,
    )
    per_second = Range(tokens / step.high, tokens / step.value, tokens / step.low)
    utilisation = per_second * (found.time.flops_per_token / (devices * chip.flops))
    total = {
        "tokens": tokens * config.train.steps,
        "days": _range(seconds * (1 / DAY)),
        "chip_hours": _range(hours),
        "dollars": None if chip.price is None else _range(hours * (chip.price * chip.per_chip)),
        "kWh": _range(energy),
        "kgCO2e": _range(cost.kilograms(energy)),
    }
    return {
        "asked_for_does_not_fit": why,
        "changes": list(found.changes),
        "topology": found.topology.name,
        "devices": devices,
        "mesh": mesh_words(found),
        "model": {
            "matmul_parameters": config.model.matmul_parameters,
            "layers": config.model.layers,
            "length": config.model.max_length,
            "remat": config.model.remat,
            "dtype": config.model.dtype,
        },
        "batch_size": config.batch_size,
        "microbatches": config.train.microbatches,
        "steps": config.train.steps,
        "compiled": found.compiled,
        "compile_seconds": round(found.compile_seconds, 1),
        "memory": {
            **dataclasses.asdict(found.memory),
            "total": found.memory.total,
            "has": int(chip.memory),
        },
        "traffic": [dataclasses.asdict(one) for one in found.traffic],
        "step": {
            **{name: value for name, value in dataclasses.asdict(found.time).items() if name != "step"},
            "seconds": _range(step),
            "bound": found.time.bound,
            "tokens_per_second": _range(per_second),
            "tokens_per_second_per_device": _range(per_second * (1 / devices)),
            "mfu": _range(utilisation),
        },
        "run": total,
        "inputs": _inputs(found),
        "sweep": [_compared(one) for one in swept],
        "check": published.check(),
        "known": [{**dataclasses.asdict(one), "ratio": one.ratio} for one in known.figures()],
    }


def _inputs(found: Outcome) -> dict[str, Any]:
    chip = found.topology.chip
    low, value, high = published.attainable(chip)
    return {
        "peak_flops": chip.flops,
        "memory": chip.memory,
        "bandwidth": chip.bandwidth,
        "link": chip.link,
        "network": chip.network,
        "attainable": [low, value, high],
        "watts_a_device_with_its_host": _range(chip.watts),
        "PUE": _range(PUE),
        "kgCO2e_a_kWh": _range(cost.GRID),
        "dollars_an_hour_and_chip": None if chip.price is None else chip.price * chip.per_chip,
        "sources": chip.sources,
    }


def _compared(one: Outcome) -> dict[str, Any]:
    return {
        "mesh": mesh_words(one),
        "fits": one.fits,
        "memory": one.memory.total,
        "seconds": one.time.step.value,
        "links": one.time.links,
        "bound": one.time.bound,
    }


def _range(figure: Range) -> list[float]:
    return [figure.low, figure.value, figure.high]
