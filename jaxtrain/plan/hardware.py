"""What chips can do and cost (runtime/devices.toml), and the topologies that they are lent in."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtrain.runtime.cost import DEVICES, Range
from jaxtrain.runtime.errors import UserError

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
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
    sources: str
    price: float | None = None
    """US dollars an hour, on demand; None: give one."""
    dimensions: int = 1
    """Of the torus; 1: GPUs, counted."""
    per_chip: int = 1
    """Devices of a chip."""
    shares: Sequence[float] = ()
    """Of its peak that others reached in training, as the source counts FLOP/s, or by its tokens a second and
    the model's shape (the test has the shapes). What a run recomputed counts as lost time."""
    xla: Sequence[float | str] = ()
    """What XLA optimizes for (openxla/xla, gpu/target_config/specs): multiprocessors, bytes of memory; of one
    its shared memory, that of a block, its float32 units; level 2 cache, GHz, capability. Empty: unknown."""

    @property
    def platform(self) -> str:
        return "gpu" if self.device_kind.startswith("NVIDIA") else "tpu"


CHIPS = {
    of["plan"]["name"]: Chip(**{"flops": of["flops"], **of["plan"], "watts": Range(*of["plan"]["watts"])})
    for of in DEVICES.values()
    if "plan" in of
}
SHARES: Mapping[str, Sequence[float]] = {chip.name: chip.shares for chip in CHIPS.values() if chip.shares}


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
