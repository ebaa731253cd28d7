"""What chips can do and cost, each figure with its source, and the topologies that they are lent in."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtrain.runtime.cost import Range
from jaxtrain.runtime.errors import UserError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One device as JAX counts them ahead of time (of TPU v4 and 7x two a chip), per second and in bytes."""

    name: str
    device_kind: str
    """As JAX calls it."""
    flops: float
    """Dense bfloat16 FLOP/s."""
    memory: float
    """Bytes that a program can have."""
    bandwidth: float
    """Of its memory, bytes/s."""
    link: float
    """One link in one direction, bytes/s: TPU to each neighbour; GPU into the NVLink switch, or PCIe."""
    network: float
    """Out of its slice (TPU) or its node of eight (GPU), bytes/s in one direction."""
    watts: Range
    """Of the device and its share of the host, under load."""
    price: float | None
    """US dollars an hour, on demand; None: give one."""
    dimensions: int = 1
    """Of the torus; 1: GPUs, counted."""
    per_chip: int = 1
    """Devices of a chip."""

    @property
    def platform(self) -> str:
        return "gpu" if self.device_kind.startswith("NVIDIA") else "tpu"

    @property
    def sources(self) -> str:
        return SOURCES[self.name]


UNKNOWN = Range(190, 350, 700)
"""Watts where the maker publishes none: from TPU v4's measured maximum (192, Google) to an H100's 700."""
DGX = Range(700, 1000, 1275)
"""Of a GPU and its eighth of a DGX H100, at most 10.2 kW."""
HOME = Range(450, 550, 700)
"""Of a GPU of 450 W and the rest of a desktop computer."""

# name, kind, FLOP/s, memory, its bandwidth, link, network, watts, dollars an hour, dimensions, devices a chip
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "TPU v4", 137.5e12, 15.38 * GIB, 614e9, 22.5e9, 3.125e9, Range(45, 85, 130), 1.61, 3, 2),
        Chip("v5e", "TPU v5 lite", 197e12, 15.75 * GIB, 819e9, 45e9, 3.125e9, UNKNOWN, 1.20, 2),
        Chip("v5p", "TPU v5", 459e12, 95.74 * GIB, 2765e9, 90e9, 6.25e9, UNKNOWN, 4.20, 3),
        Chip("v6e", "TPU v6 lite", 918e12, 31.25 * GIB, 1638e9, 90e9, 6.25e9, UNKNOWN, 2.70, 2),
        Chip("7x", "TPU7x", 1153.5e12, 94.75 * GIB, 3690e9, 50e9, 3.125e9, UNKNOWN, None, 3, 2),
        Chip(
            "a100", "NVIDIA A100-SXM4-80GB", 312e12, 80e9, 2039e9, 300e9, 25e9, Range(400, 812.5, 900), 4.10
        ),
        Chip("h100", "NVIDIA H100 80GB HBM3", 989e12, 80e9, 3350e9, 450e9, 50e9, DGX, 3.00),
        Chip("h200", "NVIDIA H200", 989e12, 141e9, 4800e9, 450e9, 50e9, DGX, None),
        Chip("b200", "NVIDIA B200", 2250e12, 180e9, 8000e9, 900e9, 50e9, Range(1000, 1500, 1790), None),
        Chip("l4", "NVIDIA L4", 121e12, 24e9, 300e9, 32e9, 1.5e9, Range(72, 110, 150), 0.80),
        Chip("l40s", "NVIDIA L40S", 362e12, 48e9, 864e9, 32e9, 6.25e9, Range(350, 450, 550), 1.86),
        Chip("rtx4090", "NVIDIA GeForce RTX 4090", 165.2e12, 24e9, 1008e9, 32e9, 1.25e9, HOME, None),
    )
}

