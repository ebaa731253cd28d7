"""What others measured: the share of its peak that a chip reaches in training.

Model FLOP/s over peak, as the source counts them, or of its tokens a second and device and the model's shape
(`ModelConfig.flops_per_token`; the test has the shapes). How each run kept activations is mostly not said;
what it recomputed counts as lost time.
"""

import statistics
from collections.abc import Mapping, Sequence

from jaxtrain.plan.hardware import CHIPS, Chip

SHARES: Mapping[str, Sequence[float]] = {
    # Llama 3.1 8B, 70B, 405B, Llama 2 70B on 256: 7207, 960, 123, 900 tokens/s (MaxText, tiering.md, 2025)
    "v6e": (0.4041, 0.4698, 0.3382, 0.42),
    # Llama 2 70B on 256: 692 tokens/s (the same); Llama 3.1 405B (AI-Hypercomputer tpu-recipes, 2025)
    "v5p": (0.6458, 0.685),
    # 16B, 32B and 64B on 256 (MaxText, v5e README, 2023, counts attention whole)
    "v5e": (0.611, 0.669, 0.599),
    # Llama 3.1 70B on 64 and 405B: 1207 and 1261 TFLOP/s a chip (tpu-recipes, 2025)
    "7x": (1207 / 2307, 1261 / 2307),
    # Llama 2 7B on 8: 11362 tokens/s (JAX-Toolbox, 2025), on 128: 375 TFLOP/s (MaxText, gpu/a3, 2024);
    # Llama 3 405B on 16,384 (arXiv 2407.21783, table 4)
    "h100": (0.4924, 375 / 989, 0.41),
    # Llama 3.1 70B on 256 (AI-Hypercomputer gpu-recipes, 2025)
    "h200": (0.514,),
}


def attainable(chip: Chip, shares: Mapping[str, Sequence[float]] = SHARES) -> tuple[float, float, float]:
    """Lowest, median and highest share of the peak by runs on a chip, or on its platform without any."""
    alike = [name for name in shares if CHIPS[name].platform == chip.platform]
    own = shares.get(chip.name) or [share for name in alike for share in shares[name]]
    return min(own), statistics.median(own), max(own)
