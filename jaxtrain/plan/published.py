"""What others measured, and what it says of the share of its peak that a chip reaches in training.

The share that `plan` expects of a chip is the median of its rows, or, without any, of its platform's. How
each run kept activations is mostly not said; what it recomputed counts as lost time.
"""

import statistics
from dataclasses import dataclass

from jaxtrain.model.config import ModelConfig
from jaxtrain.plan.hardware import CHIPS, Chip


@dataclass(frozen=True)
class Row:
    """One published speed: tokens/s of a device with the model's shape, or the source's own utilisation."""

    what: str
    chip: str
    source: str
    model: ModelConfig | None = None
    tokens: float = 0.0
    """A second and device (of 7x: a chip)."""
    share: float = 0.0
    """Model FLOP/s over peak, as the source counts them."""

    @property
    def utilisation(self) -> float:
        if self.model is None:
            return self.share
        return self.tokens * self.model.flops_per_token() / CHIPS[self.chip].flops


def llama(parameters: str, length: int, vocab: int = 128_256) -> ModelConfig:
    """The published shapes of Llama 2 and 3 (config.json of each)."""
    layers, d_model, heads, kv_heads, d_hidden = {
        "7B": (32, 4096, 32, 32, 11008),
        "8B": (32, 4096, 32, 8, 14336),
        "70B": (80, 8192, 64, 8, 28672),
        "405B": (126, 16384, 128, 8, 53248),
    }[parameters]
    return ModelConfig(
        vocab_size=vocab,
        layers=layers,
        d_model=d_model,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=128,
        d_hidden=d_hidden,
        max_length=length,
        qk_norm=False,
    )


TIERING = "MaxText, docs: tiering.md (2025)"
RECIPES = "AI-Hypercomputer tpu-recipes (2025)"
FIRST = "MaxText, v5e README (2023, counts attention whole)"
ROWS = (
    Row("Llama 3.1 8B on 256", "v6e", TIERING, llama("8B", 8192), tokens=7207),
    Row("Llama 3.1 70B on 256", "v6e", TIERING, llama("70B", 8192), tokens=960),
    Row("Llama 3.1 405B on 256", "v6e", TIERING, llama("405B", 8192), tokens=123),
    Row("Llama 2 70B on 256", "v6e", TIERING, llama("70B", 4096, 32_000), tokens=900),
    Row("Llama 2 70B on 256 (v5p-512)", "v5p", TIERING, llama("70B", 4096, 32_000), tokens=692),
    Row("Llama 3.1 405B", "v5p", RECIPES, share=0.685),
    Row("16B on 256", "v5e", FIRST, share=0.611),
    Row("32B on 256", "v5e", FIRST, share=0.669),
    Row("64B on 256", "v5e", FIRST, share=0.599),
    Row("Llama 3.1 70B on 64", "7x", RECIPES, share=1207 / 2307),
    Row("Llama 3.1 405B", "7x", RECIPES, share=1261 / 2307),
    Row("Llama 2 7B on 8", "h100", "JAX-Toolbox (2025)", llama("7B", 4096, 32_000), tokens=11362),
    Row("Llama 2 7B on 128", "h100", "MaxText, configs/gpu/a3 (2024)", share=375 / 989),
    Row("Llama 3 405B on 16,384", "h100", "Llama 3 (arXiv 2407.21783), table 4", share=0.41),
    Row("Llama 3.1 70B on 256", "h200", "AI-Hypercomputer gpu-recipes (2025)", share=0.514),
)


def attainable(chip: Chip, without: Row | None = None) -> tuple[float, float, float]:
    """Lowest, median and highest share of the peak in rows of a chip, or of its platform without any."""
    rows = [row for row in ROWS if row is not without]
    own = [row.utilisation for row in rows if row.chip == chip.name]
    own = own or [row.utilisation for row in rows if CHIPS[row.chip].platform == chip.platform]
    return min(own), statistics.median(own), max(own)