CLOUD = (
    "cloud.google.com/tpu/docs (peak, memory, bandwidth); jax-ml.github.io/scaling-book (link, network); "
    "cloud.google.com/tpu/pricing, on demand, US, 2025; "
)
SOURCES = {
    "v4": f"{CLOUD}90-170-192 W a chip (Google Cloud), host added",
    "v5e": f"{CLOUD}no power published",
    "v5p": f"{CLOUD}no power published",
    "v6e": f"{CLOUD}no power published",
    "7x": "Google Cloud, Ironwood: 2,307 TFLOP/s, 192 GiB, 7.38 TB/s, 1.2 TB/s of links a chip",
    "a100": "NVIDIA A100 data sheet; DGX A100: 8 x 200 Gb/s, 6.5 kW of 8; AWS p4d 32.77 $/h of 8",
    "h100": "NVIDIA H100 data sheet (SXM); DGX H100: 8 x 400 Gb/s; nanochat: 24 $/h of 8",
    "h200": "NVIDIA H200 data sheet (SXM); power as DGX H100",
    "b200": "NVIDIA DGX B200 data sheet: 8 x 180 GB, 64 TB/s, 14.4 TB/s of NVLink, at most 14.3 kW",
    "l4": "NVIDIA L4 data sheet (PCIe 4); AWS g6: 100 Gb/s of 8, 0.80 $/h of one",
    "l40s": "NVIDIA L40S data sheet (PCIe 4); AWS g6e: 400 Gb/s of 8, 1.86 $/h of one",
    "rtx4090": "NVIDIA's Ada white paper: 165.2 TFLOP/s (PCIe 4); 10 Gb/s Ethernet assumed",
}
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
"""What others measured: the share of its peak that a chip reaches in training. Model FLOP/s over peak, as the
source counts them, or of its tokens a second and device and the model's shape (the test has the shapes).
How each run kept activations is mostly not said; what it recomputed counts as lost time."""


def attainable(chip: Chip, shares: Mapping[str, Sequence[float]] = SHARES) -> tuple[float, float, float]:
    """Lowest, median and highest share of the peak by runs on a chip, or on its platform without any."""
    alike = [name for name in shares if CHIPS[name].platform == chip.platform]
    own = shares.get(chip.name) or [share for name in alike for share in shares[name]]
    return min(own), statistics.median(own), max(own)


@dataclass(frozen=True)
class Topology:
    """Devices that are wired together, `slices` times over."""

    chip: Chip
    shape: tuple[int, ...]
    """Of a TPU slice, chips along each dimension of its torus; of GPUs, their number."""
    slices: int = 1

    @property
    def devices(self) -> int:
        return self.slices * self.chip.per_chip * math.prod(self.shape)

    @property
    def name(self) -> str:
        text = f"{self.chip.name}:{'x'.join(map(str, self.shape))}"
        return f"{self.slices} x {text}" if self.slices > 1 else text


def parse(text: str, slices: int = 1) -> Topology:
    """`v5p:8x8x8`, `v6e:16x16`, `h100:64`; UserError with what there is."""
    found = re.fullmatch(r"(?:tpu)?([a-z0-9]+):(\d+(?:x\d+)*)", text.lower())
    if not found or found[1] not in CHIPS:
        raise UserError(f"topology {text!r} is none of {', '.join(CHIPS)} with a shape: v5p:8x8x8, h100:64")
    chip, shape = CHIPS[found[1]], tuple(int(size) for size in found[2].split("x"))
    if len(shape) != chip.dimensions or 0 in shape:
        example = {3: "4x4x4", 2: "16x16", 1: "64"}[chip.dimensions]
        raise UserError(
            f"topology {text!r}: {chip.name} has {chip.dimensions} dimensions, as in {chip.name}:{example}"
        )
    if slices < 1 or (slices > 1 and chip.platform == "gpu"):
        raise UserError(f"slices {slices}: at least 1, and of TPUs alone; GPUs are counted, as in h100:64")
    return Topology(chip, shape, slices)
