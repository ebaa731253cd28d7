"""Energy that was measured: counters of NVIDIA's driver (NVML) and of the processor (RAPL).

A counter counts what the whole device used, whoever used it. What no counter covers (TPUs, the rest of the
machine, processors that hide theirs) is not filled in here: `cost.py` estimates from stated power, and the
two are never added up.
"""

import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

RAPL = Path("/sys/class/powercap")
POLL_SECONDS = 60.0
"""RAPL's counters start again at about 260 kJ, 20 minutes of a large processor."""
JOULES = 3.6e6
"""Of a kWh."""


@dataclass
class Counter:
    """A counter of energy that may start again from 0."""

    kind: str
    """`nvml`: accelerators; `rapl`: processor packages."""
    read: Callable[[], float]
    """Joules since some moment."""
    wraps_at: float = 0.0
    """Joules at which it starts again; 0: never."""
    joules: float = 0.0
    """Since it was made."""
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.read()

    def update(self) -> None:
        now = self.read()
        gained = now - self._last
        self.joules += gained if gained >= 0 or not self.wraps_at else gained + self.wraps_at
        self._last = now


class Meter:
    """Reads every counter there is, from `with` to its end.

    rapl: the folder of the kernel's powercap tree.
    """

    def __init__(self, rapl: Path = RAPL):
        self._counters = [*_processor(rapl), *_accelerators()]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> "Meter":
        if self._counters:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._counters:
            self._thread.join()
            self.update()

    @property
    def kilowatt_hours(self) -> dict[str, float]:
        """By kind of counter; empty where there is none."""
        sums: dict[str, float] = {}
        for counter in self._counters:
            sums[counter.kind] = sums.get(counter.kind, 0.0) + counter.joules / JOULES
        return sums

    def _poll(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            self.update()

    def update(self) -> None:
        """Read the counters now; where no thread does, at least every twenty minutes."""
        for counter in self._counters:
            counter.update()


def _processor(folder: Path) -> list[Counter]:
    """A counter of each package (AMD's too are called intel-rapl); parts of a package are not added to it."""
    counters = []
    for package in sorted(folder.glob("intel-rapl:*")):
        if package.name.count(":") > 1:
            continue
        with suppress(OSError, ValueError):  # not readable for this user: as if it were not there
            most = float((package / "max_energy_range_uj").read_text()) / 1e6
            file = package / "energy_uj"
            counters.append(Counter("rapl", lambda file=file: float(file.read_text()) / 1e6, most))
    return counters


def _accelerators() -> list[Counter]:
    """A counter of each NVIDIA device, since Volta: nvmlDeviceGetTotalEnergyConsumption, in mJ."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return []
    count, counters = ctypes.c_uint(), []
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    for index in range(count.value):
        with suppress(RuntimeError):  # older than Volta
            counters.append(Counter("nvml", partial(_joules, nvml, index)))
    return counters


def _joules(nvml: ctypes.CDLL, index: int) -> float:
    device, found = ctypes.c_void_p(), ctypes.c_ulonglong()
    if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)):
        raise RuntimeError("NVML no longer knows a device")
    if nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(found)):
        raise RuntimeError("NVML's energy counter was there and is gone")
    return found.value / 1e3
