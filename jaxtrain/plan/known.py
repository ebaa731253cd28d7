"""Figures that everybody quotes, worked out again by the formulas of `plan`; what is assumed is said."""

from dataclasses import dataclass

from jaxtrain.plan.hardware import CHIPS
from jaxtrain.plan.published import attainable, flops_per_token, llama
from jaxtrain.runtime import cost

HOME = 10_791.0
"""kWh a year of a home in the United States (EIA, 2022)."""
LLAMA_TOKENS = 15.6e12
"""Llama 3 (arXiv 2407.21783), section 3.4; the 8B and 70B model cards say "15T+"."""
CARD = "Llama 3.1 model card"


@dataclass(frozen=True, kw_only=True)
class Known:
    what: str
    formula: str
    ours: float
    published: float
    unit: str
    source: str

    @property
    def ratio(self) -> float:
        return self.ours / self.published


def figures() -> list[Known]:
    watts = CHIPS["a100"].watts.value
    gigawatt_hours = 25_000 * 100 * 24 * watts / 1e9
    found = [
        Known(
            what="25,000 A100 for 100 days",
            formula=f"25,000 x 100 d x 24 h x {watts:g} W (DGX A100: 6.5 kW a server of 8)",
            ours=gigawatt_hours,
            published=50.0,
            unit="GWh",
            source="often said of GPT-4",
        ),
        Known(
            what="that, in homes for a year",
            formula=f"{gigawatt_hours:.1f} GWh / {HOME:g} kWh",
            ours=gigawatt_hours * 1e6 / HOME,
            published=4_500.0,
            unit="homes",
            source="with it",
        ),
    ]
    chip, hours_of = CHIPS["h100"], {"8B": 1.46e6, "70B": 7.0e6, "405B": 30.84e6}
    share = attainable(chip)[1]
    for size, hours in hours_of.items():
        flops = flops_per_token(llama(size, 8192)) * LLAMA_TOKENS
        found.append(
            Known(
                what=f"Llama 3.1 {size}",
                formula=f"{flops:.2e} FLOP / ({chip.flops:.3g} FLOP/s x {share:.2f} x 3600 s)",
                ours=flops / (chip.flops * share * 3600),
                published=hours,
                unit="H100 hours",
                source=f"{CARD}; it counts more than the last run's steps",
            )
        )
    tonnes = {"8B": 420.0, "70B": 2040.0, "405B": 8930.0}
    for size, hours in hours_of.items():
        found.append(
            Known(
                what=f"Llama 3.1 {size}, energy as the card counts it",
                formula=f"{hours:.3g} h x 0.7 kW (thermal design power) x {cost.GRID.value:g} kg a kWh",
                ours=hours * 0.7 * cost.GRID.value / 1000,
                published=tonnes[size],
                unit="t CO2e",
                source=f"{CARD}, location-based",
            )
        )
    found.append(
        Known(
            what="Llama 3.1, all three",
            formula="39.3e6 h x 0.7 kW",
            ours=sum(hours_of.values()) * 0.7e-6,
            published=27.5,
            unit="GWh",
            source=f"{CARD}: 39.3 million hours at 700 W",
        )
    )
    return found
