"""What chips can do and cost, each figure with its source, and the topologies that they are lent in."""

import math
import re
from dataclasses import dataclass

from jaxtrain.runtime.cost import Range
from jaxtrain.runtime.errors import UserError

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One device as JAX counts them ahead of time (of TPU v4 and 7x two a chip), per second and in bytes."""

    name: str
    platform: str
    """`tpu` or `gpu`."""
    device_kind: str
    """As JAX calls it; `perf.peak_flops` and `cost.device_watts` look it up."""
    flops: float
    """Dense bfloat16 FLOP/s."""
    memory: float
    """Bytes that a program can have."""
    bandwidth: float
    """Of its memory, bytes/s."""
    link: float
    """One link in one direction, bytes/s: TPU to each neighbour; GPU into the NVLink switch."""
    network: float
    """Out of its slice (TPU) or its node of eight (GPU), bytes/s in one direction."""
    watts: Range
    """Of the device and its share of the host, under load."""
    price: float | None
    """US dollars an hour, on demand; None: give one."""
    sources: str
    dimensions: int = 1
    """Of the torus; 1: GPUs, counted."""
    per_chip: int = 1
    """Devices of a chip."""


UNPUBLISHED = Range(190, 350, 700)
"""Watts where the maker publishes none: from TPU v4's measured maximum (192, Google) to an H100's 700."""

CLOUD = "cloud.google.com/tpu/docs (peak, memory, bandwidth)"
BOOK = "jax-ml.github.io/scaling-book (link, network)"
PRICES = "cloud.google.com/tpu/pricing, on demand, US, 2025"

CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            platform="tpu",
            dimensions=3,
            per_chip=2,
            device_kind="TPU v4",
            flops=275e12 / 2,
            memory=15.38 * GIB,
            bandwidth=1228e9 / 2,
            link=45e9 / 2,
            network=6.25e9 / 2,
            watts=Range(45, 85, 130),
            price=3.22 / 2,
            sources=f"{CLOUD}; {BOOK}; {PRICES}; 90-170-192 W a chip (Google Cloud), host added",
        ),
        Chip(
            name="v5e",
            platform="tpu",
            dimensions=2,
            device_kind="TPU v5 lite",
            flops=197e12,
            memory=15.75 * GIB,
            bandwidth=819e9,
            link=45e9,
            network=3.125e9,
            watts=UNPUBLISHED,
            price=1.20,
            sources=f"{CLOUD}; {BOOK}; {PRICES}; no power published",
        ),
        Chip(
            name="v5p",
            platform="tpu",
            dimensions=3,
            device_kind="TPU v5",
            flops=459e12,
            memory=95.74 * GIB,
            bandwidth=2765e9,
            link=90e9,
            network=6.25e9,
            watts=UNPUBLISHED,
            price=4.20,
            sources=f"{CLOUD}; {BOOK}; {PRICES}; no power published",
        ),
        Chip(
            name="v6e",
            platform="tpu",
            dimensions=2,
            device_kind="TPU v6 lite",
            flops=918e12,
            memory=31.25 * GIB,
            bandwidth=1638e9,
            link=90e9,
            network=6.25e9,
            watts=UNPUBLISHED,
            price=2.70,
            sources=f"{CLOUD}; {BOOK}; {PRICES}; no power published",
        ),
        Chip(
            name="7x",
            platform="tpu",
            dimensions=3,
            per_chip=2,
            device_kind="TPU7x",
            flops=2307e12 / 2,
            memory=94.75 * GIB,
            bandwidth=7380e9 / 2,
            link=100e9 / 2,
            network=6.25e9 / 2,
            watts=UNPUBLISHED,
            price=None,
            sources="Google Cloud, Ironwood: 2,307 TFLOP/s, 192 GiB, 7.38 TB/s, 1.2 TB/s of links a chip",
        ),
        Chip(
            name="a100",
            platform="gpu",
            device_kind="NVIDIA A100-SXM4-80GB",
            flops=312e12,
            memory=80e9,
            bandwidth=2039e9,
            link=300e9,
            network=25e9,
            watts=Range(400, 812.5, 900),
            price=4.10,
            sources="NVIDIA A100 data sheet; DGX A100: 8 x 200 Gb/s, 6.5 kW of 8; AWS p4d 32.77 $/h of 8",
        ),
        Chip(
            name="h100",
            platform="gpu",
            device_kind="NVIDIA H100 80GB HBM3",
            flops=989e12,
            memory=80e9,
            bandwidth=3350e9,
            link=450e9,
            network=50e9,
            watts=Range(700, 1000, 1275),
            price=3.00,
            sources="NVIDIA H100 data sheet (SXM); DGX H100: 8 x 400 Gb/s, at most 10.2 kW a server of 8; "
            "nanochat: 24 $/h of 8",
        ),
        Chip(
            name="h200",
            platform="gpu",
            device_kind="NVIDIA H200",
            flops=989e12,
            memory=141e9,
            bandwidth=4800e9,
            link=450e9,
            network=50e9,
            watts=Range(700, 1000, 1275),
            price=None,
            sources="NVIDIA H200 data sheet (SXM); power as DGX H100",
        ),
        Chip(
            name="b200",
            platform="gpu",
            device_kind="NVIDIA B200",
            flops=2250e12,
            memory=180e9,
            bandwidth=8000e9,
            link=900e9,
            network=50e9,
            watts=Range(1000, 1500, 1790),
            price=None,
            sources="NVIDIA DGX B200 data sheet: 8 x 180 GB, 64 TB/s, 14.4 TB/s of NVLink, at most 14.3 kW",
        ),
    )
}


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
