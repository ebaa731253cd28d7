"""The lines of speed: tokens and FLOP/s of a device, where time went, memory, power."""

from typing import Any

import jax

from jaxtrain.runtime import perf
from jaxtrain.runtime.energy import Meter
from jaxtrain.runtime.goodput import Goodput


class Pace:
    """Adds up steps between two lines of kind `speed`.

    flops_per_token: of forward and backward, `runtime.cost.flops_per_token`; None: FLOP/s are left out.
    microbatches: parts of a batch, of which a step may have computed the first alone.
    peak_flops: of one device; None: by its name.
    """

    def __init__(
        self,
        goodput: Goodput,
        flops_per_token: float | None,
        microbatches: int = 1,
        peak_flops: float | None = None,
        meter: Meter | None = None,
    ):
        self.goodput = goodput
        self._meter = meter or Meter()
        self._joules_before = self._meter.joules
        self._flops_per_token, self._microbatches = flops_per_token, microbatches
        self._peak_flops = peak_flops or perf.peak_flops(jax.devices()[0].device_kind)
        self._tokens, self._seconds = 0, 0.0
        self._data_before = goodput.seconds["data"]

    def step(self, tokens: int, line: dict[str, float]) -> None:
        """A step's line, with the tokens of its global batch, padding included."""
        computed = line.get("microbatches", self._microbatches) / self._microbatches
        self._tokens += round(computed * tokens)
        self._seconds += line["seconds"]

    def line(self) -> dict[str, Any]:
        """Since the line before: speed of a device, share of time waiting for data. goodput: since step 0."""
        share = self.goodput.share
        data = self.goodput.seconds["data"] - self._data_before
        found: dict[str, Any] = {
            "kind": "speed",
            **perf.speed(self._tokens / max(1e-9, self._seconds), self._flops_per_token, self._peak_flops),
            "data_wait": data / max(1e-9, self._seconds),
            "goodput": share,
            "peak_memory_bytes": perf.peak_memory(),
            **self._power(),
            **{f"seconds/{part}": seconds for part, seconds in self.goodput.seconds.items()},
        }
        self._tokens, self._seconds, self._data_before = 0, 0.0, self.goodput.seconds["data"]
        return found

    def _power(self) -> dict[str, float | None]:
        """Watts of this machine and joules a token of its share, by kind of counter; None: there is none."""
        self._meter.update()
        joules = self._meter.joules
        spent = {kind: value - self._joules_before[kind] for kind, value in joules.items()}
        self._joules_before = joules
        found: dict[str, float | None] = {} if spent else {"watts": None, "joules_per_token": None}
        for kind, value in spent.items():
            found[f"watts/{kind}"] = value / max(1e-9, self._seconds)
            found[f"joules_per_token/{kind}"] = value * jax.process_count() / max(1, self._tokens)
        return found
